/** The bad days of a container that shall go on: test/support/fault-campaign.ts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, checkpoint, checkpointIds, makeHome, removeHome, startAgent } from '../support/agent.ts';
import { startCounter } from '../support/counter.ts';
import { faultCampaign, placesOf } from '../support/fault-campaign.ts';

faultCampaign('runc', 'leave running', placesOf(true));

void describe('an agent that was paused and wakes up too late', () => {
  void it('finds that the guard has decided, and takes its checkpoint back', async () => {
    const home = makeHome();
    const counter = await startCounter('runc');
    try {
      const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.commit.manifest=stop' });
      const failed = assert.rejects(checkpoint(agent, counter.id, { freezeBudgetMs: 1500 }), (error) => (error as { code?: string }).code === 'FREEZE_BUDGET_EXCEEDED');
      while (!/^State:\s+T/m.test(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))) await delay(20);
      await delay(2500);
      await counter.assertCounting();
      process.kill(agent.pid, 'SIGCONT');
      await failed;
      assert.deepEqual(await checkpointIds(agent), []);
      await assertClean(agent);
      await counter.assertCounting();
      await agent.stop();
    } finally {
      await counter.stop();
      await removeHome(home);
    }
  });
});
