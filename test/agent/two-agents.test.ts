/** Two real agents on one repository, one of whose lineages they share, pruning all the time, killed and stopped at random. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isStasisError } from '../../src/core/errors.ts';
import { openDirectoryStore } from '../../src/repository/index.ts';
import type { ClosableStore } from '../../src/repository/store/store.ts';
import { bucket, createBucket, testStore, useTestCredentials } from '../repository/s3/setup.ts';
import { collect } from '../rpc/harness.ts';
import { checkpoint, checkpointIds, makeHome, removeHome, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startCounter, type Counter } from '../support/counter.ts';
import { startRadosgw } from '../support/radosgw.ts';

const none = { signal: undefined };
const GRACE_MS = 1500;
const SECONDS = Number(process.env['TWO_AGENTS_SECONDS'] ?? 20);
/** What may happen to a checkpoint whose agent is stopped, killed and taken for dead, or to a deletion beside another. */
const ALLOWED = ['WRITER_FENCED', 'CHECKPOINT_IN_USE', 'CHECKPOINT_NOT_FOUND', 'AGENT_UNREACHABLE', 'CANCELLED', 'FREEZE_BUDGET_EXCEEDED', 'AGENT_STOPPING', 'CONTAINER_BUSY'];

interface SharedStore {
  readonly env: Readonly<Record<string, string>>;
  /** Names of all objects. */
  left(): Promise<string[]>;
}

const FOLDERS = ['packs/', 'manifests/', 'lineages/', 'pins/', 'writers/'];

async function namesIn(store: ClosableStore): Promise<string[]> {
  const names: string[] = [];
  for (const folder of FOLDERS) for await (const { name } of store.list(folder, none)) names.push(name);
  await store.close();
  return names;
}

async function openShared(kind: 'directory' | 's3', stack: AsyncDisposableStack): Promise<SharedStore> {
  mkdirSync('/srv/agents', { recursive: true });
  const directory = mkdtempSync('/srv/agents/shared-');
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  // Copies of one key file, as on the nodes of a cluster.
  const env = { STASIS_KEYS_FILE: join(directory, 'node.key'), STASIS_REPOSITORY_GRACE: `${GRACE_MS}ms` };
  if (kind === 'directory') {
    const path = join(directory, 'repository');
    return { env: { ...env, STASIS_REPOSITORY_DIRECTORY: path }, left: async () => namesIn(await openDirectoryStore(path)) };
  }
  useTestCredentials();
  const server = stack.use(await startRadosgw());
  await createBucket(server.endpoint);
  return {
    env: { ...env, STASIS_REPOSITORY_S3_BUCKET: bucket, STASIS_REPOSITORY_S3_PREFIX: 'two', STASIS_REPOSITORY_S3_ENDPOINT: server.endpoint, STASIS_REPOSITORY_S3_PATIENCE: '10s' },
    left: async () => namesIn(await testStore(server.endpoint, { prefix: 'two' })),
  };
}

class Side {
  agent: TestAgent;
  readonly #start: () => Promise<TestAgent>;
  readonly #containers: readonly Counter[];
  readonly made = new Set<string>();
  readonly surprises: string[] = [];
  readonly counts = { checkpoints: 0, fenced: 0, failed: 0, deleted: 0, prunes: 0, kills: 0, stops: 0 };

  constructor(agent: TestAgent, start: () => Promise<TestAgent>, containers: readonly Counter[]) {
    this.agent = agent;
    this.#start = start;
    this.#containers = containers;
  }

  async #attempt(what: string, body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      this.counts.failed += 1;
      if (isStasisError(error, 'WRITER_FENCED')) this.counts.fenced += 1;
      // Between its death and its restart nobody answers.
      if (error instanceof Error && error.message === 'Channel has been shut down') { await delay(50); return; }
      if (!isStasisError(error) || !ALLOWED.includes(error.code)) this.surprises.push(`${what}: ${String(error)}`);
      await delay(50);
    }
  }

  async save(until: number): Promise<void> {
    while (Date.now() < until) {
      const counter = this.#containers[randomInt(this.#containers.length)];
      await this.#attempt('checkpoint', async () => {
        this.made.add((await checkpoint(this.agent, counter?.id ?? '', { leaveRunning: true })).checkpoint);
        this.counts.checkpoints += 1;
      });
    }
  }

  async prune(until: number): Promise<void> {
    while (Date.now() < until) {
      await delay(randomInt(300));
      await this.#attempt('prune', async () => {
        await collect(this.agent.client.pruneRepository({ dryRun: false, reason: '' }, none));
        this.counts.prunes += 1;
      });
    }
  }

  /** Deletes what any of the two has made; whoever deletes may fail, but then nobody counts on it any more. */
  async remove(until: number, of: readonly Side[]): Promise<void> {
    while (Date.now() < until) {
      await delay(randomInt(600));
      const owner = of[randomInt(of.length)];
      const [id] = owner?.made ?? [];
      if (owner === undefined || id === undefined) continue;
      owner.made.delete(id);
      await this.#attempt('delete', async () => {
        await this.agent.client.deleteCheckpoint({ checkpoint: id, reason: '' }, none);
        this.counts.deleted += 1;
      });
    }
  }

  async restart(): Promise<void> {
    await this.agent.kill();
    this.agent = await this.#start();
  }

  async disturb(until: number): Promise<void> {
    while (Date.now() < until) {
      await delay(randomInt(500, 3000));
      if (randomInt(2) === 0) {
        this.counts.kills += 1;
        await this.restart();
      } else {
        const { pid } = this.agent;
        process.kill(pid, 'SIGSTOP');
        this.counts.stops += 1;
        await delay(randomInt(500, 3 * GRACE_MS));
        process.kill(pid, 'SIGCONT');
      }
    }
  }
}

/** The second container of the second agent goes on in the lineage of the first container of the first. */
function shareLineage([first, second]: readonly [AgentHome, AgentHome], counters: readonly Counter[]): void {
  const known = JSON.parse(readFileSync(join(first.state, 'lineages.json'), 'utf8')) as Record<string, unknown>;
  const keyOf = (counter: Counter | undefined): string => Object.keys(known).find((key) => key.includes(`/${counter?.id ?? ''}@`)) ?? '';
  writeFileSync(join(second.state, 'lineages.json'), JSON.stringify({ [keyOf(counters[2])]: known[keyOf(counters[0])] }), { mode: 0o600 });
}

async function settle(agent: TestAgent): Promise<void> {
  for (let i = 0; i < 3; i += 1) {
    await collect(agent.client.pruneRepository({ dryRun: false, reason: '' }, none));
    await delay(GRACE_MS + 100);
  }
}

for (const kind of ['directory', 's3'] as const) {
  void it(`on ${kind}: what was reported stays whole, and after two prunes nothing orphaned is left`, { timeout: (SECONDS + 120) * 1000 }, async (context) => {
    await using stack = new AsyncDisposableStack();
    const shared = await openShared(kind, stack);
    const homes = [makeHome(), makeHome()] as const;
    for (const home of homes) stack.defer(() => removeHome(home));
    const counters: Counter[] = [];
    for (let i = 0; i < 3; i += 1) counters.push(await startCounter('runc'));
    for (const counter of counters) stack.defer(() => counter.stop());
    const start = (which: 0 | 1) => (): Promise<TestAgent> => startAgent(homes[which], { ...shared.env, STASIS_NODE_NAME: `node-${which}` });

    const first = new Side(await start(0)(), start(0), counters.slice(0, 2));
    for (const counter of counters) await checkpoint(first.agent, counter.id, { leaveRunning: true });
    shareLineage(homes, counters);
    const second = new Side(await start(1)(), start(1), counters.slice(2));
    const sides = [first, second];
    const until = Date.now() + SECONDS * 1000;
    await Promise.all(sides.flatMap((side) => [side.save(until), side.prune(until), side.remove(until, sides), side.disturb(until)]));
    context.diagnostic(JSON.stringify(sides.map(({ counts }) => counts)));
    assert.deepEqual(sides.flatMap(({ surprises }) => surprises), []);

    // As after a crash of both: what is left of their work is for the restart and for prune.
    for (const side of sides) await side.restart();
    const { agent } = first;
    await settle(agent);
    const listed = new Set(await checkpointIds(agent));
    for (const id of sides.flatMap(({ made }) => [...made])) assert.ok(listed.has(id), `${id} was reported and is there`);
    const report = (await collect(agent.client.checkRepository({ readData: true }, none))).at(-1);
    assert.ok(report?.type === 'report');
    assert.deepEqual([report.report.problems, report.report.loosePacks, report.report.checkpoints], [[], 0, listed.size]);
    assert.deepEqual((await shared.left()).filter((name) => name.startsWith('writers/') && !name.endsWith('.fenced')), []);
    // Whatever is there is needed: nothing stays when all are deleted.
    for (const id of listed) await agent.client.deleteCheckpoint({ checkpoint: id, reason: '' }, none);
    assert.deepEqual((await shared.left()).filter((name) => !name.endsWith('.fenced')), []);
    for (const counter of counters) await counter.assertCounting();
    for (const side of sides) assert.equal(await side.agent.stop(), 0);
  });
}
