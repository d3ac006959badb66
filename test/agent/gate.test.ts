/**
 * No task of a restored container runs before the agent has said so, whoever refuses or dies at the gate: nothing comes out of
 * the container, nothing of it is left, and the checkpoint can be restored afterwards.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { listPids, readCgroups, readProc } from '../../src/host/proc.ts';
import { GATE_STAGES } from '../../src/host/restore-gate.ts';
import {
  assertClean, atFailpoint, checkpoint, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { counterArgs, numbers, startContainer, waitForOutput, type TestContainer } from '../support/containers.ts';

let home: AgentHome;

const agents = oneAfterTheOther(() => home);

before(() => {
  home = makeHome();
});
after(() => removeHome(home));

function members(id: string): number[] {
  return listPids().filter((pid) => readCgroups(pid).some(({ path }) => path === `/${id}` || path.startsWith(`/${id}/`)));
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`the gate of a restore with ${runtime}`, () => {
    let container: TestContainer;
    let saved: string;
    let output: string;

    before(async () => {
      container = await startContainer({ runtime, id: `gate-${runtime}`, args: counterArgs });
      await waitForOutput(container.outputFile, (text) => numbers(text).length > 3);
      const agent = await agents.now();
      saved = (await checkpoint(agent, container.id)).checkpoint;
      output = join(home.state, 'output', `${container.id}.stdout.log`);
    });
    after(() => container?.stop());

    async function assertNothingRan(agent: TestAgent, written: string): Promise<void> {
      for (let waited = 0; members(container.id).length > 0; waited += 20) {
        assert.ok(waited < 5000, `tasks are left: ${members(container.id).map((pid) => readProc(pid, 'status')).join('\n')}`);
        await delay(20);
      }
      assert.equal(text(output), written, 'the container ran');
      assert.deepEqual((await agent.client.listContainers({ all: true, container: '' }, { signal: undefined })).containers, []);
      const gates = join(home.run, 'gates');
      assert.deepEqual(existsSync(gates) ? readdirSync(gates) : [], []);
      await assertClean(agent);
    }

    for (const stage of GATE_STAGES) {
      void it(`a refusal at ${stage} ends the restore`, async () => {
        const written = text(output);
        const agent = await agents.now();
        agent.arm(`restore.gate.${stage}=fail`);
        await assert.rejects(restore(agent, saved), { message: new RegExp(`failpoint restore.gate.${stage}`) });
        await assertNothingRan(agent, written);
      });

      void it(`an agent killed at ${stage} ends the restore without another agent`, async () => {
        const written = text(output);
        const dying = await agents.now();
        dying.arm(`restore.gate.${stage}=kill`);
        await assert.rejects(restore(dying, saved));
        await dying.exited;
        for (let waited = 0; members(container.id).length > 0; waited += 20) {
          assert.ok(waited < 30_000, `tasks outlive the agent: ${members(container.id).map((pid) => readProc(pid, "status")).join("\n")}`);
          await delay(20);
        }
        await assertNothingRan(await agents.now(), written);
      });
    }

    void it('tasks stand still as long as the agent says nothing', async () => {
      const written = text(output);
      const agent = await agents.now();
      agent.arm('restore.gate.pre-resume=stop');
      const restored = restore(agent, saved);
      await atFailpoint(agent, () => {
        const init = Number(readFileSync(join(home.run, 'gates', readdirSync(join(home.run, 'gates'))[0] ?? '', 'pre-resume'), 'utf8'));
        assert.match(readProc(init, 'status') ?? '', /^State:\s+t/m);
        assert.equal(text(output), written);
      });
      await restored;
      await waitForOutput(output, (now) => numbers(now).length > numbers(written).length);
      await checkpoint(agent, container.id);
      await assertClean(agent);
    });
  });
}

function text(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}
