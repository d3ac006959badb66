/** A box leaves nothing behind, whoever of its processes is killed. Runs on the machine, not in a box. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, it } from 'node:test';
import { leftovers, leftoversAfter, runBox, startBox, startMessyBox, uniqueName, type RunningBox } from './box.ts';

const started: RunningBox[] = [];
after(() => {
  for (const box of started) box.child.kill('SIGKILL');
});

async function start(options: readonly string[] = []): Promise<RunningBox> {
  const box = await startMessyBox(uniqueName(), options);
  started.push(box);
  return box;
}

void describe('a box that ends leaves nothing', () => {
  void it('when its command ends', () => {
    const name = uniqueName();
    const ended = runBox(['--name', name, '--', 'bash', '-c', 'setsid sleep 1000 & mount -t tmpfs tmpfs /mnt; exit 7']);
    assert.equal(ended.status, 7, ended.stderr);
    assert.deepEqual(leftovers(name), []);
  });

  const victims: readonly [string, NodeJS.Signals, (box: RunningBox) => readonly number[]][] = [
    ['the script', 'SIGKILL', (box) => [box.script]],
    ['the script, asked to end', 'SIGTERM', (box) => [box.script]],
    ['unshare', 'SIGKILL', (box) => [box.unshare]],
    ['process 1', 'SIGKILL', (box) => [box.init]],
    ['the script, unshare and process 1 at once', 'SIGKILL', (box) => [box.script, box.unshare, box.init]],
  ];
  for (const [who, signal, pids] of victims) {
    void it(`when ${who} is killed (${signal})`, async () => {
      const box = await start();
      assert.ok(leftovers(box.name).some((line) => line.startsWith('process')), 'the mess can be seen while the box runs');
      for (const pid of pids(box)) process.kill(pid, signal);
      await once(box.child, 'close');
      assert.deepEqual(await leftoversAfter(box.name, 15), []);
    });
  }

  void it('when the janitor is killed: the script cleans', async () => {
    const name = uniqueName();
    const box = await startBox(name, 'setsid sleep 1000 & echo ready; sleep 0.3; exit 9');
    process.kill(box.janitor, 'SIGKILL');
    const [status] = (await once(box.child, 'close')) as [number];
    assert.equal(status, 9);
    assert.deepEqual(leftovers(name), []);
  });

  void it('when script and janitor are killed: the next box sweeps', async () => {
    const box = await start();
    process.kill(box.janitor, 'SIGKILL');
    process.kill(box.script, 'SIGKILL');
    await once(box.child, 'exit');
    assert.notDeepEqual(leftovers(box.name), [], 'nobody is left who could clean');
    assert.equal(runBox(['--', 'true']).status, 0);
    assert.deepEqual(await leftoversAfter(box.name, 1), []);
  });

  void it('with cgroup version 2', async (t) => {
    const box = await start(['--cgroup', 'v2']).catch((error: unknown) => error);
    if (box instanceof Error) return t.skip('this machine has no cgroup2 mount');
    const running = box as RunningBox;
    process.kill(running.script, 'SIGKILL');
    await once(running.child, 'close');
    assert.deepEqual(await leftoversAfter(running.name, 15), []);
  });
});
