/** A container that is big enough to be hit in the middle of a dump, and can tell whether it was damaged. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Freezer } from '../../src/host/cgroup.ts';
import { listPids, processAlive, readStat } from '../../src/host/proc.ts';
import type { RuntimeName } from '../../src/runtime/index.ts';
import { assertClean, type AgentHome, type TestAgent } from './agent.ts';
import { startContainer, type ContainerOptions } from './containers.ts';
import { heapArgs, heapReady, wrongBlocks } from './workloads/heap.ts';

export interface Victim {
  readonly id: string;
  readonly pid: number;
  alive(): boolean;
  /** Fails unless it is thawed, answers, and its heap is what it was. */
  assertWhole(): Promise<void>;
  /** Follows it to where it was restored. */
  adopt(restored: { pid: number }): void;
  stop(): Promise<void>;
}

let serial = 0;

export async function startVictim(runtime: RuntimeName, mib: number, edit?: ContainerOptions['edit']): Promise<Victim> {
  serial += 1;
  const id = `victim-${runtime}-${process.pid}-${serial}`;
  const container = await startContainer({ runtime, id, args: heapArgs(mib), ...(edit === undefined ? {} : { edit }) });
  let pid = container.pid;
  let start = readStat(pid)?.startTime ?? 0;
  const freezer = new Freezer((await container.inspect()).freezer!);
  try {
    await heapReady(pid);
  } catch (error) {
    await container.stop();
    throw error;
  }
  return {
    id,
    get pid() { return pid; },
    alive: () => processAlive(pid, start),
    assertWhole: async () => {
      assert.ok(processAlive(pid, start), 'the container is dead');
      for (let waited = 0; freezer.frozen() && waited < 2000; waited += 20) await delay(20);
      assert.equal(freezer.frozen(), false, 'the container is still frozen');
      assert.equal(await wrongBlocks(pid), 0, 'blocks of the heap are damaged');
      assert.deepEqual(leftoverTables(pid), [], 'packet filters of criu');
    },
    adopt: (restored) => {
      pid = restored.pid;
      start = readStat(pid)?.startTime ?? 0;
    },
    stop: async () => {
      await container.stop();
      rmSync(container.bundle, { recursive: true, force: true });
    },
  };
}

/** Tables that criu made to keep the container's network still. */
function leftoverTables(pid: number): string[] {
  const tables = execFileSync('nsenter', ['-t', String(pid), '-n', 'nft', 'list', 'tables'], { encoding: 'utf8' });
  return tables.split('\n').filter((line) => line.includes('CRIU'));
}

export interface Session {
  /** All living processes of this run of the runtime, by name. */
  pids(comm?: string): number[];
  /** Returns how many there were. */
  kill(...comms: string[]): number;
  /** Fails unless all of it is gone soon. */
  assertGone(): Promise<void>;
}

/** The run of the runtime that is going on now: waits until its criu is there, and until `imageBytes` of memory are written. */
export async function findSession(home: AgentHome, { imageBytes = 0, inHook = false }: { imageBytes?: number; inHook?: boolean } = {}): Promise<Session> {
  for (let waited = 0; waited < 20_000; waited += 1) {
    const session = openSession(guardFiles(home, 'session')[0] ?? '');
    if (session !== undefined && session.pids('criu').length > 0 && writtenBytes(home) >= imageBytes && (!inHook || waitsInHook(home))) return session;
    await delay(1);
  }
  throw new Error('no criu was seen');
}

/** By what is in its session file; undefined while that is empty. */
export function openSession(number: string): Session | undefined {
  if (number.trim() === '') return undefined;
  const pids = (comm?: string): number[] => listPids().filter((pid) => {
    const stat = readStat(pid);
    return stat !== undefined && stat.session === Number(number.split(' ')[0]) && stat.state !== 'Z' && stat.state !== 'X' && (comm === undefined || stat.comm === comm);
  });
  return {
    pids,
    kill: (...comms) => {
      const found = comms.flatMap(pids);
      found.forEach(killIfThere);
      return found.length;
    },
    assertGone: async () => {
      for (let waited = 0; pids().length > 0 && waited < 5000; waited += 20) await delay(20);
      assert.deepEqual(pids(), [], 'processes of the runtime are left');
    },
  };
}

export function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

/** The contents of a file of every guard that is armed now. */
export function guardFiles(home: AgentHome, name: string): string[] {
  return names(join(home.run, 'guards')).flatMap((guard) => {
    try {
      return [readFileSync(join(home.run, 'guards', guard, name), 'utf8')];
    } catch {
      return [];
    }
  });
}

function waitsInHook(home: AgentHome): boolean {
  return guardFiles(home, 'dumped').length > 0;
}

function writtenBytes(home: AgentHome): number {
  let sum = 0;
  for (const operation of names(join(home.run, 'staging'))) {
    const images = join(home.run, 'staging', operation, 'images');
    for (const name of names(images)) {
      if (name.startsWith('pages-')) sum += statSync(join(images, name), { throwIfNoEntry: false })?.size ?? 0;
    }
  }
  return sum;
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** After a failed operation of a living agent: nothing is left, and the container goes on as if nothing had happened. */
export async function assertUntouched(agent: TestAgent, victim: Victim): Promise<void> {
  await assertClean(agent);
  await victim.assertWhole();
}
