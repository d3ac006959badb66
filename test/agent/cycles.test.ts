/** Saved and brought back again and again, with both runtimes: memory, files, connections and shared memory are of one instant. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, checkpoint, checkpointIds, makeHome, oneAfterTheOther, removeHome, restore, type AgentHome } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';
import { startVictim } from '../support/victim.ts';

/** What the chain of checkpoints makes of the memory is the same for both runtimes. */
const CYCLES = { runc: 3, crun: 2 } as const;

let home: AgentHome;

const agents = oneAfterTheOther(() => home);

before(() => {
  home = makeHome();
});

after(async () => {
  await removeHome(home);
});

interface Cycles {
  readonly count: number;
  readonly tcpEstablished?: boolean;
}

/** Saves and brings back so many times: every second time another look is taken in passing, while it runs. */
async function cycle(
  id: string, { count, ...flags }: Cycles, check: (pid: number, round: number) => Promise<void>,
): Promise<void> {
  const agent = await agents.now();
  for (let round = 1; round <= count; round++) {
    if (round % 2 === 0) await checkpoint(agent, id, { leaveRunning: true, ...flags });
    const { checkpoint: saved } = await checkpoint(agent, id, flags);
    const { pid } = await restore(agent, saved, flags);
    await check(pid, round);
  }
  await assertClean(agent);
  // The newest refers to what the oldest wrote: it must not go with it.
  const [newest, ...older] = await checkpointIds(agent);
  for (const old of older) await agent.client.deleteCheckpoint({ checkpoint: old, reason: 'test' }, { signal: undefined });
  for await (const event of agent.client.verifyCheckpoint({ checkpoint: newest ?? '' }, { signal: undefined })) {
    if (event.type === 'report') assert.deepEqual(event.report.problems, []);
  }
  await agent.client.deleteCheckpoint({ checkpoint: newest ?? '', reason: 'test' }, { signal: undefined });
}

/** A redis of its own network, and a writer in the same container over one TCP connection, which notes what was acknowledged. */
const REDIS = `
import os, socket, subprocess, time
subprocess.Popen(['/usr/bin/redis-server', '--port', '6379', '--bind', '127.0.0.1', '--save', '', '--dir', '/tmp', '--logfile', '/dev/null'])
for _ in range(200):
    try:
        s = socket.create_connection(('127.0.0.1', 6379)); break
    except OSError: time.sleep(0.05)
f = s.makefile('rb'); n = 0
def call(*words):
    s.sendall(b''.join([b'*%d\\r\\n' % len(words)] + [b'$%d\\r\\n%s\\r\\n' % (len(w), w) for w in words]))
    head = f.readline()
    if head[:1] == b'$': return f.read(int(head[1:]) + 2)[:-2]
    return head[1:-2]
while True:
    n += 1
    assert call(b'SET', b'k%d' % n, b'v%d' % n * 10) == b'OK'
    assert int(call(b'INCR', b'count')) == n
    assert call(b'GET', b'k%d' % (n // 2 + 1)) == b'v%d' % (n // 2 + 1) * 10
    with open('/progress.new', 'w') as file: file.write('%d\\n' % n)
    os.replace('/progress.new', '/progress')
`;

/** Memory and files tell the same number, always: the file is written first, then the memory changes, then it is compared. */
const WRITER = `
import os, mmap, time
shm = open('/dev/shm/shared', 'wb+'); shm.truncate(1 << 20); area = mmap.mmap(shm.fileno(), 1 << 20)
n = 0; size = 0; log = open('/log', 'a', buffering=1)
os.makedirs('/files', exist_ok=True); open('/deleted-open', 'w').write('still here'); ghost = open('/deleted-open'); os.unlink('/deleted-open')
while True:
    assert int.from_bytes(area[:8], 'little') == n, 'shared memory'
    if n: assert open('/tmpfs/n').read() == str(n), 'tmpfs'
    assert os.path.getsize('/log') == size, 'log'
    assert sorted(os.listdir('/files')) == sorted('f%d' % i for i in range(max(0, n - 5), n)), 'files'
    ghost.seek(0); assert ghost.read() == 'still here'
    n += 1
    size += log.write('%d\\n' % n)
    area[:8] = n.to_bytes(8, 'little')
    open('/tmpfs/n', 'w').write(str(n))
    open('/files/f%d' % (n - 1), 'w').write('x' * n)
    if n > 5: os.unlink('/files/f%d' % (n - 6))
    time.sleep(0.002)
`;

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`${CYCLES[runtime]} cycles with ${runtime}`, () => {
    const count = CYCLES[runtime];

    void it('redis under write load over TCP, in a network namespace of its own', async () => {
      const container = await startContainer({ runtime, id: `cycle-redis-${runtime}-${process.pid}`, args: ['/usr/bin/python3', '-c', REDIS] });
      try {
        const progress = (pid: number): number => Number(readIf(`/proc/${pid}/root/progress`));
        for (let waited = 0; progress(container.pid) < 20 && waited < 20_000; waited += 20) await delay(20);
        let last = progress(container.pid);
        assert.ok(last >= 20, readIf(container.errorFile));
        await cycle(container.id, { count, tcpEstablished: true }, async (pid, round) => {
          // The writer ends at the first wrong answer, so progress is proof.
          for (let waited = 0; progress(pid) <= last + 20 && waited < 10_000; waited += 20) await delay(20);
          assert.ok(progress(pid) > last + 20, `round ${round}: it stands at ${progress(pid)}`);
          last = progress(pid);
          assert.notEqual(readlinkSync(`/proc/${pid}/ns/net`), readlinkSync('/proc/self/ns/net'));
        });
      } finally {
        await container.stop();
      }
    });

    void it('a heap whose blocks are hashed', async () => {
      const victim = await startVictim(runtime, 32);
      try {
        await cycle(victim.id, { count }, async (pid) => {
          victim.adopt({ pid });
          await victim.assertWhole();
        });
      } finally {
        await victim.stop();
      }
    });

    void it('files, a deleted open file, /dev/shm and a tmpfs are of the same instant as the memory', async () => {
      const container = await startContainer({
        runtime, id: `cycle-writer-${runtime}-${process.pid}`, args: ['/usr/bin/python3', '-c', WRITER],
        edit: (spec) => spec['mounts'].push({ destination: '/tmpfs', type: 'tmpfs', source: 'tmpfs', options: ['mode=1777', 'size=1m'] }),
      });
      try {
        await delay(500);
        const lines = (pid: number): string[] => readIf(`/proc/${pid}/root/log`).split('\n').slice(0, -1);
        let inode = 0;
        await cycle(container.id, { count }, async (pid, round) => {
          const before = lines(pid).length;
          for (let waited = 0; lines(pid).length <= before + 20 && waited < 5000; waited += 20) await delay(20);
          assert.ok(lines(pid).length > before + 20, `round ${round}: it stands still`);
          lines(pid).forEach((line, index) => assert.equal(Number(line), index + 1, 'a line of the log is lost or doubled'));
          // Made, changed and removed from outside between the rounds; each must be as it was left.
          const at = (name: string): string => `/proc/${pid}/root/${name}`;
          if (round > 1) {
            assert.equal(readFileSync(at(`made-${round - 1}`), 'utf8'), `in round ${round - 1}`);
            assert.equal(existsSync(at('usr/bin/fdisk-of-a-test')), false);
            assert.equal(existsSync(at('etc/debian_version')), false, 'what was deleted came back');
            if (round > 2) assert.equal(existsSync(at(`made-${round - 2}`)), false);
          }
          writeFileSync(at(`made-${round}`), `in round ${round}`);
          rmSync(at(`made-${round - 1}`), { force: true });
          rmSync(at('etc/debian_version'), { force: true });
          inode = statSync(at(`made-${round}`)).ino;
        });
        assert.ok(inode > 0);
      } finally {
        await container.stop();
      }
    });
  });
}

function readIf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
