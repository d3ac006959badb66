/** The keys of this node, from where the configuration says. */
import { systemClock } from '../core/clock.ts';
import { StasisError } from '../core/errors.ts';
import type { Config } from '../config/schema.ts';
import { runCommand, type CommandResult } from '../host/command.ts';
import { commandKeyProvider, directoryKeyProvider, fileKeyProvider, withRecipients, type KeyProvider } from '../repository/index.ts';
import type { Logger } from '../telemetry/logger.ts';

/** The largest answer is a data key or a signature of some hundred bytes; a key document has less than 4 KiB. */
const MAX_ANSWER_BYTES = 64 * 1024;

export interface OpenedKeys {
  /** With the recipients of the configuration. */
  readonly provider: KeyProvider;
  /** The node's own, whatever new data keys are wrapped to. */
  readonly own: KeyProvider;
}

export async function openNodeKeys(keys: Config['keys'], log: Logger): Promise<OpenedKeys> {
  const own = await openProvider(keys, log);
  return { own, provider: withRecipients(own, keys.recipients) };
}

function openProvider(keys: Config['keys'], log: Logger): Promise<KeyProvider> {
  const onProblem = (error: StasisError): void => log.event('keys.stale', { provider: keys.provider, err: error });
  switch (keys.provider) {
    case 'file':
      return openFile(keys, log);
    case 'directory':
      return directoryKeyProvider({ path: keys.directory, current: keys.current, clock: systemClock, onProblem });
    case 'exec': {
      const description = `key command ${keys.command[0]}`;
      return commandKeyProvider({
        description, clock: systemClock, cacheMs: keys.commandCache, onProblem,
        run: async (input) => answerOf(description, await runCommand(keys.command, input, { timeoutMs: keys.commandTimeout, maxBytes: MAX_ANSWER_BYTES }), keys.commandTimeout),
        signing: async () => (await openFile(keys, log)).keys(),
      });
    }
  }
}

function openFile({ file }: Config['keys'], log: Logger): Promise<KeyProvider> {
  return fileKeyProvider(file, { onCreated: ({ recipient, signer }) => log.event('key.created', { file, recipient, signer }) });
}

/** What the command said on its standard error is the cause, and in no message: it goes no further than the log. */
function answerOf(description: string, result: CommandResult, timeoutMs: number): Uint8Array {
  if (result.kind === 'ended' && result.status === 0) return result.stdout;
  const why = {
    ended: () => `failed with status ${(result as { status: number }).status}`,
    timeout: () => `did not answer within ${timeoutMs} ms and was killed`,
    'too-much': () => `answered more than ${MAX_ANSWER_BYTES} bytes and was killed`,
    killed: () => 'was killed by somebody',
    unstartable: () => `cannot be started: ${(result as { code: string }).code}`,
  }[result.kind]();
  throw new StasisError('KEY_UNAVAILABLE', `${description} ${why}`, {
    hint: result.kind === 'timeout' ? 'is what it asks within reach? keys.commandTimeout bounds it' : "run it by hand; its standard error is in the agent's log",
    ...(result.stderr === '' ? {} : { cause: new Error(result.stderr) }),
  });
}
