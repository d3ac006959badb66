/** Open files whose name is gone while another link keeps them: criu gives them a name for the checkpoint, and nothing of it stays. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, atFailpoint, checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';
import { findSession } from '../support/victim.ts';

/** A named semaphore; a log whose other name stays; a file of the lower layer, replaced; a file whose directory is gone, too. */
const NAMELESS = `
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True); libc.sem_open.restype = ctypes.c_void_p
sem = libc.sem_open(b'/byname', os.O_CREAT, 0o600, 1); assert sem
log = open('/var/app.log', 'w+', buffering=1); os.link('/var/app.log', '/var/app.log.1'); os.unlink('/var/app.log')
program = open('/usr/bin/fdisk', 'rb') if os.path.exists('/usr/bin/fdisk') else open('/usr/bin/env', 'rb'); size = os.fstat(program.fileno()).st_size
open(program.name + '.new', 'wb').write(b'upgraded'); os.rename(program.name + '.new', program.name)
os.mkdir('/var/gone'); kept = open('/var/gone/data', 'w+'); kept.write('kept'); kept.flush(); os.link('/var/gone/data', '/var/data'); os.unlink('/var/gone/data'); os.rmdir('/var/gone')
n = 0
while True:
    assert libc.sem_wait(ctypes.c_void_p(sem)) == 0 and libc.sem_post(ctypes.c_void_p(sem)) == 0
    kept.seek(0); assert kept.read() == 'kept'
    program.seek(0); assert len(program.read()) == size
    n += 1; log.write('%d\\n' % n); assert open('/var/app.log.1').read().endswith('%d\\n' % n)
    open('/n.new', 'w').write(str(n)); os.rename('/n.new', '/n')
    time.sleep(0.02)
`;

/** The same in a volume: in a directory, and in one that is gone. */
const VOLUME = `
import os, time
kept = [open(path, 'w') for path in ('/var/app.log', '/vol/deep/log')]
for file in kept: os.link(file.name, file.name + '.1'); os.unlink(file.name)
n = 0
while True: n += 1; open('/n.new', 'w').write(str(n)); os.rename('/n.new', '/n'); time.sleep(0.02)
`;

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

function number(pid: number): number {
  const path = `/proc/${pid}/root/n`;
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
}

async function goesOn(pid: number): Promise<void> {
  const began = number(pid);
  for (let waited = 0; number(pid) < began + 5; waited += 50) {
    assert.ok(waited < 20_000, `it stands at ${number(pid)}`);
    await delay(50);
  }
}

/** Names that criu made up, in the directories where the program had its files. */
function left(root: string): string[] {
  return ['dev/shm', 'var', 'usr/bin', '.'].flatMap((directory) => {
    const path = join(root, directory);
    return existsSync(path) ? readdirSync(path).filter((name) => name.startsWith('link_remap')).map((name) => join(directory, name)) : [];
  });
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`open files without a name, ${runtime}`, () => {
    void it('go on after a snapshot, and come back twice', async () => {
      const container = await startContainer({ runtime, id: `nameless-${runtime}-${process.pid}`, args: ['/usr/bin/python3', '-c', NAMELESS] });
      try {
        const upper = join('/srv', container.id, 'upper');
        await goesOn(container.pid);
        await checkpoint(agent, container.id, { leaveRunning: true });
        await goesOn(container.pid);
        assert.deepEqual(left(`/proc/${container.pid}/root`), []);
        let { pid } = container;
        for (const _ of [1, 2]) {
          const saved = await checkpoint(agent, container.id);
          if (pid === container.pid) assert.deepEqual(left(upper), [], 'in the root file system of the container that was stopped');
          ({ pid } = await restore(agent, saved.checkpoint));
          await goesOn(pid);
          assert.deepEqual(left(`/proc/${pid}/root`), []);
        }
        await assertClean(agent);
      } finally {
        await container.stop();
      }
    });
  });
}

// Last: the home of each takes all agents along.
for (const runtime of ['runc', 'crun'] as const) {
  void describe(`open files without a name, agent and criu killed, ${runtime}`, () => {
    void it('leave no names of criu behind, also not in a volume that is not saved', async () => {
      const id = `nameless-killed-${runtime}-${process.pid}`;
      const volume = join('/srv', `${id}-volume`);
      mkdirSync(join(volume, 'deep'), { recursive: true });
      const container = await startContainer({ runtime, id, args: ['/usr/bin/python3', '-c', VOLUME], edit: (spec) => { spec['mounts'].push({ destination: '/vol', type: 'bind', source: volume, options: ['bind', 'rw'] }); } });
      const names = (): string[] => [...left(join('/srv', id, 'upper')), ...['.', 'deep'].flatMap((directory) => readdirSync(join(volume, directory)).filter((name) => name.startsWith('link_remap')))];
      const own = makeHome();
      try {
        await goesOn(container.pid);
        writeFileSync(join(volume, 'link_remap.9'), 'the user\'s own');
        const first = await startAgent(own, { STASIS_TESTING_FAILPOINT: 'checkpoint.dump.after=stop' });
        const outcome = checkpoint(first, id).catch((error: unknown) => error);
        // criu waits in its hook: nobody dies of its death.
        await atFailpoint(first, async () => {
          const session = await findSession(own, { inHook: true });
          assert.equal(names().length, 3, names().join());
          process.kill(first.pid, 'SIGKILL');
          session.kill('criu', 'runc', 'crun');
        });
        await first.kill();
        await outcome;
        const next = await startAgent(own);
        assert.deepEqual(names(), ['link_remap.9']);
        await goesOn(container.pid);
        await assertClean(next);
        await next.stop();
      } finally {
        await container.stop();
        await removeHome(own);
        rmSync(volume, { recursive: true, force: true });
      }
    });
  });
}
