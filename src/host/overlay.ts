/** Mounting overlays: mount(2) where its one page of options is enough, else one layer at a time (fsconfig(2), kernel 6.5). */
import koffi from 'koffi';
import { StasisError } from '../core/errors.ts';
import { AT_FDCWD, mount, systemError } from './libc.ts';

export interface OverlayMount {
  /** Uppermost first. */
  readonly lower: readonly string[];
  readonly upper: string;
  readonly work: string;
  /** "redirect_dir=on", "userxattr". */
  readonly options: readonly string[];
}

const libc = koffi.load('libc.so.6');
const raw = {
  fsopen: libc.func('long syscall(long number, const char* type, long flags)'),
  fsconfig: libc.func('long syscall(long number, long fd, long command, const char* key, const char* value, long aux)'),
  fsmount: libc.func('long syscall(long number, long fd, long flags, long attributes)'),
  moveMount: libc.func('long syscall(long number, long fromFd, const char* from, long toFd, const char* to, long flags)'),
  close: libc.func('int close(int fd)'),
};

/** The same numbers on all architectures. */
const SYS_MOVE_MOUNT = 429;
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const CLOEXEC = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
/** The kernel takes one page of options, its end included. */
const MAX_OPTIONS = 4095;

/** Colons separate layers and backslashes escape them; a comma ends the option. */
function escaped(path: string): string {
  return path.replace(/[\\:,]/g, '\\$&');
}

function check(result: number, what: string): number {
  if (result < 0) throw systemError(what);
  return result;
}

/** Throws a system error. */
export function mountOverlay(target: string, { lower, upper, work, options }: OverlayMount): void {
  const data = [`lowerdir=${lower.map(escaped).join(':')}`, `upperdir=${escaped(upper)}`, `workdir=${escaped(work)}`, ...options].join(',');
  if (Buffer.byteLength(data) <= MAX_OPTIONS) mount('overlay', target, 'overlay', 0, data);
  else mountByLayer(target, { lower, upper, work, options });
}

function mountByLayer(target: string, { lower, upper, work, options }: OverlayMount): void {
  const context = check(raw.fsopen(SYS_FSOPEN, 'overlay', CLOEXEC) as number, 'fsopen');
  try {
    const set = (key: string, value: string | null): void => {
      check(raw.fsconfig(SYS_FSCONFIG, context, value === null ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key, value, 0) as number, `fsconfig ${key}`);
    };
    for (const layer of lower) addLayer(set, layer);
    set('upperdir', upper);
    set('workdir', work);
    for (const option of options) {
      const [key = '', value] = option.split('=', 2);
      set(key, value ?? null);
    }
    check(raw.fsconfig(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, null, null, 0) as number, 'fsconfig');
    const mounted = check(raw.fsmount(SYS_FSMOUNT, context, CLOEXEC, 0) as number, 'fsmount');
    try {
      check(raw.moveMount(SYS_MOVE_MOUNT, mounted, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) as number, 'move_mount');
    } finally {
      raw.close(mounted);
    }
  } finally {
    raw.close(context);
  }
}

function addLayer(set: (key: string, value: string) => void, layer: string): void {
  try {
    set('lowerdir+', layer);
  } catch (error) {
    throw new StasisError('RESTORE_INCOMPATIBLE', 'this kernel cannot mount so many layers with names so long', {
      cause: error, hint: 'use kernel 6.5 or newer, or mount the root file system yourself and give the bundle (--bundle)',
    });
  }
}
