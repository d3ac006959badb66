/** The shell loop counter in a real container: it must go on at n + 1 whatever is done to it. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { readStat } from '../../src/host/proc.ts';
import { startContainer } from './containers.ts';

export interface Counter {
  readonly id: string;
  pid: number;
  pidStart: number;
  /** Follows the container to where it was restored. */
  adopt(restored: { container: string; pid: number }): Promise<void>;
  /** Fails unless it counts on without a gap or a repetition. */
  assertCounting(): Promise<void>;
  stop(): Promise<void>;
}

let serial = 0;

/** Counts into a file of its root file system, so that it can be read wherever it was restored. */
export async function startCounter(runtime: 'runc' | 'crun', like: { readonly id?: string } = {}): Promise<Counter> {
  serial += 1;
  const name = `counter-${runtime}-${process.pid}-${serial}`;
  const id = like.id ?? name;
  const container = await startContainer({
    runtime, id, directory: `/srv/${name}`, args: ['/bin/sh', '-c', 'i=0; while :; do i=$((i+1)); echo "$i" >> /counter; echo "$i"; sleep 0.05; done'],
  });
  let { pid } = container;
  const numbers = (): number[] => readFileSync(`/proc/${pid}/root/counter`, 'utf8').split('\n').slice(0, -1).map(Number);
  const counter: Counter = {
    id, pid, pidStart: readStat(pid)?.startTime ?? 0,
    adopt: async (restored) => {
      pid = restored.pid;
      counter.pid = pid;
      counter.pidStart = readStat(pid)?.startTime ?? 0;
      assert.notEqual(counter.pidStart, 0, 'the restored container is dead');
    },
    assertCounting: async () => {
      const before = numbers().length;
      for (let waited = 0; waited < 3000 && numbers().length <= before; waited += 20) await delay(20);
      const seen = numbers();
      assert.ok(seen.length > before, 'the counter stands still');
      seen.forEach((value, index) => assert.equal(value, index + 1, 'a number is missing or doubled'));
    },
    stop: async () => {
      await container.stop();
      rmSync(container.bundle, { recursive: true, force: true });
    },
  };
  // crun tells of a container before its program has begun.
  for (let waited = 0; waited < 5000 && !existsSync(`/proc/${pid}/root/counter`); waited += 10) await delay(10);
  return counter;
}
