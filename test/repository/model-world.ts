/**
 * The world of the prune model: one store, agents whose every call of it is let through one by one, time that only passes
 * when it is told to, and everything that stores and networks do to requests.
 */
import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { systemClock } from '../../src/core/clock.ts';
import type { Clock } from '../../src/core/clock.ts';
import { StasisError } from '../../src/core/errors.ts';
import type { CheckpointId, LineageId } from '../../src/core/ids.ts';
import type { CheckpointWriter, ObjectInfo, Repository, Store } from '../../src/repository/index.ts';

export const GRACE_MS = 1000;
export const LIST_LAG_MS = 50;
/** Requests that are on their way for longer than this arrive before time goes on: the fences that guard against them stay for ten graces. */
const LATE_MS = 5 * GRACE_MS;

/** What happens to a call: it works, it works but its answer is lost, or it is lost and works later by itself. */
export type Fate = 'ok' | 'reply lost' | 'late';

interface Call {
  readonly pass: (fate: Fate) => void;
  readonly die: (error: Error) => void;
}

const dead = (): StasisError => new StasisError('STORE_UNAVAILABLE', 'the agent is dead');
const lost = (): StasisError => new StasisError('STORE_UNAVAILABLE', 'no answer came');

/** Lets calls pass one at a time, when it is told to. Each has a clock of its own, too. */
export class Gate implements Store {
  readonly description = 'gated';
  world: World | undefined;
  /** Of this agent's clock; where the volume takes the time of its clients, of its objects, too. */
  skewMs = 0;
  open = false;
  #dying = false;
  #waiting: Call[] = [];
  #sleepers: { readonly dueMs: number; readonly wake: () => void; readonly die: (error: Error) => void }[] = [];
  readonly clock: Clock = {
    ...systemClock,
    now: () => this.#there.now + this.skewMs,
    sleep: (ms) => this.#sleep(ms),
  };

  get #there(): World {
    assert.ok(this.world);
    return this.world;
  }

  /** Whether it needs somebody to let it go on. */
  get stands(): boolean {
    return this.#waiting.length > 0 || this.#sleepers.length > 0;
  }

  step(fate: Fate): void {
    const call = this.#waiting.shift();
    if (call !== undefined) return call.pass(fate);
    const sleeper = this.#sleepers.shift();
    if (sleeper === undefined) return;
    this.#there.wait(Math.max(0, sleeper.dueMs - this.#there.realMs));
    sleeper.wake();
  }

  /** Everything in flight is lost, works or comes late; whatever its callers do about it fails. */
  async crash(agent: Agent, fate: Fate | 'lost'): Promise<void> {
    this.#dying = true;
    for (const call of this.#waiting.splice(0)) {
      if (fate === 'lost') call.die(dead());
      else call.pass(fate);
    }
    for (const { die } of this.#sleepers.splice(0)) die(dead());
    while (agent.running > 0) await setImmediate();
    await agent.writer?.abort();
    this.#dying = false;
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#dying) throw dead();
    // In steps, so that what is drawn by chance does not change the course.
    const whole = Math.ceil(ms / 50) * 50;
    if (this.open) return this.#there.wait(whole);
    const dueMs = this.#there.realMs + whole;
    await new Promise<void>((wake, die) => this.#sleepers.push({ dueMs, wake, die }));
  }

  async #run<T>(work: (world: World) => T, canBeLate: boolean): Promise<T> {
    await Promise.resolve();
    if (this.#dying) throw dead();
    const fate = this.open ? 'ok' : await new Promise<Fate>((pass, die) => this.#waiting.push({ pass, die }));
    const world = this.#there;
    if (fate === 'late') {
      if (canBeLate && world.canBeLate) world.late.push({ sinceMs: world.realMs, arrive: () => void work(world) });
      throw lost();
    }
    world.calls += 1;
    world.wait(1);
    world.skewMs = this.skewMs;
    const result = work(world);
    // What a dying agent had asked for may have been done; it never hears of it.
    if (fate === 'reply lost' || this.#dying) throw lost();
    return result;
  }

  put: Store['put'] = (name, parts) => {
    // What comes late was sent now: its buffer is used again by then.
    const bytes = Buffer.concat(parts);
    return this.#run((world) => world.put(name, bytes), true);
  };
  get: Store['get'] = (name, range, { into }) => this.#run((world) => {
    const bytes = world.bytes(name, range);
    if (into === undefined) return bytes;
    into.set(bytes);
    return into.subarray(0, bytes.length);
  }, false);
  head: Store['head'] = (name) => this.#run((world) => world.head(name), false);
  delete: Store['delete'] = (name) => this.#run((world) => world.remove(name), true);
  freeBytes: Store['freeBytes'] = () => Promise.resolve(undefined);
  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    yield* await this.#run((world) => world.list(prefix), false);
  }
}

export interface Agent {
  readonly gate: Gate;
  readonly repository: Repository;
  running: number;
  writer: CheckpointWriter | undefined;
  /** What its journal knows of. */
  journal: CheckpointId | undefined;
}

interface Version {
  readonly atMs: number;
  readonly info: ObjectInfo | undefined;
}

export interface Nature {
  /** Agents' clocks differ by hours and years, and the volume stamps its objects with them. */
  readonly skewed: boolean;
  readonly lagging: boolean;
  readonly seed: number;
}

export class World {
  /** Time that passes, and what the clock of the store makes of it. */
  realMs = 1;
  offsetMs = 1_000_000_000_000;
  skewMs = 0;
  calls = 0;
  readonly nature: Nature;
  readonly objects = new Map<string, Buffer>();
  readonly late: { readonly sinceMs: number; readonly arrive: () => void }[] = [];
  readonly #history = new Map<string, Version[]>();
  #latestStamp = 0;
  #drawn: number;
  /** Commits that were reported as done and not taken back; contents of all that ever were. */
  readonly promised = new Set<CheckpointId>();
  readonly contents = new Map<CheckpointId, Buffer>();
  /** Pins that were reported as set and that nobody takes away; those of which nobody knows. */
  readonly pinned = new Set<CheckpointId>();
  readonly doubtful = new Set<CheckpointId>();
  /** How often somebody began to set or remove the pin of a checkpoint. */
  readonly pinTurns = new Map<CheckpointId, number>();
  /** All that clocks have moved, to and fro. */
  movedMs = 0;
  readonly lineages: LineageId[] = [];
  readonly surprises: string[] = [];

  constructor(nature: Nature) {
    this.nature = nature;
    this.#drawn = nature.seed;
  }

  /** Nobody knows what will become of it. */
  forget(id: CheckpointId): void {
    this.promised.delete(id);
    this.pinned.delete(id);
    this.doubtful.add(id);
    // Whoever is about to pin it knows nothing, either.
    this.pinTurns.set(id, (this.pinTurns.get(id) ?? 0) + 1);
  }

  get now(): number {
    return this.realMs + this.offsetMs;
  }

  /** Ten graces must be enough for late ones: they are not, where clocks differ by years. */
  get canBeLate(): boolean {
    return !this.nature.skewed;
  }

  wait(ms: number): void {
    if (ms >= LATE_MS) this.arriveAll();
    this.realMs += ms;
    this.movedMs += ms;
    while (this.late[0] !== undefined && this.realMs - this.late[0].sinceMs >= LATE_MS) this.arriveOne();
  }

  jump(ms: number): void {
    if (Math.abs(ms) >= LATE_MS) this.arriveAll();
    this.offsetMs += ms;
    this.movedMs += Math.abs(ms);
  }

  arriveOne(): void {
    this.late.shift()?.arrive();
  }

  arriveAll(): void {
    while (this.late.length > 0) this.arriveOne();
  }

  /** All that was ever stamped lies behind us by `ms`. */
  comeBack(ms: number): void {
    this.realMs += LIST_LAG_MS + 1;
    this.offsetMs = Math.max(this.offsetMs, this.#latestStamp - this.realMs) + ms;
  }

  put(name: string, bytes: Buffer): void {
    this.objects.set(name, bytes);
    const modifiedMs = this.now + (this.nature.skewed ? this.skewMs : 0);
    this.#latestStamp = Math.max(this.#latestStamp, modifiedMs);
    this.#note(name, { name, size: bytes.length, modifiedMs });
  }

  remove(name: string): void {
    if (this.objects.delete(name)) this.#note(name, undefined);
  }

  head(name: string): ObjectInfo | undefined {
    return this.#history.get(name)?.at(-1)?.info;
  }

  bytes(name: string, range: { offset: number; length: number } | undefined): Uint8Array {
    const bytes = this.objects.get(name);
    if (bytes === undefined) throw new StasisError('OBJECT_MISSING', `${name} is not there`, { details: { object: name } });
    return Buffer.from(range === undefined ? bytes : bytes.subarray(range.offset, range.offset + range.length));
  }

  /** Of each object, as it was a moment ago: not the same moment for all. */
  list(prefix: string): ObjectInfo[] {
    const found: ObjectInfo[] = [];
    for (const [name, versions] of this.#history) {
      if (!name.startsWith(prefix)) continue;
      const atMs = this.realMs - (this.nature.lagging ? this.#draw() % (LIST_LAG_MS + 1) : 0);
      const info = versions.findLast((version) => version.atMs <= atMs)?.info;
      if (info !== undefined) found.push(info);
    }
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #note(name: string, info: ObjectInfo | undefined): void {
    const versions = this.#history.get(name) ?? [];
    versions.push({ atMs: this.realMs, info });
    this.#history.set(name, versions);
  }

  #draw(): number {
    this.#drawn = (Math.imul(this.#drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return this.#drawn >>> 8;
  }
}
