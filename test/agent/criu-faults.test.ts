/** criu fails by itself (CRIU_FAULT), or is killed while it restores: an error that says so, nothing left, and the next try works. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { listPids, readStat } from '../../src/host/proc.ts';
import {
  assertClean, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome, type TestAgent,
} from '../support/agent.ts';
import { rootOf, type Spec } from '../support/containers.ts';
import { killIfThere, openSession, startVictim, type Session, type Victim } from '../support/victim.ts';

let home: AgentHome;
let victim: Victim;

/** Where the agent and the runtimes find a criu that reads its fault from a file each time it is run. */
const programs = (): string => join(home.state, 'programs');

const agents = oneAfterTheOther(() => home, () => ({ PATH: `${programs()}:${process.env['PATH']}` }));

before(() => {
  home = makeHome();
  mkdirSync(programs());
  const criu = execFileSync('sh', ['-c', 'command -v criu'], { encoding: 'utf8' }).trim();
  const script = [
    '#!/bin/sh', `read -r fault < ${programs()}/fault`,
    'if [ -n "$fault" ]; then export CRIU_FAULT="$fault"; fi', `exec ${criu} "$@"`,
  ];
  writeFileSync(join(programs(), 'criu'), `${script.join('\n')}\n`);
  chmodSync(join(programs(), 'criu'), 0o755);
  meet(undefined);
});

function meet(fault: number | undefined): void {
  writeFileSync(join(programs(), 'fault'), `${fault ?? ''}\n`);
}

after(async () => {
  await removeHome(home);
});

async function forget(agent: TestAgent): Promise<void> {
  for (const id of await checkpointIds(agent)) await agent.client.deleteCheckpoint({ checkpoint: id, reason: 'test' }, { signal: undefined });
}

/** Clean, and of the container neither a process nor anything in the runtime's books. */
async function assertGone(agent: TestAgent, runtime: 'runc' | 'crun'): Promise<void> {
  await assertClean(agent);
  assert.deepEqual(readdirSync(rootOf(runtime).root).filter((name) => name === victim.id), []);
  const left = listPids().filter((pid) => readFileSyncOr(`/proc/${pid}/cgroup`).includes(`/${victim.id}`) && readStat(pid)?.state !== 'Z');
  assert.deepEqual(left.map((pid) => `${pid} ${readStat(pid)?.comm}`), [], 'processes in the cgroup of the container');
}

function readFileSyncOr(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Below 128 the fault is fatal for the run of criu that meets it: 1, 3, 5 for a dump, 2, 4, 6 for a restore (4 only where links are remapped). */
const faults: readonly { readonly fault: number; readonly dump: 'fails' | 'works'; readonly restore: 'fails' | 'works' }[] = [
  { fault: 1, dump: 'fails', restore: 'works' },
  { fault: 2, dump: 'works', restore: 'fails' },
  { fault: 3, dump: 'fails', restore: 'works' },
  { fault: 4, dump: 'works', restore: 'works' },
  { fault: 5, dump: 'fails', restore: 'works' },
  { fault: 6, dump: 'works', restore: 'fails' },
  { fault: 131, dump: 'works', restore: 'works' },
  { fault: 136, dump: 'works', restore: 'works' },
];

async function failed(attempt: Promise<unknown>): Promise<{ code: string; message: string; hint?: string } | undefined> {
  return attempt.then(() => undefined, (error: unknown) => error as { code: string; message: string; hint?: string });
}

/** Fault 2 is met by a child only. */
function withChild(spec: Spec): void {
  spec['process'].args = ['/bin/sh', '-c', '"$@" & wait', 'sh', ...spec['process'].args];
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`CRIU_FAULT with ${runtime}`, () => {
    before(async () => {
      victim = await startVictim(runtime, 4, withChild);
    });
    after(() => victim?.stop());

    for (const { fault, dump, restore: restored } of faults) {
      for (const leaveRunning of [true, false]) {
        // A dump that fails leaves it running either way; the second runtime, which runs criu in the same way, gets one of each kind.
        if (leaveRunning && fault !== 3) continue;
        if (runtime === 'crun' && (leaveRunning || ![2, 3, 6, 131].includes(fault))) continue;
        void it(`${fault}, ${leaveRunning ? 'leave running' : 'stop'}`, async () => {
          const agent = await agents.now();
          meet(fault);
          const error = await failed(checkpoint(agent, victim.id, { leaveRunning }));
          // What a restore would meet, its rehearsal meets before, and the container goes on.
          const expected = dump === 'fails' ? 'DUMP_FAILED' : restored === 'fails' && !leaveRunning ? 'REHEARSAL_FAILED' : undefined;
          assert.equal(error?.code, expected, error?.message);
          if (error !== undefined) {
            assert.doesNotMatch(error.message, /errno 0|type NOTIFY/);
            await assertClean(agent);
            await victim.assertWhole();
          }
          if (error !== undefined || leaveRunning) {
            meet(undefined);
            await checkpoint(agent, victim.id, { leaveRunning: false, newLineage: true });
            meet(fault);
          }
          const id = (await checkpointIds(agent))[0] ?? '';
          const refused = await failed(restore(agent, id).then((result) => victim.adopt(result)));
          assert.equal(refused !== undefined, restored === 'fails', refused?.message);
          if (refused !== undefined) {
            assert.equal(refused.code, 'RESTORE_FAILED');
            assert.doesNotMatch(refused.message, /errno 0|type NOTIFY/);
            await assertGone(agent, runtime);
            meet(undefined);
            victim.adopt(await restore(agent, id));
          }
          await victim.assertWhole();
          await forget(agent);
        });
      }
    }
  });
}

type Prey = 'criu' | 'runtime' | 'agent';

/** The run of the runtime in a restore leaves its number in the operation's log directory. */
async function restoreSession(): Promise<Session> {
  const logs = join(home.state, 'logs');
  for (let waited = 0; waited < 20_000; waited += 1) {
    // Logs of runs that failed before are kept.
    for (const name of readdirSync(logs)) {
      const session = readFileSyncOr(join(logs, name, 'restore.log')) === '' ? undefined : openSession(readFileSyncOr(join(logs, name, 'session')));
      if (session !== undefined && session.pids('criu').length > 0) return session;
    }
    await delay(1);
  }
  throw new Error('no criu was seen');
}

void describe('kill -9 during a restore', () => {
  for (const runtime of ['runc', 'crun'] as const) {
    void describe(runtime, () => {
      before(async () => {
        victim = await startVictim(runtime, 64);
      });
      after(() => victim?.stop());

      const preys: readonly (readonly Prey[])[] = [['criu'], ['runtime'], ['runtime', 'criu'], ['agent', 'runtime', 'criu']];
      for (const [index, prey] of preys.entries()) {
        const afterMs = index % 2 === 0 ? 30 : 0;
        void it(`${prey.join(' + ')}, ${afterMs} ms after criu begins`, async () => {
          let agent = await agents.now();
          meet(undefined);
          const { checkpoint: id } = await checkpoint(agent, victim.id);
          const outcome = failed(restore(agent, id).then((result) => victim.adopt(result)));
          const session = await restoreSession();
          await delay(afterMs);
          if (prey.includes('agent')) killIfThere(agent.pid);
          session.kill(...(prey.includes('runtime') ? ['runc', 'crun'] : []), ...(prey.includes('criu') ? ['criu'] : []));
          assert.ok((await outcome) !== undefined, 'the restore must have failed');
          if (prey.includes('agent')) {
            await agent.exited;
            agent = await agents.now();
          }
          await assertGone(agent, runtime);
          victim.adopt(await restore(agent, id));
          await victim.assertWhole();
          await forget(agent);
        });
      }
    });
  }
});
