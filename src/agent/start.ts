/** Builds the agent from its configuration and starts it; the order is the argument of safety. */
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../core/clock.ts';
import { isStasisError, StasisError } from '../core/errors.ts';
import {
  armFailpoints, followFailpoints, noFailpoints, type FailpointEffects, type Failpoints,
} from '../core/failpoint.ts';
import { version } from '../core/version.ts';
import type { Config } from '../config/schema.ts';
import { makePrivateDirectory, readJsonFile, replaceFile } from '../host/files.ts';
import { tryLock } from '../host/libc.ts';
import { openStaging } from '../host/staging.ts';
import { BlockSlots } from '../image/lazy/index.ts';
import { TreeThreads } from '../image/tree/index.ts';
import { KeyMemory, openRepository } from '../repository/index.ts';
import type { Repository } from '../repository/types.ts';
import { serveAgent } from '../rpc/server.ts';
import type { RuntimeRoot } from '../runtime/types.ts';
import { serveTelemetry } from '../telemetry/http.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { AgentContext, AgentSettings } from './context.ts';
import { Fills } from './fills.ts';
import { Journal } from './journal.ts';
import { thawFirst } from './thaw-first.ts';
import { TreeMemories } from './tree-memories.ts';
import { Lineages } from './lineages.ts';
import { recordMetrics } from './metrics.ts';
import { knownToolchain } from './known-toolchain.ts';
import { openNodeKeys } from './node-keys.ts';
import { Operations } from './operations.ts';
import { recover } from './recover.ts';
import { namespaceQuotas, retentionPolicy } from './retention/configured.ts';
import { Rehearsals } from './rehearsals.ts';
import { Holdings } from './retention/holdings.ts';
import { Quota } from './retention/quota.ts';
import { parseSelector } from './retention/selector.ts';
import { CACHE_BYTES } from './restore/filling.ts';
import { agentHandlers } from './service.ts';
import { openStore, probe } from './store.ts';
import { StoreSpeed } from './store-speed.ts';
import { WorkingSets } from './working-sets.ts';

/** deploy/libexec of the package that this file was compiled in, wherever the build lies in it. */
function libexecDirectory(): string {
  for (let directory = dirname(fileURLToPath(import.meta.url)); directory !== '/'; directory = dirname(directory)) {
    if (existsSync(join(directory, 'deploy/libexec/stasis-guard'))) return join(directory, 'deploy/libexec');
  }
  throw new StasisError('HOST_UNSUPPORTED', 'deploy/libexec was not found beside the program', { hint: 'install the whole package: dist, deploy/libexec and node_modules' });
}

/** Calls that are still open when the agent stops get this long to hear of the end of their operation. */
const STOP_GRACE_MS = 5000;

export interface RunningAgent extends AsyncDisposable {
  readonly context: AgentContext;
}

export async function startAgent(config: Config, log: Logger, metrics: Metrics): Promise<RunningAgent> {
  requireRoot();
  await using stack = new AsyncDisposableStack();
  makePrivateDirectory(config.stateDirectory);
  makePrivateDirectory(config.runDirectory);
  stack.use(lockDirectory(config.stateDirectory));
  stack.use(lockDirectory(config.runDirectory));
  const journal = new Journal(join(config.stateDirectory, 'journal'));
  await thawFirst({ runDirectory: config.runDirectory, journal, guardScript: join(libexecDirectory(), 'stasis-guard'), log });
  const toolchain = await knownToolchain({
    criu: config.criu.binary,
    runtimes: [
      { name: 'runc', binary: config.runtimes.runc.binary }, { name: 'crun', binary: config.runtimes.crun.binary },
    ],
  }, config.runDirectory);
  log.event('node.probed', { kernel: toolchain.kernel, criu: toolchain.criu.text, runtimes: toolchain.runtimes.map(({ name, version: number }) => `${name} ${number}`) });
  for (const problem of toolchain.problems) log.event('node.problem', { problem });

  const keys = await openNodeKeys(config.keys, log);
  const store = await openStore(config.repository);
  const storeSpeed = new StoreSpeed(systemClock);
  stack.defer(() => store.close());
  const keyMemory = new KeyMemory(join(config.stateDirectory, 'lineage-keys'), (err) => log.event('keys.unwritten', { err }));
  const repository = await openRepository({ keyMemory, store: storeSpeed.watch(store), keys: keys.provider, clock: systemClock, workers: config.workers, trustedSigners: config.keys.trustedSigners, graceMs: config.repository.grace, listLagMs: config.repository.listLag, owner: agentIdentity(config.stateDirectory) });
  stack.defer(() => repository.close());
  await releaseOwn(repository);
  log.event('repository.opened', { repository: store.description });
  if (config.repository.plaintextFor.length > 0) log.event('repository.plaintext', { plaintext_for: config.repository.plaintextFor });

  const staging = stack.use(await openStaging(join(config.runDirectory, 'staging'), { sizeBytes: config.staging.size }));
  const treeThreads = stack.use(new TreeThreads());
  const failpoints = failpointsOf(config);
  const roots = runtimeRoots(config);
  const operations = new Operations({ parallel: config.operations.parallel, transfers: config.operations.transfers, clock: systemClock, failpoints });
  const holdings = new Holdings(repository);
  const context: AgentContext = {
    settings: settingsOf(config), clock: systemClock, log, failpoints, repository, staging, holdings, treeThreads, toolchain, operations,
    quota: new Quota({ repository, holdings, clock: systemClock, bytes: config.repository.quota, namespaces: namespaceQuotas(config) }),
    roots,
    journal,
    lineages: new Lineages(join(config.stateDirectory, 'lineages.json')),
    rehearsals: new Rehearsals(join(config.stateDirectory, 'rehearsals.json')),
    workingSets: new WorkingSets(join(config.stateDirectory, 'working-sets'), systemClock),
    blockSlots: new BlockSlots(CACHE_BYTES), storeSpeed,
    fills: new Fills(),
    treeMemories: new TreeMemories(join(config.stateDirectory, 'trees')),
    keys: { ...keys, trustedSigners: config.keys.trustedSigners }, storeDescription: store.description,
    probeStore: (options) => probe(config.repository, options),
    startedMs: systemClock.now(),
  };
  await recover(context);
  await staging.sweep();
  stack.use(recordMetrics(metrics, context));
  await serve(stack, config, context, metrics);
  log.event('agent.started', { version, node: config.nodeName, socket: config.socket, repository: store.description });

  const owned = stack.move();
  return { context, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Disposed of from the last to the first: no new calls, running operations undone, then the servers. */
async function serve(stack: AsyncDisposableStack, config: Config, context: AgentContext, metrics: Metrics): Promise<void> {
  let ready = true;
  if (config.metrics.listen !== '') {
    stack.use(await serveTelemetry({ listen: config.metrics.listen, metrics, logger: context.log, ready: () => ({ ready, reason: 'stopping' }) }));
  }
  const { cert, key, ca } = config.listen.tls;
  const server = await serveAgent({
    handlers: agentHandlers(context), socket: config.socket, logger: context.log, metrics, clock: context.clock,
    stallMs: config.operations.stall,
    listen: config.listen.address === '' ? undefined : { address: config.listen.address, tls: { cert, key, ca } },
  });
  server.setServing(true);
  stack.defer(() => server.close({ graceMs: STOP_GRACE_MS }));
  stack.defer(async () => {
    ready = false;
    server.setServing(false);
    await context.operations.stop();
  });
}

/** Which agent this is, over restarts: copies of a key file may be on many nodes, this file is on one. */
function agentIdentity(stateDirectory: string): string {
  const path = join(stateDirectory, 'agent-id');
  const known = readJsonFile(path);
  if (typeof known === 'string') return known;
  const fresh = randomUUID();
  replaceFile(path, JSON.stringify(fresh));
  return fresh;
}

/** On a volume that is mounted read-only there is nothing to release. */
async function releaseOwn(repository: Repository): Promise<void> {
  try {
    await repository.maintenance.releaseOwn({ signal: undefined });
  } catch (error) {
    if (!isStasisError(error, 'STORE_READ_ONLY')) throw error;
  }
}

function settingsOf(config: Config): AgentSettings {
  const libexec = libexecDirectory();
  return {
    nodeName: config.nodeName, version, stateDirectory: config.stateDirectory, runDirectory: config.runDirectory, memoryPath: config.memory.path, preDump: config.memory.preDump, rehearsal: config.rehearsal,
    freezeBudgetMs: config.freezeBudget, stopBudgetMs: config.stopBudget, operationDeadlineMs: config.operations.deadline, stallMs: config.operations.stall, ghostLimitBytes: config.ghostLimit,
    criu: config.criu.binary, plaintextFor: config.repository.plaintextFor.map(parseSelector), parallel: config.operations.parallel, quotaBytes: config.repository.quota, retention: retentionPolicy(config),
    scripts: { guard: join(libexec, 'stasis-guard'), hook: join(libexec, 'stasis-criu-hook'), restore: join(libexec, 'stasis-restore'), lazyGuard: join(libexec, 'stasis-lazy-guard'), restoreHook: join(libexec, 'stasis-restore-hook'), rehearse: join(libexec, 'stasis-rehearse'), network: join(libexec, 'stasis-network') },
  };
}

function runtimeRoots({ runtimes }: Config): RuntimeRoot[] {
  return (['runc', 'crun'] as const).flatMap((runtime) => runtimes[runtime].roots.map((root) => ({ runtime, binary: runtimes[runtime].binary, root })));
}

function failpointsOf({ testing: { failpoint } }: Config): Failpoints {
  if (failpoint === '') return noFailpoints;
  const effects: FailpointEffects = {
    signalSelf: (signal) => void process.kill(process.pid, signal), sleep: systemClock.sleep,
  };
  if (!failpoint.startsWith('@')) return armFailpoints(failpoint, effects);
  const path = failpoint.slice(1);
  return followFailpoints(() => (existsSync(path) ? readFileSync(path, 'utf8') : ''), effects);
}

function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new StasisError('HOST_UNSUPPORTED', 'the agent must run as root: it freezes and rebuilds processes of others', { hint: 'start it as root, or as a privileged DaemonSet' });
}

/** Two agents with one state or run directory would undo each other's work. The lock ends with the process. */
function lockDirectory(directory: string): Disposable {
  const path = join(directory, 'lock');
  const fd = openSync(path, 'w', 0o600);
  if (!tryLock(fd)) {
    closeSync(fd);
    throw new StasisError('AGENT_ALREADY_RUNNING', `another agent uses ${dirname(path)}`, { hint: 'stop it first, or give this one its own --state-directory and --run-directory' });
  }
  return { [Symbol.dispose]: () => closeSync(fd) };
}
