/** What can be stopped and restored is rehearsed without a false alarm; what cannot come back is not stopped. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome } from '../support/agent.ts';
import { startContainer, waitForOutput, type Spec, type TestContainer } from '../support/containers.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';

let home: AgentHome;
let container: TestContainer | undefined;
const source = '/srv/rehearsal-kinds';

before(() => {
  home = makeHome();
  mkdirSync(join(source, 'sub'), { recursive: true });
  execFileSync('mount', ['--bind', source, source]);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', join(source, 'sub')]);
  writeFileSync(join(source, 'file'), 'x');
  writeFileSync(join(source, 'sub/file'), 'x');
});
afterEach(async () => {
  await endAgents();
  await container?.stop();
});
after(async () => {
  await removeHome(home);
  for (const { mountPoint } of readMountinfo('self').filter((mount) => mount.mountPoint === source || mount.mountPoint.startsWith(`${source}/`)).reverse()) execFileSync('umount', ['-l', mountPoint]);
  rmSync(source, { recursive: true });
});

const bind = (destination: string, ...options: string[]) => ({ destination, type: 'bind', source, options });

/** Recursive binds with a mount below them, propagation, a lease, watches by name and by file handle. */
const PROGRAM = `
import ctypes, fcntl, time
libc = ctypes.CDLL(None)
leased = open("/leased/file"); fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_RDLCK)
open("/watched", "w").close()
watch = libc.inotify_init()
assert libc.inotify_add_watch(watch, b"/watched", 2) >= 0 and libc.inotify_add_watch(watch, b"/bound/file", 2) >= 0
print("ready", flush=True)
while True: time.sleep(0.1)
`;

async function start(runtime: 'runc' | 'crun', program: string, edit: (spec: Spec) => void): Promise<TestContainer> {
  container = await startContainer({ runtime, id: `kinds-${runtime}`, args: ['/usr/bin/python3', '-c', program], edit });
  await waitForOutput(container.outputFile, (text) => text.includes('ready'));
  return container;
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`a stop with ${runtime}`, () => {
    void it('of leases, watches, recursive binds and mounts that follow others is rehearsed and comes back', async () => {
      const { id } = await start(runtime, PROGRAM, (spec) => {
        spec['mounts'].push(bind('/bound', 'rbind', 'rw'), bind('/following', 'rbind', 'rw', 'rslave'), bind('/leased', 'bind', 'rw'));
        spec['linux'].rootfsPropagation = 'rslave';
      });
      const agent = await startAgent(home);
      const stopped = await checkpoint(agent, id, { rehearsal: 'always', fileLocks: true });
      assert.equal(stopped.rehearsal?.done, true, stopped.rehearsal?.reason);
      await restore(agent, stopped.checkpoint, { fileLocks: true });
    });

    void it('of a shared bind mount comes back, or is refused while the container goes on', async () => {
      const { id, outputFile } = await start(runtime, 'import time\nprint("ready", flush=True)\nwhile True:\n  print("on", flush=True)\n  time.sleep(0.1)', (spec) => {
        spec['mounts'].push(bind('/shared', 'bind', 'rw', 'rshared'));
        spec['linux'].rootfsPropagation = 'rshared';
      });
      const agent = await startAgent(home);
      const stopped = await checkpoint(agent, id).catch((error: unknown) => error as { code: string; message: string });
      if ('code' in stopped) {
        // CRIU cannot make the root shared that runc prepares for it.
        assert.deepEqual([stopped.code, runtime], ['REHEARSAL_FAILED', 'runc'], stopped.message);
        const seen = (await waitForOutput(outputFile, () => true)).length;
        await waitForOutput(outputFile, (text) => text.length > seen);
      } else await restore(agent, stopped.checkpoint);
    });
  });
}
