/**
 * Where a restore stands still until this process lets it go on (deploy/libexec/stasis-restore-hook): once when all tasks are
 * made, and once more when they would run. A directory with a file for each stage that was reached, which holds the pid of
 * the container's first process, and a fifo for the answers.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, watch, writeSync } from 'node:fs';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { errnoCode } from '../core/errors.ts';
import { makePrivateDirectory, removeTree } from './files.ts';
import { AT_FDCWD, mknodat } from './libc.ts';

/**
 * post-restore: every task exists, with its memory, descriptors and mounts; connections are still closed to the network, so
 * a refusal costs nothing. pre-resume: credentials, capabilities and seccomp are final, too; no task has run.
 */
export const GATE_STAGES = ['post-restore', 'pre-resume'] as const;
export type GateStage = (typeof GATE_STAGES)[number];

/** CRIU's script waits this long for an answer; longer than the checks of the largest container, shorter than anybody waits. */
const ANSWER_SECONDS = 120;

/** The kernel drops a change that finds its queue full. */
const LOOK_AGAIN_MS = 500;

export class RestoreGate implements Disposable {
  readonly directory: string;
  readonly #answer: number;
  #closed = false;

  private constructor(directory: string, answer: number) {
    this.directory = directory;
    this.#answer = answer;
  }

  /** The directory is made here; on a tmpfs, because it must not outlive a reboot. */
  static open(directory: string): RestoreGate {
    makePrivateDirectory(dirname(directory));
    removeTree(directory);
    mkdirSync(directory, { mode: 0o700 });
    const fifo = join(directory, 'answer');
    mknodat(AT_FDCWD, fifo, constants.S_IFIFO | 0o600, 0n);
    // Both ways: opening does not wait for the script, and the script sees the end when this process dies.
    return new RestoreGate(directory, openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK));
  }

  /** What the runtime needs in its environment. */
  static environment(directory: string): Record<string, string> {
    return { STASIS_GATE_DIR: directory, STASIS_GATE_SECONDS: String(ANSWER_SECONDS) };
  }

  /** Waits until the restore stands at the stage; gives the pid of its first process. Throws the signal's reason. */
  async reached(stage: GateStage, { signal }: { signal: AbortSignal }): Promise<number> {
    const watcher = watch(this.directory);
    const again = setInterval(() => watcher.emit('change'), LOOK_AGAIN_MS);
    try {
      for (;;) {
        signal.throwIfAborted();
        const pid = readPid(join(this.directory, stage));
        if (pid !== undefined) return pid;
        await once(watcher, 'change', { signal });
      }
    } finally {
      clearInterval(again);
      watcher.close();
    }
  }

  allow(stage: GateStage): void {
    this.#say(`go ${stage}\n`);
  }

  /** Ends the restore at this stage, or at the next that it comes to. */
  refuse(): void {
    this.#say('no\n');
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#answer);
    removeTree(this.directory);
  }

  #say(word: string): void {
    if (this.#closed) return;
    try {
      writeSync(this.#answer, word);
    } catch (error) {
      // Full of refusals that nobody has read.
      if (errnoCode(error) !== 'EAGAIN') throw error;
    }
  }
}

/** Undefined until it is there, whole. */
function readPid(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'latin1');
    return text.endsWith('\n') ? Number.parseInt(text, 10) : undefined;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
