/** One operation in progress: a visible list of steps, one deadline, progress, an outcome. */
import { invariant } from '../core/assert.ts';
import { longTimer, type Clock, type LongTimer } from '../core/clock.ts';
import { StasisError, asStasisError } from '../core/errors.ts';
import type { Failpoints } from '../core/failpoint.ts';
import type { OperationId } from '../core/ids.ts';
import { withoutSecrets } from './secrets.ts';

export type OperationKind = 'checkpoint' | 'restore' | 'verify' | 'delete' | 'export' | 'import' | 'fill' | 'check' | 'prune' | 'rotate';
export type OperationState = 'running' | 'succeeded' | 'failed' | 'cancelled';

export interface OperationStatus {
  readonly id: OperationId;
  readonly kind: OperationKind;
  /** The container or checkpoint it is about, as the caller named it. */
  readonly target: string;
  readonly state: OperationState;
  readonly step: string;
  /** From 1; 0 before the first step. */
  readonly stepNumber: number;
  readonly stepCount: number;
  readonly bytesDone: number;
  /** 0 when not known. */
  readonly bytesTotal: number;
  readonly startedMs: number;
  readonly endedMs: number | undefined;
  readonly error: StasisError | undefined;
  readonly principal: string;
  readonly reason: string;
}

export interface Phase {
  readonly name: string;
  readonly ms: number;
}

export interface OperationOptions {
  readonly id: OperationId;
  readonly kind: OperationKind;
  readonly target: string;
  readonly principal: string;
  readonly reason: string;
  readonly steps: readonly string[];
  readonly deadlineMs: number;
  readonly clock: Clock;
  readonly failpoints: Failpoints;
  /** Called at every change, also of the byte counts. */
  readonly changed: (operation: Operation) => void;
}

export class Operation {
  readonly id: OperationId;
  readonly phases: Phase[] = [];
  readonly #options: OperationOptions;
  readonly #abort = new AbortController();
  readonly #timer: LongTimer;
  readonly #startedMs: number;
  readonly #begun: number;
  readonly #hooks: ((step: string) => void)[] = [];
  #state: OperationState = 'running';
  #step = '';
  #stepNumber = 0;
  #bytesDone = 0;
  #bytesTotal = 0;
  #endedMs: number | undefined;
  #error: StasisError | undefined;
  #settled = false;
  #secrets: readonly string[] = [];

  constructor(options: OperationOptions) {
    this.id = options.id;
    this.#options = options;
    this.#startedMs = options.clock.now();
    this.#begun = options.clock.monotonic();
    this.#timer = longTimer(() => {
      this.cancel(new StasisError('DEADLINE_EXCEEDED', `the operation did not end within ${options.deadlineMs} ms`, { hint: 'give it a longer deadline' }));
    }, options.deadlineMs).unref();
  }

  /** Aborted by a cancel or the deadline, with a StasisError as reason. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Until the deadline. */
  get remainingMs(): number {
    return this.#options.deadlineMs - (this.#options.clock.monotonic() - this.#begun);
  }

  /** Called with the name of every step before it begins; the journal listens. */
  onStep(hook: (step: string) => void): void {
    this.#hooks.push(hook);
  }

  /** From now on no error of this operation quotes these words. */
  hide(secrets: readonly string[]): void {
    this.#secrets = [...this.#secrets, ...secrets];
  }

  /** Runs the next step. Steps come in the order of the list; one may be left out, none may be repeated. */
  async step<T>(name: string, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const number = this.#options.steps.indexOf(name) + 1;
    invariant(number > this.#stepNumber, `step ${name} is out of order after ${this.#step}`);
    this.signal.throwIfAborted();
    this.#step = name;
    this.#stepNumber = number;
    for (const hook of this.#hooks) hook(name);
    this.#options.changed(this);
    const failpoint = `${this.#options.kind}.${name}`;
    const start = this.#options.clock.monotonic();
    await this.#options.failpoints.hit(failpoint, { signal: this.signal });
    const result = await body(this.signal).catch((thrown: unknown) => { throw this.#presentable(thrown); });
    try {
      await this.#options.failpoints.hit(`${failpoint}.after`, { signal: this.signal });
    } catch (error) {
      // Nobody else gets to see it.
      await (result as Partial<AsyncDisposable> | undefined)?.[Symbol.asyncDispose]?.();
      throw error;
    }
    this.phases.push({ name, ms: this.#options.clock.monotonic() - start });
    return result;
  }

  expectBytes(total: number): void {
    this.#bytesTotal += total;
    this.#options.changed(this);
  }

  addBytes(count: number): void {
    this.#bytesDone += count;
    this.#options.changed(this);
  }

  /** What was done stands: from here on a cancel or the deadline come too late. Throws the reason of one that came before. */
  settle(): void {
    this.signal.throwIfAborted();
    this.#settled = true;
  }

  /** The first reason wins; an operation that has ended or settled is not cancelled any more. */
  cancel(reason: StasisError): boolean {
    if (this.#state !== 'running' || this.#settled || this.signal.aborted) return false;
    this.#abort.abort(reason);
    return true;
  }

  /** Runs the whole body and keeps its outcome. */
  async run<T>(body: (operation: Operation) => Promise<T>): Promise<T> {
    try {
      const result = await body(this);
      this.#end('succeeded', undefined);
      return result;
    } catch (thrown) {
      const error = this.signal.aborted ? asStasisError(this.signal.reason, 'cancelled') : this.#presentable(thrown);
      this.#end(error.code === 'CANCELLED' ? 'cancelled' : 'failed', error);
      throw error;
    }
  }

  #presentable(thrown: unknown): StasisError {
    return withoutSecrets(asStasisError(thrown, `${this.#options.kind} of ${this.#options.target} failed in step ${this.#step}`), this.#secrets);
  }

  #end(state: OperationState, error: StasisError | undefined): void {
    this.#timer.clear();
    this.#state = state;
    this.#error = error;
    this.#endedMs = this.#options.clock.now();
    this.#options.changed(this);
  }

  status(): OperationStatus {
    const { kind, target, steps, principal, reason } = this.#options;
    return {
      id: this.id, kind, target, state: this.#state, step: this.#step, stepNumber: this.#stepNumber, stepCount: steps.length,
      bytesDone: this.#bytesDone, bytesTotal: this.#bytesTotal, startedMs: this.#startedMs, endedMs: this.#endedMs, error: this.#error, principal, reason,
    };
  }
}
