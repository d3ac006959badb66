/** Tries a store with objects of its own, which it removes, and says what may be relied on. */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../core/clock.ts';
import { asStasisError, isStasisError, StasisError } from '../../core/errors.ts';
import { formatBytes } from '../../core/units.ts';
import type { Store } from './store.ts';

/** A place for a probe: an empty store beside the real one, under the same rights and settings. Disposing removes it and what is in it. */
export interface ProbeGround extends AsyncDisposable {
  /** The store that is tried, in words. */
  readonly description: string;
  readonly store: Store;
  /** What only this kind of store has. */
  readonly more: readonly ProbeStep[];
}

export interface ProbeStep {
  readonly name: string;
  /** Stasis cannot work without it. */
  readonly required: boolean;
  /** Resolves with what was found, in words; undefined: the store does not have it. Throws when it is broken. */
  readonly run: (options: { signal: AbortSignal | undefined }) => Promise<string | undefined>;
}

export interface StoreCheck {
  readonly name: string;
  readonly required: boolean;
  /** absent: the store does not have it; skipped: nothing could be tried without an earlier check. */
  readonly outcome: 'passed' | 'failed' | 'absent' | 'skipped';
  readonly message: string;
  readonly tookMs: number;
}

export interface StoreReport {
  readonly store: string;
  /** Everything that is required works. */
  readonly usable: boolean;
  readonly checks: readonly StoreCheck[];
  /** Medians for objects of 1 KiB, microseconds; 0 when they could not be taken. */
  readonly putLatencyUs: number;
  readonly getLatencyUs: number;
  /** Of one object of 8 MiB. */
  readonly putBytesPerSecond: number;
  readonly getBytesPerSecond: number;
}

const LARGE_BYTES = 8 * 1024 * 1024;
const AT_ONCE = 16;
const SAMPLES = 7;

interface Figures {
  putLatencyUs: number;
  getLatencyUs: number;
  putBytesPerSecond: number;
  getBytesPerSecond: number;
}

export async function probeStore(ground: ProbeGround, clock: Clock, { signal }: { signal: AbortSignal | undefined }): Promise<StoreReport> {
  const figures: Figures = { putLatencyUs: 0, getLatencyUs: 0, putBytesPerSecond: 0, getBytesPerSecond: 0 };
  const checks: StoreCheck[] = [];
  for (const step of [...steps(ground.store, clock, figures), ...ground.more]) {
    const canWrite = checks[0] === undefined || checks[0].outcome === 'passed';
    const skipped = !canWrite && step.name !== 'list';
    checks.push(skipped ? { name: step.name, required: step.required, outcome: 'skipped', message: 'needs an object that could be written', tookMs: 0 } : await runStep(step, clock, signal));
  }
  const usable = checks.every(({ required, outcome }) => !required || outcome === 'passed');
  return { store: ground.description, usable, checks, ...figures };
}

async function runStep({ name, required, run }: ProbeStep, clock: Clock, signal: AbortSignal | undefined): Promise<StoreCheck> {
  const started = clock.monotonic();
  const done = (outcome: StoreCheck['outcome'], message: string): StoreCheck => ({ name, required, outcome, message, tookMs: clock.monotonic() - started });
  try {
    const found = await run({ signal });
    return found === undefined ? done('absent', 'the store does not have it') : done('passed', found);
  } catch (error) {
    signal?.throwIfAborted();
    const { message, hint } = asStasisError(error, name);
    return done('failed', hint === undefined ? message : `${message}; ${hint}`);
  }
}

function steps(store: Store, clock: Clock, figures: Figures): ProbeStep[] {
  const small = randomBytes(1024);
  const large = randomBytes(LARGE_BYTES);
  const required = true;
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const started = clock.monotonic();
    await work();
    return Math.max(clock.monotonic() - started, 0.001);
  };
  return [
    { name: 'put', required, run: async (options) => {
      await store.put('packs/probe-small', [small], options);
      return 'objects can be written';
    } },
    { name: 'read-after-write', required, run: async (options) => {
      expectSame(await store.get('packs/probe-small', undefined, options), small, 'an object just written');
      return 'an object can be read as soon as it is written';
    } },
    { name: 'list', required, run: async (options) => {
      const found = await Array.fromAsync(store.list('packs/probe-', options));
      expect(found.length === 1 && found[0]?.size === small.length, `a list shows ${found.length} objects where one was just written`);
      return 'a list shows an object as soon as it is written';
    } },
    { name: 'ranges', required, run: (options) => checkRanges(store, large, timed, figures, options) },
    { name: 'many at once', required, run: async (options) => {
      await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => store.put(`packs/probe-many-${i}`, [small], options)));
      const found = await Array.fromAsync(store.list('packs/probe-many-', options));
      expect(found.length === AT_ONCE, `a list shows ${found.length} of ${AT_ONCE} objects that were written at once`);
      return `${AT_ONCE} objects written at once are all there`;
    } },
    { name: 'overwrite', required: false, run: async (options) => {
      const other = randomBytes(1024);
      await store.put('packs/probe-small', [other], options);
      return Buffer.compare(await store.get('packs/probe-small', undefined, options), other) === 0
        ? 'the second content replaces the first at once (Stasis never uses a name twice)' : undefined;
    } },
    { name: 'delete', required, run: (options) => checkDelete(store, options) },
    { name: 'latency', required: false, run: async (options) => {
      const names = Array.from({ length: SAMPLES }, (_, i) => `packs/probe-many-${i}`);
      const puts: number[] = [];
      const gets: number[] = [];
      for (const name of names) puts.push(await timed(() => store.put(name, [small], options)));
      for (const name of names) gets.push(await timed(() => store.get(name, undefined, options)));
      figures.putLatencyUs = median(puts) * 1000;
      figures.getLatencyUs = median(gets) * 1000;
      return `put ${median(puts).toFixed(1)} ms, get ${median(gets).toFixed(1)} ms, for 1 KiB`;
    } },
  ];
}

async function checkRanges(store: Store, large: Buffer, timed: (work: () => Promise<unknown>) => Promise<number>, figures: Figures, options: { signal: AbortSignal | undefined }): Promise<string> {
  const name = 'packs/probe-large';
  const putMs = await timed(() => store.put(name, [large], options));
  const getMs = await timed(async () => expectSame(await store.get(name, { offset: 0, length: large.length }, options), large, 'all of a large object'));
  figures.putBytesPerSecond = (large.length * 1000) / putMs;
  figures.getBytesPerSecond = (large.length * 1000) / getMs;
  for (const [offset, length] of [[0, 1], [large.length - 1, 1], [4095, 4098], [1_000_003, 2_000_003], [large.length - 100_000, 100_000]] as const) {
    expectSame(await store.get(name, { offset, length }, options), large.subarray(offset, offset + length), `the range ${offset}+${length}`);
  }
  const beyond = await store.get(name, { offset: large.length - 1, length: 2 }, options).then(() => undefined, (error: unknown) => error);
  expect(isStasisError(beyond, 'OBJECT_CORRUPT'), 'a range beyond the end is answered as if it were there');
  return `ranges are exact; 8 MiB at ${formatBytes(figures.putBytesPerSecond)}/s up and ${formatBytes(figures.getBytesPerSecond)}/s down`;
}

async function checkDelete(store: Store, options: { signal: AbortSignal | undefined }): Promise<string> {
  const name = 'packs/probe-small';
  await store.delete(name, options);
  expect((await store.head(name, options)) === undefined, 'an object that was deleted is still there');
  const found = await Array.fromAsync(store.list(name, options));
  expect(found.length === 0, 'a list shows an object that was deleted');
  await store.delete(name, options);
  return 'a deleted object is gone at once; to delete it again is no error';
}

function expect(condition: boolean, problem: string): void {
  if (!condition) throw new StasisError('STORE_UNFIT', problem);
}

function expectSame(read: Uint8Array, written: Uint8Array, what: string): void {
  expect(Buffer.compare(read, written) === 0, `${what} is not read back as it was written`);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
