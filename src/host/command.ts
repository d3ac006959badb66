/**
 * Running a small program of somebody else's that answers a question: bytes in, bytes out, with bounds on everything. It gets
 * none of our environment, and when it is over all of its process group is killed, however it ended.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { longTimer } from '../core/clock.ts';

export interface CommandLimits {
  readonly timeoutMs: number;
  /** Of its standard output. */
  readonly maxBytes: number;
}

/** `stderr` is the beginning of what it said, printable. What it wrote to its standard output is nowhere but in `stdout`. */
export type CommandResult =
  | { readonly kind: 'ended'; readonly status: number; readonly stdout: Buffer; readonly stderr: string }
  | { readonly kind: 'timeout' | 'too-much' | 'killed'; readonly stderr: string }
  | { readonly kind: 'unstartable'; readonly code: string; readonly stderr: '' };

/** What a program needs to find its tools, and nothing of ours: there may be credentials in our environment. */
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/', LANG: 'C.UTF-8' };
const MAX_STDERR_BYTES = 2048;
/** How long output may still come after the program has ended: a grandchild could hold the pipe for ever. */
const DRAIN_MS = 500;

export function runCommand([program = '', ...args]: readonly string[], input: Uint8Array, limits: CommandLimits): Promise<CommandResult> {
  // A process group of its own, whose number is the pid.
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true, env: ENVIRONMENT, cwd: '/' });
  return new Promise((resolve) => new Conversation(child, limits, resolve).start(input));
}

class Conversation {
  readonly #child: ChildProcess;
  readonly #limits: CommandLimits;
  readonly #resolve: (result: CommandResult) => void;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  #stdoutBytes = 0;
  #stderrBytes = 0;
  #ending: 'timeout' | 'too-much' | undefined;
  #drain: NodeJS.Timeout | undefined;

  constructor(child: ChildProcess, limits: CommandLimits, resolve: (result: CommandResult) => void) {
    this.#child = child;
    this.#limits = limits;
    this.#resolve = resolve;
  }

  start(input: Uint8Array): void {
    const { stdin, stdout, stderr } = this.#child;
    const timer = longTimer(() => this.#end('timeout'), this.#limits.timeoutMs);
    stdout?.on('data', (bytes: Buffer) => this.#onOutput(bytes));
    stderr?.on('data', (bytes: Buffer) => {
      if (this.#stderrBytes < MAX_STDERR_BYTES) this.#stderr.push(bytes);
      this.#stderrBytes += bytes.length;
    });
    // It need not read the question to the end.
    for (const stream of [stdin, stdout, stderr]) stream?.on('error', () => undefined);
    this.#child.once('error', (error: NodeJS.ErrnoException) => {
      timer.clear();
      this.#resolve({ kind: 'unstartable', code: error.code ?? error.message, stderr: '' });
    });
    this.#child.once('exit', () => {
      this.#killGroup();
      this.#drain = setTimeout(() => [stdin, stdout, stderr].forEach((stream) => stream?.destroy()), DRAIN_MS);
    });
    this.#child.once('close', (status: number | null) => {
      timer.clear();
      clearTimeout(this.#drain);
      this.#resolve(this.#result(status));
    });
    stdin?.end(input);
  }

  #onOutput(bytes: Buffer): void {
    this.#stdoutBytes += bytes.length;
    if (this.#stdoutBytes > this.#limits.maxBytes) this.#end('too-much');
    else this.#stdout.push(bytes);
  }

  #end(why: 'timeout' | 'too-much'): void {
    this.#ending ??= why;
    this.#killGroup();
  }

  #killGroup(): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // Nobody of it is left.
    }
  }

  #result(status: number | null): CommandResult {
    const stderr = printable(Buffer.concat(this.#stderr).subarray(0, MAX_STDERR_BYTES).toString('utf8'));
    const stdout = Buffer.concat(this.#stdout);
    for (const bytes of this.#stdout) bytes.fill(0);
    if (this.#ending === undefined && status !== null) return { kind: 'ended', status, stdout, stderr };
    stdout.fill(0);
    return { kind: this.#ending ?? 'killed', stderr };
  }
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e\n]/g, '?').trim();
}
