/**
 * What cannot come back is not stopped, whatever the reason; and what a rehearsal does to files, locks, FIFOs and sockets
 * that the container shares with the node is seen by nobody.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, checkpoint, checkpointIds, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome } from '../support/agent.ts';
import { startContainer, type Spec, type TestContainer } from '../support/containers.ts';
import { startCounter } from '../support/counter.ts';

let home: AgentHome;
let shared: string;
let serial = 0;

before(() => {
  home = makeHome();
});

after(() => removeHome(home));

afterEach(endAgents);

/** A container that counts into /beats and does what `body` says before; `shared` is bound at /data. */
async function start(runtime: 'runc' | 'crun', body: string, edit: (spec: Spec) => void = () => undefined): Promise<TestContainer & { beats(): number }> {
  serial += 1;
  const id = `rehearsed-${runtime}-${process.pid}-${serial}`;
  shared = mkdtempSync('/srv/shared-');
  mkdirSync(join(shared, 'volume'));
  writeFileSync(join(shared, 'volume/file'), 'as it was\n');
  const program = `import fcntl, os, socket, struct, subprocess, time\n${body}\nn = 0\nwhile True:\n  n += 1\n  open("/beats", "w").write(str(n))\n  time.sleep(0.02)\n`;
  const container = await startContainer({
    runtime, id, args: ['/usr/bin/python3', '-c', program], edit: (spec) => {
      spec['mounts'].push({ destination: '/data', type: 'bind', source: join(shared, 'volume'), options: ['bind', 'rw'] });
      edit(spec);
    },
  });
  const directory = shared;
  const beats = (): number => {
    try {
      return Number(readFileSync(`/proc/${container.pid}/root/beats`, 'utf8'));
    } catch {
      return 0;
    }
  };
  for (let waited = 0; waited < 20_000 && beats() === 0; waited += 20) await delay(20);
  assert.ok(beats() > 0, readFileSync(container.errorFile, 'utf8'));
  return { ...container, beats, stop: async () => {
    await container.stop();
    rmSync(directory, { recursive: true, force: true });
  } };
}

async function assertGoesOn({ beats }: { beats(): number }): Promise<void> {
  const seen = beats();
  for (let waited = 0; waited < 5000 && beats() <= seen; waited += 20) await delay(20);
  assert.ok(beats() > seen, 'it stands still');
}

interface Hopeless {
  readonly what: string;
  readonly runtimes: readonly ('runc' | 'crun')[];
  readonly body: string;
  readonly edit?: (spec: Spec) => void;
  readonly spoil?: () => void;
}

const hopeless: readonly Hopeless[] = [
  { what: 'an open file of a volume that was replaced', runtimes: ['runc', 'crun'], body: 'held = open("/data/file")', spoil: () => {
    renameSync(join(shared, 'volume'), join(shared, 'old'));
    mkdirSync(join(shared, 'volume'));
  } },
  { what: 'the working directory in a volume that was removed', runtimes: ['runc'], body: 'os.chdir("/data")', spoil: () => renameSync(join(shared, 'volume'), join(shared, 'old')) },
  { what: 'as many processes as the limit of its engine allows', runtimes: ['runc'], body: 'children = [subprocess.Popen(["sleep", "1000"]) for _ in range(5)]', edit: (spec) => {
    spec['linux'].resources = { ...spec['linux'].resources, pids: { limit: 6 } };
    spec['linux'].cgroupsPath = '/hopeless.slice';
  } },
];

void describe('a container that CRIU saves and cannot restore is not stopped', () => {
  for (const { what, runtimes, body, edit, spoil } of hopeless) {
    for (const runtime of runtimes) {
      void it(`${what} (${runtime})`, async () => {
        const container = await start(runtime, body, edit);
        try {
          spoil?.();
          const agent = await startAgent(home);
          const known = await checkpointIds(agent);
          const error = await checkpoint(agent, container.id).then(() => undefined, (thrown: unknown) => thrown as { code: string; message: string });
          // Some of it is seen before the freeze.
          assert.ok(error !== undefined && ['REHEARSAL_FAILED', 'NOT_CHECKPOINTABLE'].includes(error.code), `${error?.code} ${error?.message}`);
          await assertGoesOn(container);
          assert.deepEqual(await checkpointIds(agent), known);
          await assertClean(agent);
          assert.equal(await agent.stop(), 0);
        } finally {
          await container.stop();
        }
      });
    }
  }
});

/** Everything that the node can see of the entries of a directory. */
function facts(directory: string): unknown[] {
  return readdirSync(directory).sort().map((name) => {
    const { ino, mode, nlink, uid, gid, size, mtimeMs, ctimeMs } = lstatSync(join(directory, name));
    return { name, ino, mode, nlink, uid, gid, size, mtimeMs, ctimeMs };
  });
}

const SHARED_THINGS = `
def lock(name, how):
  f = open("/data/" + name, "w"); how(f); return f
held = [lock("flock", lambda f: fcntl.flock(f, fcntl.LOCK_EX)), lock("posix", lambda f: fcntl.lockf(f, fcntl.LOCK_EX)),
  lock("ofd", lambda f: fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))]
os.mkfifo("/data/fifo")
fifo = os.open("/data/fifo", os.O_RDWR)
os.write(fifo, b"on its way")
listening = socket.socket(socket.AF_UNIX); listening.bind("/data/socket"); listening.listen(1)
gone = open("/data/gone", "w+"); gone.write("no name"); gone.flush(); os.unlink("/data/gone")
tcp = socket.socket(); tcp.bind(("127.0.0.1", 0)); tcp.listen(1)
peer = socket.create_connection(tcp.getsockname()); other = tcp.accept()
`;

void describe('nobody sees a rehearsal', () => {
  for (const runtime of ['runc', 'crun'] as const) {
    void it(`locks, FIFOs, sockets, unlinked files of a volume, connections (${runtime})`, async () => {
      const container = await start(runtime, SHARED_THINGS);
      try {
        const volume = join(shared, 'volume');
        const agent = await startAgent(home);
        const before = facts(volume);
        const saved = await checkpoint(agent, container.id, { leaveRunning: true, rehearsal: 'always', fileLocks: true, tcpEstablished: true });
        assert.equal(saved.rehearsal?.done, true);
        await assertGoesOn(container);
        assert.deepEqual(facts(volume), before);
        assert.equal(spawnSync('flock', ['--nonblock', join(volume, 'flock'), 'true']).status, 1, 'the lock is gone');
        assert.equal(execFileSync('timeout', ['5', 'head', '-c', '10', join(volume, 'fifo')], { encoding: 'utf8' }), 'on its way');
        await assertClean(agent);
        assert.equal(await agent.stop(), 0);
      } finally {
        await container.stop();
      }
    });
  }

  void it('two at once', async () => {
    const counters = await Promise.all([startCounter('runc'), startCounter('crun')]);
    try {
      const agent = await startAgent(home);
      const results = await Promise.all(counters.map(({ id }) => checkpoint(agent, id, { rehearsal: 'always' })));
      for (const [index, counter] of counters.entries()) {
        assert.equal(results[index]?.rehearsal?.done, true);
        await counter.adopt(await restore(agent, results[index]?.checkpoint ?? ''));
        await counter.assertCounting();
      }
      assert.equal(await agent.stop(), 0);
    } finally {
      for (const counter of counters) await counter.stop();
    }
  });

  void it('one that takes too long lets the container go on within its budget', async () => {
    const counter = await startCounter('runc');
    try {
      const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: 'checkpoint.rehearse.rebuilt=sleep 60000' });
      await assert.rejects(checkpoint(agent, counter.id, { rehearsal: 'always', freezeBudgetMs: 14_000 }), (error: { code?: string }) => ['REHEARSAL_FAILED', 'FREEZE_BUDGET_EXCEEDED'].includes(error.code ?? ''));
      await counter.assertCounting();
      await assert.rejects(checkpoint(agent, counter.id, { rehearsal: 'always', freezeBudgetMs: 100 }), { code: 'REHEARSAL_FAILED' });
      await counter.assertCounting();
      await assertClean(agent);
      assert.equal(await agent.stop(), 0);
    } finally {
      await counter.stop();
    }
  });
});
