/**
 * Watched files (inotify, fanotify). CRIU finds them again by their handles, which an overlay gives out and does not take back.
 * There it compares numbers of files with those below paths that it is told (irmap-scan-path): so their paths are looked for.
 */
import { lstat, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';
import { unreadBytes } from '../../host/unread.ts';
import { namesInCriuConfig } from '../criu-config.ts';
import type { Finding } from '../types.ts';
import {
  descriptorInfo, descriptorsOf, fatal, lost as lostFinding, who, type ProcessView, type Scene,
} from './findings.ts';

/** Handles that overlayfs gives out (linux/exportfs.h, FILEID_…): it opens them again only when mounted with nfs_export=on. */
const OVERLAY_HANDLE = /fhandle-type:(?:f8|fb)\b/;
/** "inotify wd:1 ino:f5f8 sdev:2a …", "fanotify ino:f5f8 sdev:2a …"; sdev is the kernel's: twenty bits of minor number. */
const WATCH = /^(?:inotify wd:\S+|fanotify) ino:([0-9a-f]+) sdev:([0-9a-f]+) .*$/gm;
/** Beyond so many files nobody has time to look. */
const MAX_EXAMINED = 50_000;

interface Watcher {
  readonly process: ProcessView;
  readonly fd: number;
  readonly kind: string;
  /** Of the files that handles do not lead back to: "major:minor inode". */
  readonly lost: readonly string[];
}

function lostWatches(info: string, overlayOpens: boolean): string[] {
  return [...info.matchAll(WATCH)].filter(([line]) => !line.includes('f_handle:') || (OVERLAY_HANDLE.test(line) && !overlayOpens)).map(([, inode, device]) => {
    const number = Number.parseInt(device ?? '', 16);
    return `${number >>> 20}:${number & 0xfffff} ${BigInt(`0x${inode}`)}`;
  });
}

function watchers(scene: Scene): Watcher[] {
  const { rootfs } = scene.container;
  const overlayOpens = rootfs.kind === 'overlay' && rootfs.options.includes('nfs_export=on');
  return [...descriptorsOf(scene, (name) => name === 'anon_inode:inotify' || name === 'anon_inode:[fanotify]')].map(({ process, fd, target }) => ({
    process, fd, kind: target.replace('anon_inode:', '').replace(/[[\]]/g, ''), lost: lostWatches(descriptorInfo(process, fd) ?? '', overlayOpens),
  }));
}

/** They are now, and perhaps not any more at the freeze; what comes until then is not known. */
function unreadEvents(all: readonly Watcher[]): Finding[] {
  return all.filter(({ process: { pid }, fd }) => unreadBytes(pid, fd) > 0).map(({ process, fd, kind }) => lostFinding(
    `what ${who(process)} has not read yet of the events of files that it watches (${kind}, descriptor ${fd})`,
    'let the program read them first, or look at the files again after a restore', process,
  ));
}

/** As CRIU sees it: undefined for what it does not follow, and for what is gone. */
async function look(path: string): Promise<{ key: string; directory: boolean } | undefined> {
  try {
    const stat = await lstat(path, { bigint: true });
    if (!stat.isFile() && !stat.isDirectory()) return undefined;
    const major = ((stat.dev >> 8n) & 0xfffn) | ((stat.dev >> 32n) & ~0xfffn);
    const minor = (stat.dev & 0xffn) | ((stat.dev >> 12n) & ~0xffn);
    return { key: `${major}:${minor} ${stat.ino}`, directory: stat.isDirectory() };
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return undefined;
  }
}

/** Where programs look first: beside what they have open, and where logs and settings are. */
function likely({ tree }: Scene): string[] {
  const beside = tree.processes.flatMap(({ descriptors }) => descriptors.filter(({ target }) => /^\/(?!dev|proc|sys)./.test(target)).map(({ target }) => dirname(target)));
  return [...new Set([...beside.filter((path) => path !== '/'), '/etc', '/var', '/srv', '/opt', '/'])];
}

/**
 * What a directory of the overlay holds, and names that the uppermost layers have hidden. Out of the layers: whoever opens the
 * directory itself is heard of by those that watch it.
 */
async function namesIn(layers: readonly string[], path: string): Promise<Set<string>> {
  const lists = await Promise.all(layers.map((layer) => readdir(join(layer, path)).catch(() => [])));
  return new Set(lists.flat());
}

/** Paths in the container's root by number of file. Other mounts are not entered: a file system that hangs would hang the caller. */
async function findPaths(scene: Scene, wanted: ReadonlySet<string>, signal: AbortSignal | undefined): Promise<Map<string, string>> {
  const { pid, rootfs } = scene.container;
  if (rootfs.kind !== 'overlay') return new Map();
  const root = `/proc/${pid}/root`;
  const layers = [rootfs.upper, ...rootfs.lower];
  const mountPoints = new Set(scene.mounts.map(({ mountPoint }) => mountPoint));
  mountPoints.delete('/');
  const found = new Map<string, string>();
  const seen = new Set<string>();
  const waiting = likely(scene).filter((path) => ![...mountPoints].some((mount) => path === mount || path.startsWith(`${mount}/`)));
  for (let next = 0; next < waiting.length && found.size < wanted.size && seen.size < MAX_EXAMINED; next++) {
    signal?.throwIfAborted();
    const path = waiting[next]!;
    if (seen.has(path)) continue;
    seen.add(path);
    const here = await look(join(root, path));
    if (here === undefined) continue;
    if (wanted.has(here.key) && namesInCriuConfig(path)) found.set(here.key, path);
    if (!here.directory) continue;
    const names = await namesIn(layers, path);
    waiting.push(...[...names].map((name) => join(path, name)).filter((below) => !mountPoints.has(below)));
  }
  return found;
}

export interface Watched {
  readonly findings: readonly Finding[];
  /** Paths in the container's root that CRIU must be told. */
  readonly paths: readonly string[];
}

export async function checkWatches(scene: Scene, signal: AbortSignal | undefined): Promise<Watched> {
  const all = watchers(scene);
  if (all.length === 0) return { findings: [], paths: [] };
  const wanted = new Set(all.flatMap(({ lost }) => lost));
  const found = wanted.size === 0 ? new Map<string, string>() : await findPaths(scene, wanted, signal);
  const unfound = all.flatMap(({ process, fd, kind, lost }) => {
    const count = lost.filter((key) => !found.has(key)).length;
    if (count === 0) return [];
    return [fatal('file-watch', `${who(process)} watches ${count} file${count === 1 ? '' : 's'} of the container's root (${kind}, descriptor ${fd}), which cannot be found again in an overlay: by no name that is left, or not by number, because the layers are on several file systems`, 'switch file watching off (tail -F, development servers, reloaders), or watch files on a volume', process)];
  });
  return { findings: [...unfound, ...unreadEvents(all)], paths: [...new Set(found.values())] };
}
