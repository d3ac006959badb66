/** What is saved: each workload says how it starts, when it is ready, and whether it is still itself after a restore. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { countFiles, treeDigest, unpackTree } from '../support/workloads/files.ts';
import { heapArgs, heapReady, longestPauseMs, wrongBlocks } from '../support/workloads/heap.ts';
import { loadedRedisArgs } from '../support/workloads/loaded-redis.ts';
import { processesArgs } from '../support/workloads/processes.ts';

export interface Workload {
  readonly name: string;
  readonly title: string;
  readonly args: readonly string[];
  /** Files of the container are part of what must come back: plain runc does not compete. */
  readonly files: boolean;
  /** Returns when all is there. */
  prepare(pid: number): Promise<void>;
  /** Milliseconds that the program itself did not run, where it can tell. */
  pauseMs?(pid: number): Promise<number>;
  /** Fails when anything of it was lost. `thorough` takes longer. */
  verify(pid: number, options: { readonly thorough: boolean }): Promise<void>;
}

const counting = ['/bin/sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i >> /count; sleep 0.02; done'];

const counter: Workload = {
  name: 'counter', title: 'counter: a shell loop', args: counting, files: false,
  prepare: (pid) => assertCounts(pid),
  verify: (pid) => assertCounts(pid),
};

const HEAP_MIB = 2048;
const heap: Workload = {
  name: 'heap', title: `heap: ${HEAP_MIB / 1024} GiB, half random, half compressible`, args: heapArgs(HEAP_MIB), files: false,
  prepare: async (pid) => {
    await heapReady(pid);
    await longestPauseMs(pid);
  },
  pauseMs: longestPauseMs,
  verify: async (pid) => { assert.equal(await wrongBlocks(pid), 0, 'blocks of the heap changed'); },
};

/** It answers as the heap does. */
const REDIS_MIB = 1024;
const redis: Workload = {
  name: 'redis', title: `redis: ${REDIS_MIB / 1024} GiB of keys, written on and on`, args: loadedRedisArgs(REDIS_MIB), files: false,
  prepare: async (pid) => {
    await heapReady(pid);
    await longestPauseMs(pid);
  },
  pauseMs: longestPauseMs,
  verify: async (pid) => { assert.equal(await wrongBlocks(pid), 0, 'acknowledged keys are lost'); },
};

let tree = { count: 0, digest: '' };
const files: Workload = {
  name: 'files', title: 'files: a source tree of 92,000 files', args: counting, files: true,
  prepare: async (pid) => {
    const count = unpackTree(pid);
    if (tree.count === 0) tree = { count, digest: treeDigest(pid) };
  },
  verify: async (pid, { thorough }) => {
    await assertCounts(pid);
    assert.equal(countFiles(pid), tree.count, 'files are missing');
    if (thorough) assert.equal(treeDigest(pid), tree.digest, 'files changed');
  },
};

const CHILDREN = 500;
const processes: Workload = {
  name: 'processes', title: `processes: ${CHILDREN}, each with a small heap and two pipes`, args: processesArgs(CHILDREN), files: false,
  prepare: (pid) => assertCounts(pid),
  verify: (pid) => assertCounts(pid),
};

export const workloads: readonly Workload[] = [counter, heap, redis, files, processes];

/** It moves, and every number is there once. */
async function assertCounts(pid: number): Promise<void> {
  const before = numbers(pid).length;
  for (let waitedMs = 0; waitedMs < 20_000 && numbers(pid).length <= before; waitedMs += 5) await delay(5);
  const seen = numbers(pid);
  assert.ok(seen.length > before, 'the counter stands still');
  seen.forEach((value, index) => { assert.equal(value, index + 1, 'a number is missing or doubled'); });
}

function numbers(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/root/count`, 'utf8').split('\n').slice(0, -1).map(Number);
  } catch {
    return [];
  }
}
