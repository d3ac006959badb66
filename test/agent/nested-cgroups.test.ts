/**
 * A process in a cgroup below that of its container (systemd, an engine in a container) is one of the container's: what it writes
 * through a shared mapping while its file is read ahead is in the checkpoint.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseContainerId } from '../../src/core/ids.ts';
import { Freezer } from '../../src/host/cgroup.ts';
import { remove } from '../../src/runtime/index.ts';
import { agentOfFile, checkpoint, restore } from '../support/agent.ts';
import { rootOf, startContainer } from '../support/containers.ts';

/** Counts in a mapped file, and says so when memory and file have come apart. */
const WRITER = `
import mmap, time
f = open('/data.bin', 'wb+'); f.truncate(4096); area = mmap.mmap(f.fileno(), 4096); n = 0
while True:
    v = int.from_bytes(area[:8], 'little')
    if v != n: open('/verdict', 'a').write('in memory %d, in the file %d\\n' % (n, v)); n = v
    n += 1; area[:8] = n.to_bytes(8, 'little'); time.sleep(0.0005)
`;

const file = agentOfFile();

async function counted(pid: number, beyond: number): Promise<number> {
  for (let waited = 0; waited < 30_000; waited += 20) {
    const path = `/proc/${pid}/root/data.bin`;
    const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
    if (bytes.length >= 8 && bytes.readBigUInt64LE() > beyond) return Number(bytes.readBigUInt64LE());
    await delay(20);
  }
  throw new Error(`process ${pid} never counted beyond ${beyond}`);
}

void describe('a process in a child cgroup that writes through a shared mapping', () => {
  for (const runtime of ['runc', 'crun'] as const) {
    void it(`${runtime}: is seen, stands still and comes back as it was`, async () => {
      const id = `nested-${runtime}`;
      const container = await startContainer({ runtime, id, args: ['/usr/bin/python3', '-c', WRITER] });
      try {
        const { freezer } = await container.inspect();
        // The freezer's hierarchy of version 1, or the only one of version 2.
        const inner = join(freezer?.directory ?? '', 'inner');
        mkdirSync(inner);
        writeFileSync(join(inner, 'cgroup.procs'), String(container.pid));
        assert.deepEqual(readFileSync(join(freezer?.directory ?? '', 'cgroup.procs'), 'utf8'), '');
        assert.deepEqual(new Freezer(freezer!).pids(), [container.pid]);
        await counted(container.pid, 200);
        const { checkpoint: saved } = await checkpoint(file.agent, id, { leaveRunning: false });
        const { pid } = await restore(file.agent, saved);
        const before = await counted(pid, 0);
        await counted(pid, before + 50);
        const verdict = `/proc/${pid}/root/verdict`;
        assert.equal(existsSync(verdict) ? readFileSync(verdict, 'utf8') : 'the same', 'the same');
      } finally {
        await remove(rootOf(runtime), parseContainerId(id), { force: true, signal: undefined });
        await container.stop();
      }
    });
  }
});
