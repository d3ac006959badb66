/**
 * Agents that write, read, delete and prune on one store, each call of the store let through one by one in any order, with
 * agents that stand still, die and wake up late, and a clock that jumps; against a model that only knows what was promised.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { systemClock } from '../../src/core/clock.ts';
import { isStasisError, StasisError } from '../../src/core/errors.ts';
import type { CheckpointId, LineageId } from '../../src/core/ids.ts';
import { MemoryStore, openRepository } from '../../src/repository/index.ts';
import type { CheckpointWriter, ObjectInfo, Repository, Store } from '../../src/repository/index.ts';
import { anySignal, load, nextId, piecesOf, testKeys } from './support.ts';

const GRACE_MS = 1000;
const AGENTS = 3;

/** Lets calls pass one at a time, when it is told to. */
class Gate implements Store {
  readonly description = 'gated';
  store: Store = new MemoryStore();
  #tokens = 0;
  #generation = 0;
  #waiting: { pass: () => void; die: (error: Error) => void }[] = [];
  open = false;

  get waiting(): number { return this.#waiting.length; }

  async #run<T>(work: () => Promise<T>): Promise<T> {
    const generation = this.#generation;
    if (!this.open) {
      if (this.#tokens > 0) this.#tokens -= 1;
      else await new Promise<void>((pass, die) => this.#waiting.push({ pass, die }));
    }
    if (generation !== this.#generation) throw dead();
    return work();
  }

  pass(): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next.pass();
  }

  openWide(): void {
    this.open = true;
    while (this.#waiting.length > 0) this.pass();
  }

  /** Everything in flight fails, and so does whatever its callers do about it. */
  async crash(running: () => number, end: () => Promise<unknown> | undefined): Promise<void> {
    this.#generation += 1;
    const was = this.open;
    this.open = true;
    this.store = new Dead();
    for (const { die } of this.#waiting.splice(0)) die(dead());
    while (running() > 0) await setImmediate();
    await end();
    this.open = was;
  }

  put: Store['put'] = (...args) => this.#run(() => this.store.put(...args));
  get: Store['get'] = (...args) => this.#run(() => this.store.get(...args));
  head: Store['head'] = (...args) => this.#run(() => this.store.head(...args));
  delete: Store['delete'] = (...args) => this.#run(() => this.store.delete(...args));
  freeBytes: Store['freeBytes'] = () => Promise.resolve(undefined);
  async *list(prefix: string, options: { signal: AbortSignal | undefined }): AsyncIterable<ObjectInfo> {
    for (const info of await this.#run(() => Array.fromAsync(this.store.list(prefix, options)))) yield info;
  }
}

const dead = (): StasisError => new StasisError('STORE_UNAVAILABLE', 'the agent is dead');

class Dead extends MemoryStore {
  override put: Store['put'] = () => Promise.reject(dead());
  override get: Store['get'] = () => Promise.reject(dead());
  override head: Store['head'] = () => Promise.reject(dead());
  override delete: Store['delete'] = () => Promise.reject(dead());
  // eslint-disable-next-line require-yield
  override async *list(): AsyncIterable<ObjectInfo> { await setImmediate(); throw dead(); }
}

interface Agent {
  readonly gate: Gate;
  readonly repository: Repository;
  running: number;
  writer: CheckpointWriter | undefined;
}

const keys = testKeys();
const clock = { ...systemClock, sleep: async () => { await setImmediate(); } };
const agents: Agent[] = [];
const observerGate = new Gate();
let observer: Repository;

before(async () => {
  observerGate.open = true;
  observer = await openRepository({ store: observerGate, keys, clock, workers: 1, owner: 'observer', graceMs: GRACE_MS });
  for (let i = 0; i < AGENTS; i += 1) {
    const gate = new Gate();
    agents.push({ gate, repository: await openRepository({ store: gate, keys, clock, workers: 1, owner: `agent ${i}`, graceMs: GRACE_MS }), running: 0, writer: undefined });
  }
});

after(async () => {
  for (const { repository } of agents) await repository.close();
  await observer.close();
});

/** Contents are few, so that checkpoints share chunks. */
const blocks = Array.from({ length: 6 }, () => randomBytes(300));

class World {
  now = 1_000_000;
  readonly memory = new MemoryStore(() => this.now);
  /** Commits that were reported as done, and what is in them. */
  readonly promised = new Map<CheckpointId, Buffer>();
  readonly lineages: LineageId[] = [];
  readonly surprises: string[] = [];

  constructor() {
    observerGate.store = this.memory;
    for (const agent of agents) {
      agent.gate.store = this.memory;
      agent.gate.open = false;
      agent.writer = undefined;
    }
  }

  /** Starts something that goes on by itself; only failures that a caller can understand are allowed. */
  run(agent: Agent, what: string, body: () => Promise<unknown>): void {
    agent.running += 1;
    const allowed = ['STORE_UNAVAILABLE', 'WRITER_FENCED', 'CHECKPOINT_NOT_FOUND', 'CHECKPOINT_IN_USE', 'KEY_MISSING'];
    void body().catch((error: unknown) => {
      if (!isStasisError(error) || !allowed.includes(error.code)) this.surprises.push(`${what}: ${String(error)} ${(error as Error).stack}`);
    }).finally(() => { agent.running -= 1; });
  }

  async settle(agent: Agent): Promise<void> {
    while (agent.running > 0 && agent.gate.waiting === 0) await setImmediate();
  }

  /** What was promised and not taken back is there, byte for byte. */
  async assertPromises(): Promise<void> {
    assert.deepEqual(this.surprises, []);
    for (const [id, bytes] of this.promised) assert.ok((await load(observer, id)).equals(bytes), `checkpoint ${id} is whole`);
  }
}

interface Command {
  readonly kind: 'begin' | 'append' | 'commit' | 'abort' | 'delete' | 'read' | 'prune' | 'crash' | 'step' | 'jump';
  readonly agent: number;
  readonly pick: number;
}

async function execute(world: World, command: Command): Promise<void> {
  const agent = agents[command.agent];
  assert.ok(agent);
  const idle = agent.running === 0;
  if (command.kind === 'jump') {
    world.now += ([-5000, 100, 400, 1000, 1200, 3000, 20_000][command.pick % 7] ?? 0);
  } else if (command.kind === 'step') {
    for (let i = 0; i <= command.pick % 12; i += 1) {
      agent.gate.pass();
      await world.settle(agent);
    }
  } else if (command.kind === 'crash') {
    await agent.gate.crash(() => agent.running, () => agent.writer?.abort());
    agent.writer = undefined;
    agent.gate.store = world.memory;
    if (command.pick % 2 === 0) world.run(agent, 'restart', () => agent.repository.maintenance.releaseOwn(anySignal));
  } else if (idle) {
    start(world, agent, command);
  }
  await world.settle(agent);
}

const contents = new WeakMap<CheckpointWriter, Buffer[]>();

function start(world: World, agent: Agent, { kind, pick }: Command): void {
  const { repository, writer } = agent;
  const ids = [...world.promised.keys()];
  const id = ids[pick % Math.max(1, ids.length)];
  if (kind === 'begin' && writer === undefined) {
    const lineage = pick % 3 === 0 ? undefined : world.lineages[pick % Math.max(1, world.lineages.length)];
    world.run(agent, kind, async () => {
      agent.writer = await repository.begin({ id: nextId(), lineage }, anySignal);
      agent.writer.appendZeros('memory', 0);
      contents.set(agent.writer, []);
      if (lineage === undefined) world.lineages.push(agent.writer.lineage);
    });
  } else if (kind === 'append' && writer !== undefined) {
    world.run(agent, kind, async () => {
      const bytes = Buffer.concat([blocks[pick % 6] ?? Buffer.alloc(0), pick % 4 === 0 ? randomBytes(50) : Buffer.alloc(0)]);
      contents.get(writer)?.push(bytes);
      await writer.append('memory', piecesOf(bytes, 300), anySignal);
    });
  } else if ((kind === 'commit' || kind === 'abort') && writer !== undefined) {
    agent.writer = undefined;
    world.run(agent, kind, async () => {
      try {
        if (kind === 'abort') return;
        const { id: made } = await writer.commit({}, anySignal);
        world.promised.set(made, Buffer.concat(contents.get(writer) ?? []));
      } finally {
        await writer.abort();
      }
    });
  } else if (kind === 'delete' && id !== undefined) {
    world.promised.delete(id);
    world.run(agent, kind, () => repository.delete(id, anySignal));
  } else if (kind === 'read' && id !== undefined) {
    const since = world.now;
    const bytes = world.promised.get(id);
    world.run(agent, kind, async () => {
      await using _held = await repository.maintenance.hold(id, anySignal);
      const got = await load(repository, id).catch((error: unknown) => {
        // A reader that stood still for that long may find nothing any more, and says so.
        if (Math.abs(world.now - since) >= GRACE_MS && isStasisError(error, 'OBJECT_MISSING')) return undefined;
        throw error;
      });
      if (got !== undefined && bytes !== undefined) assert.ok(got.equals(bytes));
    });
  } else if (kind === 'prune') {
    world.run(agent, kind, () => repository.maintenance.prune({ signal: undefined, dryRun: false }));
  }
}

/** All are dead, and two prunes come along. */
async function endOfTheWorld(world: World): Promise<void> {
  for (const agent of agents) {
    await agent.gate.crash(() => agent.running, () => agent.writer?.abort());
  }
  await world.assertPromises();
  // A clock that went back shows the marks as from the future: it has to come by again.
  world.now += 1_000_000;
  for (let i = 0; i < 2; i += 1) {
    await observer.maintenance.prune({ signal: undefined, dryRun: false });
    world.now += GRACE_MS;
  }
  await world.assertPromises();
  const named = new Set<string>();
  const lineages = new Set<string>();
  for await (const summary of observer.list({ signal: undefined, onProblem: (object, error) => assert.fail(`${object}: ${error.message}`) })) {
    assert.deepEqual((await observer.verify(summary.id, anySignal)).problems, []);
    named.add(summary.id);
    lineages.add(summary.lineage);
  }
  const left = [...world.memory.objects.keys()];
  assert.deepEqual(left.filter((name) => name.startsWith('lineages/') && !lineages.has(name.slice(9))), [], 'keys without checkpoints');
  assert.deepEqual(left.filter((name) => name.startsWith('writers/') && !name.endsWith('.fenced')), [], 'marks of the dead');
  // Whatever is left is needed: deleting the last checkpoint of all leaves not a single pack.
  for (const id of named) await observer.delete(id as CheckpointId, anySignal);
  assert.deepEqual([...world.memory.objects.keys()].filter((name) => !name.endsWith('.fenced')), []);
}

const kinds = ['begin', 'append', 'commit', 'abort', 'delete', 'read', 'prune', 'crash', 'step', 'jump'] as const;
const weights: Readonly<Record<Command['kind'], number>> = { begin: 6, append: 6, commit: 6, abort: 1, delete: 4, read: 2, prune: 4, crash: 2, step: 30, jump: 4 };
const command = fc.record({
  kind: fc.oneof(...kinds.map((kind) => ({ weight: weights[kind], arbitrary: fc.constant(kind) }))),
  agent: fc.nat(AGENTS - 1),
  pick: fc.nat(1000),
});

void test('nothing that was promised is lost, nothing orphaned survives two prunes', { timeout: 300_000 }, async () => {
  const seed = Number(process.env['STASIS_TEST_SEED'] ?? randomBytes(4).readUInt32LE());
  const runs = Number(process.env['STASIS_MODEL_RUNS'] ?? 150);
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 20, maxLength: 120 }), async (commands) => {
      const world = new World();
      try {
        for (const one of commands) await execute(world, one);
      } finally {
        await endOfTheWorld(world);
      }
    }),
    { numRuns: runs, seed, endOnFailure: process.env['STASIS_MODEL_SHRINK'] === undefined, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: false },
  );
});
