/** Processes that a signal has stopped are saved, and come back stopped; nobody waits for them. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer } from '../../src/host/cgroup.ts';
import { readStat } from '../../src/host/proc.ts';
import type { RuntimeName } from '../../src/runtime/index.ts';
import { agentOfFile, assertClean, checkpoint, restore } from '../support/agent.ts';
import { startContainer, waitForOutput } from '../support/containers.ts';

const file = agentOfFile();

/** Children stopped in every way, one of them with threads; each would change its file if it ran. The parent counts. */
const PROGRAM = `
import os, signal, threading, time
def work(name):
    os.setpgid(0, 0)
    if name.endswith('threads'): [threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)], daemon=True).start() for _ in range(3)]
    n = 0
    while True: n += 1; open('/kid-' + name, 'w').write(str(n)); time.sleep(0.01)
for name, number in (('stop', 'SIGSTOP'), ('tstp', 'SIGTSTP'), ('threads', 'SIGSTOP'), ('ttin', 'SIGTTIN'), ('ttou', 'SIGTTOU'), ('ttin-threads', 'SIGTTIN'), ('ttin-unseen', 'SIGTTIN')):
    pid = os.fork()
    if pid == 0: work(name)
    while not os.path.exists('/kid-' + name): time.sleep(0.01)
    os.kill(pid, getattr(signal, number))
    if not name.endswith('unseen'): os.waitpid(pid, os.WUNTRACED)
    while open('/proc/%d/stat' % pid).read().split(') ')[1][0] != 'T': time.sleep(0.01)
    print('stopped', name, flush=True)
n = 0
while True: n += 1; open('/count', 'w').write(str(n)); time.sleep(0.02)
`;
const KIDS = ['stop', 'tstp', 'threads', 'ttin', 'ttou', 'ttin-threads', 'ttin-unseen'];

function children(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

function files(pid: number): string[] {
  return KIDS.map((kid) => readFileSync(`/proc/${pid}/root/kid-${kid}`, 'utf8'));
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let waited = 0; !holds(); waited += 20) {
    assert.ok(waited < 10_000, what);
    await delay(20);
  }
}

async function assertStopped(pid: number, was: readonly string[]): Promise<void> {
  await until('a stopped process is not stopped', () => children(pid).length === KIDS.length && children(pid).every((child) => readStat(child)?.state === 'T'));
  const count = (): number => Number(readFileSync(`/proc/${pid}/root/count`, 'utf8'));
  const from = count();
  await until('the others do not go on', () => count() > from);
  assert.deepEqual(files(pid), was, 'a stopped process has run');
}

for (const runtime of ['runc', 'crun'] satisfies RuntimeName[]) {
  void describe(`stopped processes, ${runtime}`, () => {
    void it('are saved while the container goes on, and come back stopped', async () => {
      const container = await startContainer({ runtime, id: `stopped-${runtime}`, args: ['/usr/bin/python3', '-c', PROGRAM] });
      try {
        await waitForOutput(container.outputFile, (text) => text.includes('stopped ttin-unseen'));
        const was = files(container.pid);
        await checkpoint(file.agent, container.id, { leaveRunning: true });
        await assertStopped(container.pid, was);
        const freezer = new Freezer((await container.inspect()).freezer!);
        assert.deepEqual(readdirSync(freezer.directory).filter((name) => name.startsWith('stasis')), []);
        const { checkpoint: id } = await checkpoint(file.agent, container.id);
        const { pid } = await restore(file.agent, id);
        await assertStopped(pid, was);
        for (const child of children(pid)) process.kill(child, 'SIGCONT');
        await until('they do not go on after SIGCONT', () => files(pid).every((text, index) => text !== was[index]));
        await assertClean(file.agent);
      } finally {
        await container.stop();
      }
    });

    void it('which are stopped and go on all the time hold nobody up for long', async () => {
      const container = await startContainer({ runtime, id: `flapping-${runtime}`, args: ['/usr/bin/python3', '-c', `
import os, signal, time
pid = os.fork()
if pid == 0:
    while True: time.sleep(0.001)
while True:
    os.kill(pid, signal.SIGSTOP); time.sleep(0.002); os.kill(pid, signal.SIGCONT); time.sleep(0.002)
`] });
      try {
        const freezer = new Freezer((await container.inspect()).freezer!);
        for (let round = 0; round < 3; round++) {
          await checkpoint(file.agent, container.id, { leaveRunning: true }).catch((error: { code: string }) => assert.equal(error.code, 'NOT_CHECKPOINTABLE'));
          assert.equal(freezer.frozen(), false);
        }
        await assertClean(file.agent);
        assert.ok(existsSync(join('/proc', String(container.pid))));
      } finally {
        await container.stop();
      }
    });
  });
}
