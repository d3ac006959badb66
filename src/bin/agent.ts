/** stasis-agent: reads the configuration, builds the agent, runs it until it is told to stop. */
import { agentUsage, parseAgentArguments } from '../config/arguments.ts';
import { loadConfig } from '../config/load.ts';
import { forbidDumps } from '../host/hardening.ts';
import { giveBackFreedMemory } from '../host/libc.ts';
import { startAgent } from '../agent/start.ts';
import { asStasisError, errorTable } from '../core/errors.ts';
import { version } from '../core/version.ts';
import { createLogger, type Logger } from '../telemetry/logger.ts';
import { createMetrics } from '../telemetry/metrics.ts';

/** sysexits.h EX_SOFTWARE: an error that nobody caught. */
const EXIT_CRASHED = 70;

async function main(): Promise<number> {
  forbidDumps();
  giveBackFreedMemory();
  const parsed = parseAgentArguments(process.argv.slice(2));
  if (parsed.help || parsed.version) {
    process.stdout.write(parsed.help ? agentUsage() : `stasis-agent ${version}\n`);
    return 0;
  }
  const { config, origins } = await loadConfig({ flags: parsed.flags, file: parsed.file });
  const log = createLogger(config.log.level);
  crashLoudly(log);
  log.event('config.loaded', { set: [...origins].filter(([, { origin }]) => origin !== 'default').map(([name]) => name) });
  const stopped = stopSignal();
  // With --disable-sigusr1 it opens no inspector any more, but would end the process.
  process.on('SIGUSR1', () => undefined);
  {
    await using _agent = await startAgent(config, log, createMetrics());
    const reason = await stopped;
    log.event('agent.stopping', { reason });
  }
  log.event('agent.stopped');
  return 0;
}

/** The first signal asks, the second one insists: what is frozen is then left to its guards. */
function stopSignal(): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let asked = false;
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (asked) process.exit(errorTable.AGENT_STOPPING.exit);
      asked = true;
      resolve(name);
    });
  }
  return promise;
}

/** A bug ends the agent at once: its guards thaw, the journal tells the next one what to clean up. */
function crashLoudly(log: Logger): void {
  const crash = (error: unknown): void => {
    log.event('agent.crashed', { err: error });
    process.exit(EXIT_CRASHED);
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
}

main().then(
  (status) => process.exit(status),
  (thrown: unknown) => {
    const error = asStasisError(thrown, 'the agent could not start');
    process.stderr.write(`stasis-agent: error: ${error.message}\n${error.hint === undefined ? '' : `stasis-agent: hint: ${error.hint}\n`}`);
    process.exit(errorTable[error.code].exit);
  },
);
