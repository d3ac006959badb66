/**
 * The processes that watch over a container while its memory still arrives (docs/adr/0022-lazy-restore.md): criu lazy-pages
 * below deploy/libexec/stasis-lazy-guard, and holders of its userfaultfds. As long as anybody holds them the kernel makes whoever
 * touches a missing page wait; when the last is gone it hands out zeros. So the holders let go only when all pages are
 * there or the container is dead.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, constants, existsSync, mkdirSync, readFileSync, readlinkSync, readdirSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { StasisError } from '../core/errors.ts';
import type { FreezerLocation } from './cgroup.ts';
import { childEnvironment } from './environment.ts';
import { makePrivateDirectory, removeTree, replaceFile } from './files.ts';
import { AT_FDCWD, duplicateDescriptors, mknodat, setNonblocking } from './libc.ts';
import { run } from './process.ts';
import { treeHoldsSocket } from './tcp-peer.ts';

export type FillOutcome = 'complete' | 'failed';

export interface LazyGuardOptions {
  /** Path of deploy/libexec/stasis-lazy-guard. */
  readonly script: string;
  /** Directory of this guard, created here; on a tmpfs, because it must not outlive a reboot. */
  readonly directory: string;
  /** criu lazy-pages and its arguments, with `--status-fd 3`. */
  readonly command: readonly string[];
  /** Ends the restore that waits for the word to let the container run; called before the container is ended. */
  readonly refuse: () => void;
  readonly signal: AbortSignal;
}

const START_TIMEOUT_MS = 20_000;
/** Children of the container have descriptors of their own, made when they are forked. */
const LOOK_MS = 100;

export class LazyGuard implements AsyncDisposable {
  readonly directory: string;
  /** Resolves when criu lazy-pages has ended: with all pages delivered, or with the container dead. */
  readonly ended: Promise<FillOutcome>;
  readonly #script: string;
  readonly #child: ChildProcess;
  readonly #holders = new Set<ChildProcess>();
  readonly #held = new Set<number>();
  readonly #refuse: () => void;
  #looking: NodeJS.Timeout | undefined;
  #over = false;

  private constructor(options: LazyGuardOptions, child: ChildProcess) {
    this.directory = options.directory;
    this.#script = options.script;
    this.#child = child;
    this.#refuse = options.refuse;
    this.ended = once(child, 'exit').then(() => this.#end());
  }

  /** Resolves when criu lazy-pages waits for the restore. */
  static async start(options: LazyGuardOptions): Promise<LazyGuard> {
    const { directory, script, command, signal } = options;
    makePrivateDirectory(join(directory, '..'));
    removeTree(directory);
    mkdirSync(directory, { mode: 0o700 });
    mknodat(AT_FDCWD, join(directory, 'alive'), constants.S_IFIFO | 0o600, 0n);
    const child = spawn(script, ['fill', directory, ...command], { detached: true, env: childEnvironment(), stdio: ['pipe', 'pipe', 'ignore'] });
    const guard = new LazyGuard(options, child);
    child.stdin.on('error', () => undefined);
    try {
      const ready = AbortSignal.any([signal, AbortSignal.timeout(START_TIMEOUT_MS)]);
      await Promise.race([once(child.stdout, 'data', { signal: ready }), once(child, 'exit', { signal: ready }).then(() => Promise.reject(new Error('it ended at once')))]);
    } catch (error) {
      const said = readText(join(directory, 'output')).trim().split('\n').at(-1) ?? '';
      await guard[Symbol.asyncDispose]();
      signal.throwIfAborted();
      throw new StasisError('RESTORE_FAILED', `criu lazy-pages did not start${said === '' ? '' : `: ${said}`}`, { cause: error, hint: 'restore without --lazy; criu check --feature uffd tells whether this kernel can' });
    }
    child.stdout.destroy();
    child.unref();
    return guard;
  }

  /**
   * Before the tasks may run: from now on the container dies with any of criu lazy-pages, its guard and this process. All
   * descriptors must be with criu lazy-pages by now. Throws when they cannot be held; then nothing may run.
   */
  async admit(cgroup: FreezerLocation): Promise<void> {
    await this.#hold();
    if (this.#held.size === 0) throw new StasisError('RESTORE_FAILED', 'criu lazy-pages has no memory to fill', { hint: 'restore without --lazy' });
    replaceFile(join(this.directory, 'cgroup'), `${cgroup.version} ${cgroup.directory}\n`);
    if (this.#over) throw new StasisError('RESTORE_FAILED', 'criu lazy-pages ended before the container ran');
    this.#looking = setInterval(() => void this.#hold().catch(() => this.abort()), LOOK_MS);
    this.#looking.unref();
  }

  /** Ends the container, and then criu lazy-pages: see `ended`. */
  abort(): void {
    this.#refuse();
    this.#child.stdin?.destroy();
  }

  /** Waits until nothing of it is left. Before `ended` this ends the container. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.abort();
    await this.ended;
    removeTree(this.directory);
  }

  /** Starts a holder for what nobody holds yet. */
  async #hold(): Promise<void> {
    if (this.#over) return;
    const daemon = Number.parseInt(readText(join(this.directory, 'daemon.pid')), 10);
    const fds = userfaultfds(daemon);
    const fresh = fds.filter((fd) => !this.#held.has(fd));
    for (const fd of this.#held) if (!fds.includes(fd)) this.#held.delete(fd);
    if (fresh.length === 0) return;
    for (const fd of fresh) this.#held.add(fd);
    const copies = duplicateDescriptors(daemon, fresh);
    try {
      const holder = spawn(this.#script, ['hold', this.directory], { detached: true, env: childEnvironment(), stdio: ['ignore', 'pipe', 'ignore', ...copies] });
      // Node.js makes what a child inherits blocking; the file is the same for criu, which cannot wait for it then.
      for (const fd of copies) setNonblocking(fd);
      this.#holders.add(holder);
      holder.once('exit', () => {
        this.#holders.delete(holder);
        // Killed by somebody: what it held is taken again at the next look.
        for (const fd of fresh) this.#held.delete(fd);
      });
      await once(holder.stdout!, 'data', { signal: AbortSignal.timeout(START_TIMEOUT_MS) });
      holder.stdout!.destroy();
      holder.unref();
    } finally {
      for (const fd of copies) closeSync(fd);
    }
  }

  /** The guard is gone. One that was killed leaves its work to its holders; what they do is done again to be sure of it. */
  async #end(): Promise<FillOutcome> {
    this.#over = true;
    clearInterval(this.#looking);
    const outcome = readOutcome(this.directory);
    if (outcome === 'failed') await recoverFill(this.#script, this.directory);
    await Promise.all([...this.#holders].map(async (holder) => {
      if (holder.exitCode !== null || holder.signalCode !== null) return;
      await once(holder, 'exit');
    }));
    return outcome;
  }
}

/** Whether criu lazy-pages of this guard has the socket. */
export function daemonHoldsSocket(directory: string, inode: number): boolean {
  const pid = Number.parseInt(readText(join(directory, 'daemon.pid')), 10);
  return pid > 1 && treeHoldsSocket(pid, inode);
}

/**
 * For the directory of a guard whose agent is dead: its container is ended, unless all pages have arrived. Undefined when
 * there is no such directory.
 */
export async function recoverFill(script: string, directory: string): Promise<FillOutcome | undefined> {
  if (!existsSync(directory)) return undefined;
  await run(script, ['recover', directory], { signal: undefined, timeoutMs: 60_000 });
  return readOutcome(directory);
}

function readOutcome(directory: string): FillOutcome {
  return readText(join(directory, 'outcome')).trim() === 'complete' ? 'complete' : 'failed';
}

/** Exit status of criu lazy-pages as the guard saw it; undefined when nobody saw it. */
export function readFillStatus(directory: string): number | undefined {
  const match = /^failed (\d+)/.exec(readText(join(directory, 'outcome')));
  return match === null ? undefined : Number(match[1]);
}

function userfaultfds(pid: number): number[] {
  const directory = `/proc/${pid}/fd`;
  try {
    return readdirSync(directory).filter((fd) => isUserfaultfd(join(directory, fd))).map(Number);
  } catch {
    return [];
  }
}

function isUserfaultfd(path: string): boolean {
  try {
    return readlinkSync(path) === 'anon_inode:[userfaultfd]';
  } catch {
    return false;
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
