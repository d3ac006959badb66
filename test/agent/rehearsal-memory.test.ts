/** A stop is rehearsed, too, when its memory does not stay on the node: the page server takes it while criu dumps. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { assertClean, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome } from '../support/agent.ts';
import { startContainer, waitForOutput, type TestContainer } from '../support/containers.ts';

let home: AgentHome;
let container: TestContainer | undefined;

before(() => {
  home = makeHome();
});
afterEach(async () => {
  await endAgents();
  await container?.stop();
});
after(() => removeHome(home));

/** Private memory, private pages of a file, memory that a child shares, and memory in a file; it says every moment whether all is as it was. */
const program = (ofFileMiB: number): string => `
import mmap, os, time
private = bytearray(os.urandom(1 << 20) * 8)
file = open("/file", "w+b"); file.truncate(${ofFileMiB} << 20)
changed = mmap.mmap(file.fileno(), ${ofFileMiB} << 20, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
chunk = os.urandom(1 << 20)
for _ in range(${ofFileMiB}): changed.write(chunk)
shared = mmap.mmap(-1, 8 << 20); shared.write(os.urandom(8 << 20))
f = open("/dev/shm/f", "w+b"); f.write(os.urandom(4 << 20)); f.flush(); filed = mmap.mmap(f.fileno(), 4 << 20)
sums = lambda: [hash(bytes(part)) for part in (private, changed[:1 << 20], changed[-1 << 20:], shared, filed)]
first = sums()
if os.fork() == 0:
    while True: time.sleep(1)
n = 0
while True:
    n += 1
    print("whole" if sums() == first else "broken", n, flush=True)
    time.sleep(0.05)
`;

async function start(ofFileMiB: number): Promise<TestContainer> {
  container = await startContainer({
    runtime: 'runc', id: `streamed-${ofFileMiB}`, args: ['/usr/bin/python3', '-c', program(ofFileMiB)],
  });
  await waitForOutput(container.outputFile, (text) => text.includes('whole 1'));
  return container;
}

void describe('memory over the page server', () => {
  void it('is rehearsed, and comes back whole', async () => {
    const { id } = await start(4);
    const agent = await startAgent(home);
    const stopped = await checkpoint(agent, id, { memoryPath: 'page-server' });
    assert.equal(stopped.memoryPath, 'page-server');
    assert.equal(stopped.rehearsal?.done, true, stopped.rehearsal?.reason);
    await restore(agent, stopped.checkpoint);
    const output = await waitForOutput(`${home.state}/output/${id}.stdout.log`, (text) => text.split('\n').length > 3);
    assert.doesNotMatch(output, /broken/);
    await assertClean(agent);
  });

  void it('is not rehearsed when too much of it cannot be left out, and the result says so', async () => {
    const { id } = await start(66);
    const agent = await startAgent(home);
    await assert.rejects(checkpoint(agent, id, { memoryPath: 'page-server', rehearsal: 'always' }), { code: 'REHEARSAL_FAILED', message: /goes on: .*more than 64\.0 MiB of its memory cannot be left out/ });
    const stopped = await checkpoint(agent, id, { memoryPath: 'page-server' });
    assert.match(stopped.rehearsal?.reason ?? '', /more than 64\.0 MiB of its memory cannot be left out/);
    await restore(agent, stopped.checkpoint);
  });
});
