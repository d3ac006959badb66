/** All operations of this agent: admission, look-up by id, and everybody who watches. */
import type { Clock } from '../core/clock.ts';
import { StasisError } from '../core/errors.ts';
import type { Failpoints } from '../core/failpoint.ts';
import type { OperationId } from '../core/ids.ts';
import { Semaphore } from '../core/limits.ts';
import { Operation, type OperationKind, type OperationStatus } from './operation.ts';

export interface StartOptions {
  readonly id: OperationId;
  readonly kind: OperationKind;
  readonly target: string;
  readonly steps: readonly string[];
  readonly deadlineMs: number;
  /** Operations with the same key exclude each other ("container /run/runc/a", "checkpoint 01…"). */
  readonly exclusive: string;
  /**
   * Against which number it counts of those that may run at the same time: work, transfers (they wait for the bytes of a
   * caller, who may be slow or asleep), or none.
   */
  readonly slots?: 'work' | 'transfers' | 'none';
  /** Who asked, and why. */
  readonly principal: string;
  readonly reason: string;
}

export interface Started<T> {
  readonly operation: Operation;
  readonly outcome: Promise<T>;
}

/** Ended operations stay known this long for latecomers and duplicates, and no more than this many. */
const KEEP_ENDED = 200;
/** Operations that run or wait, of one caller and of all. */
const MAX_UNFINISHED_EACH = 100;
const MAX_UNFINISHED = 400;
/** Byte counts change with every chunk: watchers are told at most this often. */
const WATCH_INTERVAL_MS = 100;

/** Less than the 30 seconds that service managers and Kubernetes wait before they kill. */
const FILL_GRACE_MS = 15_000;

interface Entry {
  readonly operation: Operation;
  readonly options: StartOptions;
  readonly outcome: Promise<unknown>;
}

export class Operations {
  readonly #entries = new Map<OperationId, Entry>();
  readonly #busy = new Map<string, OperationId>();
  readonly #watchers = new Set<(status: OperationStatus) => void>();
  readonly #lastTold = new Map<OperationId, { at: number; step: number; state: string }>();
  readonly #slots: Readonly<Record<'work' | 'transfers', Semaphore>>;
  readonly #clock: Clock;
  readonly #failpoints: Failpoints;
  #stopping = false;

  constructor(options: { parallel: number; transfers: number; clock: Clock; failpoints: Failpoints }) {
    this.#slots = { work: new Semaphore(options.parallel), transfers: new Semaphore(options.transfers) };
    this.#clock = options.clock;
    this.#failpoints = options.failpoints;
  }

  /**
   * The operation of this id, running or ended: a repeated request has no second effect.
   * Throws USAGE when the id was used for something else.
   */
  join<T>(id: OperationId, kind: OperationKind, target: string): Started<T> | undefined {
    const known = this.#entries.get(id);
    if (known === undefined) return undefined;
    if (known.options.kind !== kind || known.options.target !== target) {
      throw new StasisError('USAGE', `operation id ${id} was used for another ${known.options.kind}`, { hint: 'choose a new operation id for each request' });
    }
    return { operation: known.operation, outcome: known.outcome as Promise<T> };
  }

  /** Starts an operation, or joins the one of the same id. Throws CONTAINER_BUSY, AGENT_BUSY, AGENT_STOPPING, or USAGE for no time at all. */
  start<T>(options: StartOptions, body: (operation: Operation) => Promise<T>): Started<T> {
    const joined = this.join<T>(options.id, options.kind, options.target);
    if (joined !== undefined) return joined;
    if (!(options.deadlineMs > 0)) throw new StasisError('USAGE', `a deadline of ${options.deadlineMs} ms is over before the operation begins`, { hint: 'give more than 0, or none for the configured one' });
    if (this.#stopping) throw new StasisError('AGENT_STOPPING', 'the agent is shutting down', { hint: 'try again when it is back' });
    if (options.kind !== 'fill') this.#requireRoom(options.principal);
    this.claim(options.id, options.exclusive, options.target);
    const { slots = 'work' } = options;
    const operation = new Operation({ ...options, clock: this.#clock, failpoints: this.#failpoints, changed: (changed) => this.#tell(changed) });
    const outcome = operation.run(async () => {
      using _slot = slots === 'none' ? undefined : await this.#slots[slots].acquire(1, { signal: operation.signal });
      return await body(operation);
    }).finally(() => this.#ended(options));
    outcome.catch(() => undefined);
    this.#entries.set(options.id, { operation, options, outcome });
    return { operation, outcome };
  }

  /** What waits is bounded, and nobody fills the queue alone. */
  #requireRoom(principal: string): void {
    const unfinished = [...this.#entries.values()].filter(({ operation, options }) => options.kind !== 'fill' && operation.status().state === 'running');
    const own = unfinished.filter(({ options }) => options.principal === principal).length;
    if (own < MAX_UNFINISHED_EACH && unfinished.length < MAX_UNFINISHED) return;
    throw new StasisError('AGENT_BUSY', `${unfinished.length} operations run or wait, ${own} of them for ${JSON.stringify(principal)}`, {
      hint: `at most ${MAX_UNFINISHED_EACH} are taken for one caller and ${MAX_UNFINISHED} in all: try again when some have ended`,
    });
  }

  /** Takes a further key, for an operation that learns while it runs what it works on. Throws CONTAINER_BUSY. */
  claim(id: OperationId, exclusive: string, what: string): void {
    const holder = this.#busy.get(exclusive);
    if (holder !== undefined && holder !== id) {
      throw new StasisError('CONTAINER_BUSY', `${what} is in use by operation ${holder}`, { hint: `wait for it, or cancel it: stasis cancel ${holder}` });
    }
    this.#busy.set(exclusive, id);
  }

  get(id: OperationId): Operation {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new StasisError('OPERATION_NOT_FOUND', `no operation ${id} is known`, { hint: 'stasis watch shows what is running' });
    return entry.operation;
  }

  /** Throws CONTAINER_BUSY when an operation holds this key. */
  requireFree(exclusive: string, what: string): void {
    const holder = this.#busy.get(exclusive);
    if (holder !== undefined) throw new StasisError('CONTAINER_BUSY', `${what} is in use by operation ${holder}`, { hint: `wait for it, or cancel it: stasis cancel ${holder}` });
  }

  /** The operation that holds an exclusive key now. */
  holderOf(exclusive: string): OperationId | undefined {
    return this.#busy.get(exclusive);
  }

  list(): OperationStatus[] {
    return [...this.#entries.values()].map((entry) => entry.operation.status());
  }

  /** Cheap and synchronous: what the listener cannot take it must drop itself. */
  subscribe(listener: (status: OperationStatus) => void): Disposable {
    this.#watchers.add(listener);
    return { [Symbol.dispose]: () => void this.#watchers.delete(listener) };
  }

  /** Admits nothing more, cancels what runs and waits for its clean end. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const running = [...this.#entries.values()].filter((entry) => entry.operation.status().state === 'running');
    const cancel = (entries: readonly Entry[]): void => entries.forEach(({ operation }) => {
      operation.cancel(new StasisError('AGENT_STOPPING', 'the agent is shutting down', { hint: 'start the operation again when it is back' }));
    });
    cancel(running.filter(({ options }) => options.kind !== 'fill'));
    // A container that still fills dies with the agent: it gets a chance to be complete.
    const fills = running.filter(({ options }) => options.kind === 'fill');
    const patience = setTimeout(cancel, FILL_GRACE_MS, fills);
    await Promise.allSettled(fills.map((entry) => entry.outcome));
    clearTimeout(patience);
    await Promise.allSettled(running.map((entry) => entry.outcome));
  }

  #tell(operation: Operation): void {
    const status = operation.status();
    const last = this.#lastTold.get(status.id);
    const now = this.#clock.monotonic();
    if (last !== undefined && last.step === status.stepNumber && last.state === status.state && now - last.at < WATCH_INTERVAL_MS) return;
    this.#lastTold.set(status.id, { at: now, step: status.stepNumber, state: status.state });
    for (const listener of this.#watchers) listener(status);
  }

  #ended(options: StartOptions): void {
    for (const [key, holder] of this.#busy) if (holder === options.id) this.#busy.delete(key);
    for (const [id, entry] of this.#entries) {
      if (this.#entries.size <= KEEP_ENDED) break;
      if (entry.operation.status().state !== 'running') {
        this.#entries.delete(id);
        this.#lastTold.delete(id);
      }
    }
  }
}
