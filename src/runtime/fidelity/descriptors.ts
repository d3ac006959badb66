/** The open descriptors of a process, in words that are the same after a restore. */
import { createHash } from 'node:crypto';
import { constants, readdirSync, readlinkSync } from 'node:fs';
import { readNamespaces, readProc } from '../../host/proc.ts';

/** More in one process are counted and hashed: nobody reads a list of them. */
const MAX_LISTED = 256;
/** In all processes together; beyond it nothing is read. */
const MAX_READ = 16_384;

/**
 * O_LARGEFILE, which the kernel adds, and flags of the opening itself, which say nothing of how it is open: __O_TMPFILE
 * and others.
 */
const UNASKED = 0o100000 | 0o20000000 | constants.O_DIRECTORY | constants.O_NOFOLLOW;

interface Open {
  readonly fd: number;
  readonly target: string;
}

function openOf(pid: number): Open[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map(Number).sort((a, b) => a - b).flatMap((fd): Open[] => {
      try {
        return [{ fd, target: readlinkSync(`/proc/${pid}/fd/${fd}`) }];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

/** Ends of one pipe or socket have the same letter; their numbers are new after a restore. One for each record. */
export class Descriptors {
  readonly #numbers = new Map<string, number>();
  /** What the container was started with: the runtime gives it other pipes, or a file, at each restore. */
  readonly #given: ReadonlySet<string>;
  readonly #node = readNamespaces(1);
  readonly #semaphores = new Map<number, readonly number[]>();
  #read = 0;

  constructor(init: number) {
    this.#given = new Set(openOf(init).filter(
      ({ fd, target }) => fd < 3 && /^(pipe:|socket:|\/dev\/)/.test(target)
    ).map(({ target }) => target));
  }

  /** Undefined beyond the bound. */
  of(pid: number): string | undefined {
    const open = openOf(pid);
    this.#read += open.length;
    if (this.#read > MAX_READ) return undefined;
    const semaphores: number[] = [];
    const words = open.map((one) => this.#describe(pid, one, semaphores));
    this.#semaphores.set(pid, semaphores);
    if (words.length === 0) return 'none';
    if (words.length <= MAX_LISTED) return words.join('; ');
    const digest = createHash('sha256').update(words.join('\n')).digest('hex');
    return `${words.length} descriptors, sha256 ${digest.slice(0, 32)}`;
  }

  /** Event counters that go down by one at each reading, by their descriptors; of a process that of() has read. */
  semaphoresOf(pid: number): string | undefined {
    const found = this.#semaphores.get(pid);
    return found?.length === 0 ? 'none' : found?.join(' ');
  }

  /** "3 /etc/passwd 02 at 120": number, target, flags of open(2) in octal, offset. */
  #describe(pid: number, { fd, target }: Open, semaphores: number[]): string {
    const info = readProc(pid, `fdinfo/${fd}`) ?? '';
    const flags = (Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '0', 8) & ~UNASKED).toString(8);
    if (/^eventfd-semaphore:\s*1$/m.test(info)) semaphores.push(fd);
    if (this.#given.has(target)) return `${fd} given by the runtime`;
    const offset = target.startsWith('/') && !target.startsWith('/dev/')
      ? ` at ${/^pos:\s*(\d+)/m.exec(info)?.[1] ?? ''}` : '';
    return `${fd} ${this.#name(pid, target)} 0${flags}${offset}`;
  }

  #name(pid: number, target: string): string {
    if (/^(pipe|socket):\[/.test(target)) {
      const known = this.#numbers.get(target) ?? this.#numbers.size + 1;
      this.#numbers.set(target, known);
      return target.replace(/:.*/, ` ${known}`);
    }
    const [, namespace] = /^(\w+):\[\d+\]$/.exec(target) ?? [];
    if (namespace !== undefined) return `${namespace} namespace ${this.#whose(pid, target)}`;
    // CRIU gives a deleted file another name while it is linked again; a memory file keeps its own.
    return target.endsWith(' (deleted)') && !target.startsWith('/memfd:') ? '(deleted)' : target;
  }

  /** A namespace that is open, by its link in /proc/PID/ns: its number is another one after a restore. */
  #whose(pid: number, target: string): string {
    if (Object.values(readNamespaces(pid)).includes(target)) return 'of its own';
    return Object.values(this.#node).includes(target) ? 'of the node' : 'of others';
  }
}

/** /proc/PID/timers (proc_pid_timers(5)): clock, signal and kind of each POSIX timer. */
export function timers(pid: number): string | undefined {
  const text = readProc(pid, 'timers');
  if (text === undefined) return undefined;
  const found = text.split(/^ID: /m).slice(1).map((timer) => {
    const [, id, signal, notify, clock] = /^(\d+)\nsignal: (\S+)\nnotify: (\S+?)\.\d+\nClockID: (-?\d+)/.exec(timer)
      ?? [];
    return `${id} of clock ${clock}, signal ${signal}, ${notify}`;
  });
  return found.length === 0 ? 'none' : found.join('; ');
}
