/** Watched files of an overlay (inotify): handles do not lead back to them, paths do. After a restore the same events arrive. */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertClean, checkpoint, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { startContainer } from '../support/containers.ts';

/** A file of its own, a directory of its own with a blank in its name, the root, a file and a directory of the layers below. */
const WATCHED = ['/data/app dir/file', '/data/app dir', '/', '/etc/debian_version', '/usr/share'] as const;

const PROGRAM = `
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs('/data/app dir'); open('/data/app dir/file', 'w').close()
fd = libc.inotify_init()
for path in ${JSON.stringify(WATCHED)}: assert libc.inotify_add_watch(fd, path.encode(), 0x122) > 0
open('/data/ready', 'w').close()
while True:
    data = os.read(fd, 65536)
    while data:
        wd, mask, _, length = struct.unpack('iIII', data[:16]); name = data[16:16 + length].rstrip(b'\\0').decode(); data = data[16 + length:]
        with open('/data/events', 'a') as out: out.write('%d %s\\n' % (wd, name))
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

async function present(path: string, wanted: (text: string) => boolean): Promise<string> {
  for (let waited = 0; ; waited += 50) {
    const text = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
    if (text !== undefined && wanted(text)) return text;
    assert.ok(waited < 15_000, `${path} holds ${JSON.stringify(text)}`);
    await delay(50);
  }
}

/** Something happens to each of them, and the program hears of it by the number that it was given. */
async function heard(pid: number): Promise<void> {
  const root = `/proc/${pid}/root`;
  rmSync(`${root}/data/events`, { force: true });
  appendFileSync(`${root}/data/app dir/file`, 'x');
  for (const made of ['data/app dir/new', 'new', 'usr/share/new']) {
    rmSync(`${root}/${made}`, { force: true });
    writeFileSync(`${root}/${made}`, '');
  }
  appendFileSync(`${root}/etc/debian_version`, 'x');
  const wanted = ['1 ', '2 file', '2 new', '3 new', '4 ', '5 new'];
  await present(`${root}/data/events`, (text) => wanted.every((event) => text.split('\n').includes(event)));
}

for (const runtime of ['runc', 'crun'] as const) {
  void describe(`watched files, ${runtime}`, () => {
    void it('are watched again after each restore', async () => {
      const container = await startContainer({ runtime, id: `watches-${runtime}-${process.pid}`, args: ['/usr/bin/python3', '-c', PROGRAM] });
      try {
        await present(`/proc/${container.pid}/root/data/ready`, () => true);
        await agent.client.listContainers({ container: container.id, all: false }, { signal: undefined });
        assert.equal(existsSync(`/proc/${container.pid}/root/data/events`), false, 'the program hears of an examination');
        // A file that is watched and then written for the first time becomes another one in an overlay: not with the second write.
        appendFileSync(`/proc/${container.pid}/root/etc/debian_version`, 'x');
        let { pid } = container;
        for (const _ of [1, 2]) {
          const saved = await checkpoint(agent, container.id);
          ({ pid } = await restore(agent, saved.checkpoint));
          await heard(pid);
        }
        await assertClean(agent);
      } finally {
        await container.stop();
      }
    });
  });
}
