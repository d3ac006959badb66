/** /proc/PID/mountinfo (proc_pid_mountinfo(5)) and the overlay options in it. */
import { readProc } from './proc.ts';

export interface Mount {
  readonly id: number;
  readonly parent: number;
  /** "major:minor" of the file system. */
  readonly device: string;
  /** The part of the file system that is mounted here. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
  /** Propagation: "shared:2", "master:1". */
  readonly tags: readonly string[];
  readonly fsType: string;
  readonly source: string;
  /** Options of the file system, each with its escapes taken out. */
  readonly superOptions: readonly string[];
}

export interface OverlayLayers {
  /** Uppermost first. */
  readonly lower: readonly string[];
  readonly upper: string | undefined;
  readonly work: string | undefined;
  /** The other options ("metacopy=on", "redirect_dir=on"), without ro and rw. */
  readonly options: readonly string[];
}

/** The kernel writes blank, tab, newline, backslash and, in options, "," and "=" as three octal digits. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

function parseLine(line: string): Mount | undefined {
  const [before, after] = line.split(' - ', 2);
  const left = (before ?? '').split(' ');
  const right = (after ?? '').split(' ');
  if (left.length < 6 || right.length < 3) return undefined;
  return {
    id: Number(left[0]),
    parent: Number(left[1]),
    device: left[2] ?? '',
    root: unescapeOctal(left[3] ?? ''),
    mountPoint: unescapeOctal(left[4] ?? ''),
    options: (left[5] ?? '').split(','),
    tags: left.slice(6),
    fsType: unescapeOctal(right[0] ?? ''),
    source: unescapeOctal(right[1] ?? ''),
    superOptions: (right[2] ?? '').split(',').map(unescapeOctal),
  };
}

/** Lines that do not parse are left out. */
export function parseMountinfo(text: string): Mount[] {
  return text.split('\n').flatMap((line) => parseLine(line) ?? []);
}

/** Empty when the process is gone. */
export function readMountinfo(pid: number | 'self'): Mount[] {
  return parseMountinfo(readProc(pid, 'mountinfo') ?? '');
}

/** The mount that a path lies on when mounts are stacked: the last one listed with the longest matching mount point. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let best: Mount | undefined;
  for (const mount of mounts) {
    const prefix = mount.mountPoint.endsWith('/') ? mount.mountPoint : `${mount.mountPoint}/`;
    const covers = path === mount.mountPoint || path.startsWith(prefix);
    if (covers && mount.mountPoint.length >= (best?.mountPoint.length ?? 0)) best = mount;
  }
  return best;
}

/** overlayfs takes "\:" for a colon inside a layer's name; "::" separates data-only layers. */
function splitLayers(list: string): string[] {
  const layers = list.match(/(?:\\.|[^\\:])+/g) ?? [];
  return layers.map((layer) => layer.replace(/\\(.)/g, '$1'));
}

/** The layers of an overlay mount; both spellings, `lowerdir=a:b` and the newer `lowerdir+=a,lowerdir+=b`. */
export function overlayLayers(mount: Mount): OverlayLayers {
  const lower: string[] = [];
  const options: string[] = [];
  let upper: string | undefined;
  let work: string | undefined;
  for (const option of mount.superOptions) {
    const equals = option.indexOf('=');
    const key = equals < 0 ? option : option.slice(0, equals);
    const value = option.slice(equals + 1);
    if (key === 'lowerdir') lower.push(...splitLayers(value));
    else if (key === 'lowerdir+' || key === 'datadir+') lower.push(value);
    else if (key === 'upperdir') upper = value;
    else if (key === 'workdir') work = value;
    else if (key !== 'ro' && key !== 'rw') options.push(option);
  }
  return { lower, upper, work, options };
}
