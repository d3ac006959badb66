/** One program, begun, saved and brought back as a combination says, and asked whether all is as it was. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isStasisError } from '../../src/core/errors.ts';
import { Freezer } from '../../src/host/cgroup.ts';
import { parseContainerId } from '../../src/core/ids.ts';
import { remove } from '../../src/runtime/index.ts';
import { checkpoint, restore, type TestAgent } from '../support/agent.ts';
import type { TestContainer } from '../support/containers.ts';
import { plainCheckpoint, plainRestore } from './plain.ts';
import { ask, begin, explained } from './subject.ts';
import { NO_LAZINESS, type Combination, type Program, type Result, type VerdictName } from './suite.ts';

export interface TrialOptions {
  readonly directory: string;
  readonly agent: TestAgent;
  readonly combination: Combination;
}

/** Every program is saved within seconds, in an emulated machine within a minute; what takes longer hangs. */
const FREEZE_BUDGET_MS = 120_000;
const CLEANUP_TRIES = 3;

type Outcome = Pick<Result, 'verdict' | 'detail'>;

function outcome(verdict: VerdictName, detail = ''): Outcome {
  return { verdict, detail };
}

/** The container was not saved: it must go on as if nothing had happened. */
async function afterRefusal(container: TestContainer, program: Program, error: unknown): Promise<Outcome> {
  const detail = explained(error);
  const { freezer } = await container.inspect();
  if (isStasisError(error, 'FREEZE_BUDGET_EXCEEDED') || freezer === undefined || new Freezer(freezer).frozen()) return outcome('frozen', detail);
  const said = await ask(container.pid, program);
  if (said !== 'PASS') return outcome('fails', `after it was refused (${detail}): ${said}`);
  if (program.flags.includes('crfail')) return outcome('rightly-refused', detail);
  return outcome(isStasisError(error, 'NOT_CHECKPOINTABLE') ? 'refused' : 'refused-in-dump', detail);
}

const flagsOf = ({ options }: Program): { tcpEstablished: boolean; fileLocks: boolean; extUnixSk: boolean } => ({
  tcpEstablished: true, fileLocks: true, extUnixSk: options.includes('--ext-unix-sk'),
});
const skipsOf = ({ options }: Program): { tcpSkipInFlight: boolean } => ({ tcpSkipInFlight: options.includes('--skip-in-flight') });

async function filled(agent: TestAgent, operationId: string | undefined): Promise<void> {
  if (operationId === undefined) return;
  for await (const event of agent.client.watchOperations({ operationId }, { signal: AbortSignal.timeout(30_000) })) {
    const operations = event.type === 'snapshot' ? event.snapshot.operations : [event.changed];
    if (operations.some(({ id, finishedMs }) => id === operationId && finishedMs !== undefined)) return;
  }
}

async function bringBack(container: TestContainer, program: Program, id: string, { agent, combination }: TrialOptions): Promise<Outcome> {
  let pid: number;
  try {
    const tcpClose = program.options.includes('--tcp-close');
    const restored = await restore(agent, id, { ...flagsOf(program), tcpEstablished: !tcpClose, tcpClose, lazy: combination.memory === 'lazy' ? 'always' : 'never' });
    pid = restored.pid;
    await filled(agent, restored.fillOperationId);
  } catch (error) {
    return outcome('lost', explained(error));
  }
  const said = await ask(pid, program);
  await remove(container.at, parseContainerId(container.id), { force: true, signal: undefined });
  return said === 'PASS' ? outcome('pass') : outcome('fails', said);
}

async function throughStasis(container: TestContainer, program: Program, options: TrialOptions): Promise<Outcome> {
  const { agent, combination } = options;
  const leaveRunning = combination.mode === 'leave-running';
  let saved: string;
  try {
    saved = (await checkpoint(agent, container.id, { ...flagsOf(program), ...skipsOf(program), leaveRunning, freezeBudgetMs: FREEZE_BUDGET_MS })).checkpoint;
  } catch (error) {
    return await afterRefusal(container, program, error);
  }
  try {
    if (leaveRunning) {
      // Only a restore closes its connections, which it checks.
      const said = program.options.includes('--tcp-close') ? 'PASS' : await ask(container.pid, program);
      if (said !== 'PASS') return outcome('fails', `the one that went on: ${said}`);
      await remove(container.at, parseContainerId(container.id), { force: true, signal: undefined });
    }
    return await bringBack(container, program, saved, options);
  } finally {
    await agent.client.deleteCheckpoint({ checkpoint: saved, reason: 'zdtm' }, { signal: undefined }).catch(() => undefined);
  }
}

async function byRuntimeAlone(container: TestContainer, program: Program): Promise<Outcome> {
  const directory = join('/srv', container.id, 'plain');
  mkdirSync(directory, { recursive: true });
  const refused = await plainCheckpoint(container, program, directory);
  if (refused !== undefined) return outcome(program.flags.includes('crfail') ? 'rightly-refused' : 'refused-in-dump', refused);
  const { pid, failure } = await plainRestore(container, program, directory);
  if (pid === undefined) return outcome('lost', failure);
  const said = await ask(pid, program);
  return said === 'PASS' ? outcome('pass') : outcome('fails', said);
}

async function tried(container: TestContainer, program: Program, options: TrialOptions): Promise<Outcome> {
  if (options.combination.by === 'stasis') return throughStasis(container, program, options);
  if (options.combination.by === 'plain') return byRuntimeAlone(container, program);
  const said = await ask(container.pid, program);
  return said === 'PASS' ? outcome('pass') : outcome('skip', `does not pass although nobody touches it: ${said}`);
}

/** A stuck process may keep a mount busy for a moment. */
async function end(container: TestContainer): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await container.stop();
      return;
    } catch (error) {
      if (tries === CLEANUP_TRIES) throw error;
      await delay(500);
    }
  }
}

export async function trial(program: Program, options: TrialOptions): Promise<Result> {
  const started = performance.now();
  const id = `z-${program.name.replaceAll(/[^a-z0-9]/g, (sign) => (sign === '+' ? 'p' : '-')).slice(0, 40)}`;
  const result = (of: Outcome): Result => ({ name: program.name, ...of, seconds: Math.round((performance.now() - started) / 100) / 10 });
  if (options.combination.memory === 'lazy' && program.flags.includes('nolazy')) {
    return result(outcome('skip', NO_LAZINESS));
  }
  let container: TestContainer | undefined;
  try {
    const subject = await begin(options.directory, program, { runtime: options.combination.runtime, id });
    container = subject.container;
    return result(subject.skip === undefined ? await tried(container, program, options) : outcome('skip', subject.skip));
  } catch (error) {
    return result(outcome(container === undefined ? 'skip' : 'fails', explained(error)));
  } finally {
    if (container !== undefined) await end(container).catch((error: unknown) => process.stderr.write(`${id} is not removed: ${String(error)}\n`));
  }
}
