/** scripts/test --suite zdtm: CRIU's own functional tests, each in a container of its own, through an agent or by the runtime alone. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { repositoryRoot } from '../config/repository-root.ts';
import { makeHome, removeHome, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { summary, table, unexpected, type Run } from './report.ts';
import { readList, title, type Combination, type Program, type Result } from './suite.ts';
import { trial } from './trial.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    programs: { type: 'string', default: '/mnt' }, runtime: { type: 'string', default: 'runc' }, memory: { type: 'string', default: 'eager' },
    mode: { type: 'string', default: 'stop' }, by: { type: 'string', default: 'stasis,plain' }, jobs: { type: 'string', default: '2' }, resume: { type: 'boolean', default: false },
  },
});

/** Comma-separated words of a few. */
function words<T extends string>(name: string, text: string, allowed: readonly T[]): T[] {
  const chosen = text.split(',');
  const found = allowed.filter((word) => chosen.includes(word));
  if (found.length === chosen.length) return found;
  process.stderr.write(`stasis: --${name} takes ${allowed.join(', ')}, not ${text}\n`);
  process.exit(2);
}

/** What the runtime does by itself depends neither on lazy memory nor on the mode; crun has no lazy restore. */
function combinations(): Combination[] {
  const chosen: Combination[] = [];
  const runtimes = words('runtime', values.runtime, ['runc', 'crun']);
  const ways = words('by', values.by, ['stasis', 'plain', 'none']);
  for (const runtime of runtimes) {
    for (const by of ways) {
      const memories = words('memory', values.memory, ['eager', 'lazy']);
      const modes = words('mode', values.mode, ['stop', 'leave-running']);
      if (by !== 'stasis') chosen.push({ runtime, by, memory: 'eager', mode: 'stop' });
      else for (const memory of memories) for (const mode of modes) if (runtime === 'runc' || memory === 'eager') chosen.push({ runtime, by, memory, mode });
    }
  }
  return chosen;
}

/** One line a result, so that a run that was broken off can go on. */
function resultsFile(combination: Combination): string {
  return join(repositoryRoot(), '.cache/zdtm', `${title(combination)}.jsonl`);
}

function earlier(file: string): Map<string, Result> {
  if (!values.resume || !existsSync(file)) return new Map();
  const lines = readFileSync(file, 'utf8').split('\n').filter((line) => line !== '');
  return new Map(lines.map((line) => JSON.parse(line) as Result).map((result) => [result.name, result]));
}

/** The agent of the run; another one when it has died, which fails the program that it was busy with. */
function livingAgent(home: AgentHome): () => Promise<TestAgent> {
  const start = async (): Promise<TestAgent> => {
    const agent = await startAgent(home);
    void agent.exited.then(() => { current = undefined; });
    return agent;
  };
  let current: Promise<TestAgent> | undefined;
  return async () => await (current ??= start());
}

async function runAll(programs: readonly Program[], combination: Combination, agent: () => Promise<TestAgent>): Promise<Run> {
  const file = resultsFile(combination);
  mkdirSync(dirname(file), { recursive: true });
  const results = earlier(file);
  if (!values.resume) rmSync(file, { force: true });
  const waiting = programs.filter(({ name }) => !results.has(name));
  const worker = async (): Promise<void> => {
    for (let program = waiting.shift(); program !== undefined; program = waiting.shift()) {
      const result = await trial(program, { directory: values.programs, agent: await agent(), combination });
      results.set(program.name, result);
      appendFileSync(file, `${JSON.stringify(result)}\n`);
      process.stdout.write(`${title(combination)}  ${result.name}  ${result.verdict}  ${result.seconds} s  ${result.detail}\n`);
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
  return { combination, results: programs.flatMap(({ name }) => results.get(name) ?? []) };
}

const wanted = new Set(positionals);
const programs = readList(values.programs).filter(({ name, flags }) => (wanted.size === 0 ? !flags.includes('noauto') : wanted.has(name)));
const home = makeHome();
const runs: Run[] = [];
try {
  const agent = livingAgent(home);
  for (const combination of combinations()) runs.push(await runAll(programs, combination, agent));
  await (await agent()).stop();
} finally {
  await removeHome(home);
}
process.stdout.write(`\n${table(runs)}\n\n${summary(runs)}\n`);
const judged = runs.filter(({ combination }) => combination.by === 'stasis');
const failed = judged.flatMap((run) => unexpected(run).map((result) => ({ ...result, where: title(run.combination) })));
for (const { where, name, verdict, detail } of failed) process.stdout.write(`not as expected: ${where}  ${name}  ${verdict}  ${detail}\n`);
const counted = judged.flatMap(({ results }) => results).filter(({ verdict }) => verdict !== 'skip').length;
process.stdout.write(`${counted - failed.length} passed, ${failed.length} failed\n`);
process.exitCode = failed.length === 0 ? 0 : 1;
