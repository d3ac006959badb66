/** Timers of timerfd_create(2): those go on that have fired and were not read, and none fires too early or by mistake. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { agentOfFile, checkpoint, restore } from '../support/agent.ts';
import { startContainer, waitForOutput } from '../support/containers.ts';

const file = agentOfFile();

const PROGRAM = `
import json, os, select, time
REAL, MONOTONIC, BOOT = time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME
def timer(clock, **how):
    fd = os.timerfd_create(clock, flags=os.TFD_NONBLOCK)
    os.timerfd_settime(fd, **how)
    return fd
def readable(fd, within): return bool(select.select([fd], [], [], within)[0])
ABSOLUTE = os.TFD_TIMER_ABSTIME
fired = {clock: timer(clock, initial=0.01, interval=0.02) for clock in (REAL, MONOTONIC, BOOT)}
target = {clock: time.clock_gettime(clock) + 3600.5 for clock in fired}
later = {clock: timer(clock, flags=ABSOLUTE, initial=target[clock]) for clock in fired}
done = {clock: timer(clock, flags=ABSOLUTE, initial=time.clock_gettime(clock) + 0.01) for clock in fired}
once = timer(MONOTONIC, initial=0.01)
for fd in done.values(): readable(fd, 5); os.read(fd, 8)
for fd in (*fired.values(), once): readable(fd, 5)
print('ready', flush=True)
while not os.path.exists('/use'): time.sleep(0.02)
wrong = []
def check(good, *words): good or wrong.append(' '.join(map(str, words)))
for clock, fd in fired.items():
    os.read(fd, 8)
    check(readable(fd, 5), 'silent after it was read', clock)
for clock, fd in later.items():
    left, _ = os.timerfd_gettime(fd)
    check(left + time.clock_gettime(clock) > target[clock] - 0.01, 'early by', target[clock] - left - time.clock_gettime(clock), clock)
for clock, fd in done.items(): check(not readable(fd, 0.1), 'fires again', clock)
check(os.read(once, 8) == (1).to_bytes(8, 'little'), 'has not fired once')
open('/new', 'w').write(json.dumps(wrong)); os.rename('/new', '/told')
time.sleep(1000)
`;

it('timers of timerfd go on as they were', async () => {
  const container = await startContainer({ runtime: 'runc', id: `timers-${process.pid}`, args: ['/usr/bin/python3', '-c', PROGRAM] });
  try {
    await waitForOutput(container.outputFile, (text) => text.includes('ready'));
    const { checkpoint: id } = await checkpoint(file.agent, container.id, { rehearsal: 'never' });
    const { pid } = await restore(file.agent, id);
    writeFileSync(`/proc/${pid}/root/use`, '');
    for (let waited = 0; !existsSync(`/proc/${pid}/root/told`); waited += 50) {
      assert.ok(waited < 30_000);
      await delay(50);
    }
    assert.deepEqual(JSON.parse(readFileSync(`/proc/${pid}/root/told`, 'utf8')), []);
  } finally {
    await container.stop();
  }
});
