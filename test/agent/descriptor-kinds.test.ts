/** Whatever descriptors a container has open: they are the same after a restore, and no harmless difference refuses one. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { it } from 'node:test';
import { agentOfFile, checkpoint, restore } from '../support/agent.ts';
import { startContainer, waitForOutput } from '../support/containers.ts';
import { everyDescriptor } from '../support/workloads/every-descriptor.ts';

const file = agentOfFile();

function kinds(pid: number): Set<string> {
  return new Set(readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`)).map(
    (target) => /^(anon_inode:\[?\w+|\w+:(?=\[)|\/memfd|\/dev\/\w+|\/proc\/\w+)/.exec(target)?.[0]
      ?? (target.endsWith('(deleted)') ? 'deleted' : 'file')
  ));
}

for (const runtime of ['runc', 'crun'] as const) {
  void it(`descriptors of every kind are rehearsed and restored with ${runtime}`, async () => {
    const container = await startContainer({
      runtime, id: `descriptors-${runtime}`, args: ['/usr/bin/python3', '-W', 'ignore', '-c', everyDescriptor],
    });
    try {
      await waitForOutput(container.outputFile, (text) => text.includes('ready'));
      const open = kinds(container.pid);
      for (const kind of ['eventfd', 'eventpoll', 'inotify', 'signalfd', 'timerfd', 'pidfd']) assert.ok([...open].some((one) => one.includes(kind)), kind);
      for (const kind of ['pipe:', 'socket:', 'net:', '/memfd', '/dev/null', '/dev/pts', 'deleted']) assert.ok(open.has(kind), `${kind} in ${[...open].join(' ')}`);
      const flags = { fileLocks: true, tcpEstablished: true };
      // The second time the descriptors are those that criu has made.
      for (let round = 0; round < 2; round++) {
        const stopped = await checkpoint(file.agent, container.id, { ...flags, rehearsal: 'always' });
        const restored = await restore(file.agent, stopped.checkpoint, flags);
        assert.deepEqual([...stopped.findings, ...restored.findings].filter(({ kind }) => kind === 'difference'), []);
        assert.deepEqual(kinds(restored.pid), open);
      }
    } finally {
      await container.stop();
    }
  });
}
