/** A real agent process with directories of its own, and a client of it. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { MNT_DETACH, umount } from '../../src/host/libc.ts';
import { repositoryRoot } from '../config/repository-root.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { connectAgent } from '../../src/rpc/client.ts';
import type { AgentClient, CheckpointRequest, CheckpointResult, Progress, RestoreRequest, RestoreResult } from '../../src/rpc/api.ts';

export const agentProgram = fileURLToPath(new URL('../../src/bin/agent.js', import.meta.url));

export interface AgentHome {
  readonly state: string;
  readonly run: string;
}

export interface TestAgent {
  readonly client: AgentClient;
  readonly pid: number;
  readonly home: AgentHome;
  /** Parsed log lines so far. */
  readonly log: readonly Record<string, unknown>[];
  /** What its failpoints do from the next step on, as in STASIS_TESTING_FAILPOINT; '' for nothing. */
  arm(failpoint: string): void;
  kill(): Promise<void>;
  /** Asks it to stop and returns its exit status. */
  stop(): Promise<number>;
  /** Resolves when it has died by itself (a failpoint). */
  readonly exited: Promise<void>;
}

export function makeHome(): AgentHome {
  mkdirSync('/srv/agents', { recursive: true });
  return { state: mkdtempSync('/srv/agents/state-'), run: mkdtempSync('/run/stasis-test-') };
}

/** Of agents that a failed test left running. */
const running = new Set<ChildProcess>();

export async function endAgents(): Promise<void> {
  for (const child of running) {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
}

/** Ends what a failed test left, and removes everything. */
export async function removeHome(home: AgentHome): Promise<void> {
  await endAgents();
  // Staging, and the bundles of restored containers: a recursive delete must not walk into them.
  const mounted = readMountinfo('self').map(({ mountPoint }) => mountPoint).filter((path) => path.startsWith(`${home.run}/`) || path.startsWith(`${home.state}/`));
  for (const path of mounted.reverse()) umount(path, MNT_DETACH);
  rmSync(home.state, { recursive: true, force: true });
  rmSync(home.run, { recursive: true, force: true });
}

/** Those that deploy/bin/stasis-agent gives it. */
function nodeFlags(): string[] {
  const [, flags = ''] = /^exec node (--.*) "\$here/m.exec(readFileSync(join(repositoryRoot(), 'deploy/bin/stasis-agent'), 'utf8')) ?? [];
  return flags.split(' ');
}

export async function startAgent(home: AgentHome, env: Record<string, string> = {}): Promise<TestAgent> {
  const failpoint = join(home.state, 'failpoint');
  let armings = 0;
  const arm = (text: string): void => {
    armings += 1;
    writeFileSync(`${failpoint}.new`, `${text}\n${armings}`);
    renameSync(`${failpoint}.new`, failpoint);
  };
  arm('');
  const child = spawn(process.execPath, [...nodeFlags(), agentProgram], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env, STASIS_STATE_DIRECTORY: home.state, STASIS_RUN_DIRECTORY: home.run, STASIS_SOCKET: join(home.run, 'agent.sock'),
      STASIS_METRICS_LISTEN: '', STASIS_STAGING_SIZE: '2G', STASIS_TESTING_FAILPOINT: `@${failpoint}`, ...env,
    },
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  const log: Record<string, unknown>[] = [];
  const errors: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
  const ready = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    const entry = JSON.parse(line) as Record<string, unknown>;
    log.push(entry);
    if (entry['event'] === 'agent.started') ready.resolve();
  });
  const exited = once(child, 'exit').then(() => undefined);
  await Promise.race([ready.promise, exited.then(() => Promise.reject(new Error(`the agent did not start: ${errors.join('')}${JSON.stringify(log.at(-1))}`)))]);
  const client = await connectAgent({ socket: join(home.run, 'agent.sock') });
  return {
    client, pid: child.pid ?? 0, home, log, exited, arm,
    kill: () => end(child, client, exited, 'SIGKILL'),
    stop: async () => {
      await end(child, client, exited, 'SIGTERM');
      return child.exitCode ?? -1;
    },
  };
}

export interface Agents {
  now(): Promise<TestAgent>;
}

/** Agents of a suite or file, of which one is there at a time: `now` starts the next when the last one has died. */
export function oneAfterTheOther(home: () => AgentHome, env: () => Record<string, string> = () => ({})): Agents {
  let agent: TestAgent | undefined;
  let dead = true;
  after(async () => {
    if (!dead) assert.equal(await agent?.stop(), 0);
  });
  return {
    now: async () => {
      if (agent !== undefined && !dead) return agent;
      const next = await startAgent(home(), env());
      dead = false;
      void next.exited.then(() => {
        dead = true;
      });
      return (agent = next);
    },
  };
}

/** One agent and its directories for all tests of a file, there from the first to the last of them. */
export function agentOfFile(): { readonly agent: TestAgent } {
  let home: AgentHome | undefined;
  let agent: TestAgent | undefined;
  before(async () => {
    home = makeHome();
    agent = await startAgent(home);
  });
  after(async () => {
    await agent?.stop();
    if (home !== undefined) await removeHome(home);
  });
  return { get agent() { return agent!; } };
}

/** Does something while the agent stands still at its failpoint (NAME=stop), and lets it go on. */
export async function atFailpoint<T>(agent: TestAgent, body: () => T | Promise<T>): Promise<T> {
  for (let waited = 0; !/^State:\s+T/m.test(readFileSync(`/proc/${agent.pid}/status`, 'utf8')); waited += 10) {
    if (waited > 20_000) throw new Error('the agent did not come to its failpoint');
    await delay(10);
  }
  try {
    return await body();
  } finally {
    process.kill(agent.pid, 'SIGCONT');
  }
}

async function end(child: ChildProcess, client: AgentClient, exited: Promise<void>, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
  client.close();
  child.kill(signal);
  await exited;
}

/** Longer than any operation of a test, also on a busy machine; shorter than its file may take. */
const STUCK_MS = 240_000;

/** An operation that stands still says where: the processes of the box and the end of the agent's log. */
async function watched<T>(agent: TestAgent, what: string, work: Promise<T>): Promise<T> {
  const stuck = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const processes = execFileSync('ps', ['-eo', 'pid,ppid,sid,stat,wchan:32,etimes,args', '--forest'], { encoding: 'utf8' });
    const told = agent.log.slice(-15).map((entry) => JSON.stringify(entry)).join('\n');
    stuck.reject(new Error(`${what} has stood still for ${STUCK_MS / 1000} s\n${processes}\n${told}`));
  }, STUCK_MS);
  try {
    return await Promise.race([work, stuck.promise]);
  } finally {
    clearTimeout(timer);
  }
}

const checkpointDefaults: Omit<CheckpointRequest, 'container'> = {
  reason: 'test', leaveRunning: false, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false, newLineage: false, keep: false,
};

type Events<R> = AsyncIterable<{ readonly type: 'progress'; readonly progress: Progress } | { readonly type: 'result'; readonly result: R }>;

async function resultOf<R>(events: Events<R>, onProgress: ((progress: Progress) => void) | undefined): Promise<R> {
  for await (const event of events) {
    if (event.type === 'result') return event.result;
    onProgress?.(event.progress);
  }
  throw new Error('the stream ended without a result');
}

export function checkpoint(agent: TestAgent, container: string, more: Partial<CheckpointRequest> = {}, onProgress?: (progress: Progress) => void): Promise<CheckpointResult> {
  const events = agent.client.checkpoint({ ...checkpointDefaults, container, ...more }, { signal: undefined });
  return watched(agent, `the checkpoint of ${container}`, resultOf(events, onProgress));
}

const restoreDefaults: Omit<RestoreRequest, 'checkpoint'> = {
  reason: 'test', clone: false, tcpEstablished: false, tcpClose: false, fileLocks: false, extUnixSk: false, shellJob: false, ignoreCompatibility: false, keep: false,
};

export function restore(agent: TestAgent, id: string, more: Partial<RestoreRequest> = {}, onProgress?: (progress: Progress) => void): Promise<RestoreResult> {
  const events = agent.client.restore({ ...restoreDefaults, checkpoint: id, ...more }, { signal: undefined });
  return watched(agent, `the restore of ${id}`, resultOf(events, onProgress));
}

export async function checkpointIds(agent: TestAgent): Promise<string[]> {
  const { checkpoints, problems } = await agent.client.listCheckpoints({ pageSize: 0, pageToken: '' }, { signal: undefined });
  assert.deepEqual(problems, []);
  return checkpoints.map(({ id }) => id);
}

function entries(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

/** Nothing half-made: journal, guards and staging are empty, and every pack belongs to a checkpoint that is listed. */
export async function assertClean(agent: TestAgent): Promise<void> {
  assertNothingUnfinished(agent);
  const ids = await checkpointIds(agent);
  const orphans = entries(join(agent.home.state, 'repository/packs')).filter((name) => !ids.some((id) => name.startsWith(id)));
  assert.deepEqual(orphans, [], 'packs without a checkpoint');
}

/** Also where packs outlive their checkpoint, because a younger one needs their pages. */
export function assertNothingUnfinished({ home: { state, run } }: TestAgent): void {
  assert.deepEqual(entries(join(state, 'journal')), [], 'journal');
  assert.deepEqual(entries(join(run, 'guards')), [], 'guards');
  assert.deepEqual(entries(join(run, 'staging')), [], 'staging');
}
