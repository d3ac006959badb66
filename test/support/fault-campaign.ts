/** The agent fails, or is killed, at each of some places of a checkpoint: whatever happens, nothing is lost and nothing is left. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { CHECKPOINT_STEPS } from '../../src/agent/checkpoint/checkpoint.ts';
import { processAlive } from '../../src/host/proc.ts';
import { assertClean, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent } from './agent.ts';
import { startCounter, type Counter } from './counter.ts';

/** Before and after each numbered step. */
export function placesOf(leaveRunning: boolean): string[] {
  const steps = CHECKPOINT_STEPS.filter((step) => leaveRunning || step !== 'thaw');
  const places = steps.flatMap((step) => [`checkpoint.${step}`, `checkpoint.${step}.after`]);
  return leaveRunning ? places : [...places, 'checkpoint.commit.manifest'];
}

class Campaign {
  readonly #counter: () => Counter;
  readonly #now: () => Promise<TestAgent>;
  readonly #leaveRunning: boolean;

  constructor(counter: () => Counter, now: () => Promise<TestAgent>, leaveRunning: boolean) {
    this.#counter = counter;
    this.#now = now;
    this.#leaveRunning = leaveRunning;
  }

  /** The agent that failed goes on to the next place: whatever it kept shows there, for that attempt comes further. */
  async fails(place: string): Promise<void> {
    const agent = await this.#now();
    const before = await checkpointIds(agent);
    agent.arm(`${place}=fail`);
    await this.#attempt(agent);
    agent.arm('');
    await this.#assertNothingLost(agent, before);
  }

  async dies(place: string): Promise<void> {
    const agent = await this.#now();
    const before = await checkpointIds(agent);
    agent.arm(`${place}=kill`);
    await this.#attempt(agent);
    await agent.exited;
    // Promise 1 holds without any agent: nobody is frozen for longer than it takes the guard to see the death.
    const { pid, pidStart } = this.#counter();
    if (processAlive(pid, pidStart)) await this.#counter().assertCounting();
    await this.#assertNothingLost(await this.#now(), before);
  }

  async #attempt(agent: TestAgent): Promise<void> {
    await assert.rejects(checkpoint(agent, this.#counter().id, { leaveRunning: this.#leaveRunning }));
  }

  /** The counter moves, or it is dead and the newest checkpoint holds it. */
  async #assertNothingLost(agent: TestAgent, before: readonly string[]): Promise<void> {
    const counter = this.#counter();
    await assertClean(agent);
    const ids = await checkpointIds(agent);
    if (!processAlive(counter.pid, counter.pidStart)) {
      const made = ids.filter((id) => !before.includes(id));
      assert.equal(made.length, 1, 'the container is dead, so exactly one checkpoint must have been committed');
      await counter.adopt(await restore(agent, made[0] ?? ''));
    }
    await counter.assertCounting();
  }

  async works(): Promise<void> {
    const agent = await this.#now();
    const result = await checkpoint(agent, this.#counter().id, { leaveRunning: true });
    const ids = await checkpointIds(agent);
    assert.ok(ids.includes(result.checkpoint));
    for (const id of ids) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
  }
}

/** One suite, with a container and agents of its own. */
export function faultCampaign(runtime: 'runc' | 'crun', mode: 'leave running' | 'stop', places: readonly string[]): void {
  void describe(`checkpoint of a ${runtime} container (${mode}), at every step`, () => {
    let home: AgentHome;
    let counter: Counter;
    const agents = oneAfterTheOther(() => home);
    const campaign = new Campaign(() => counter, () => agents.now(), mode === 'leave running');
    before(async () => {
      home = makeHome();
      counter = await startCounter(runtime);
    });
    after(async () => {
      await counter?.stop();
      await removeHome(home);
    });

    for (const place of places) {
      void it(`${place}=fail`, async () => campaign.fails(place));
      void it(`${place}=kill`, async () => campaign.dies(place));
    }
    void it('a checkpoint after all of them', async () => campaign.works());
  });
}
