/** A container whose id is the beginning of others is itself, for every call that is given its whole id. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer, type TestContainer } from '../support/containers.ts';

let home: AgentHome;
let agent: TestAgent;

before(async () => {
  home = makeHome();
  agent = await startAgent(home);
});

after(async () => {
  await agent.stop();
  await removeHome(home);
});

void describe('names', () => {
  void it('a stopped container comes back although two others begin with its id', async () => {
    const id = `begin-${process.pid}`;
    const containers: TestContainer[] = [];
    try {
      for (const name of [id, `${id}-a`, `${id}-b`]) containers.push(await startContainer({ runtime: 'runc', id: name, args: ['/bin/sleep', '1000'] }));
      const { checkpoint: saved } = await checkpoint(agent, id);
      assert.equal((await restore(agent, saved)).container, id);
    } finally {
      for (const container of containers) await container.stop();
    }
  });
});
