/** The arguments of the agent program: every key of the configuration is a flag. */
import { parseArgs } from 'node:util';
import { StasisError } from '../core/errors.ts';
import { keys, nearest } from './keys.ts';

export interface AgentArguments {
  /** For loadConfig(). */
  readonly flags: Readonly<Record<string, string>>;
  readonly file: string | undefined;
  readonly help: boolean;
  readonly version: boolean;
}

/** `argv` without the program's own names. Throws USAGE with the nearest flag as the hint. */
export function parseAgentArguments(argv: readonly string[]): AgentArguments {
  const known = [...keys.map((key) => key.flag), 'config', 'help', 'version'];
  const { tokens } = parseArgs({
    args: [...argv],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean', short: 'V' },
      config: { type: 'string' },
      ...Object.fromEntries(keys.map((key) => [key.flag, { type: 'string' as const }])),
    },
  });
  const flags: Record<string, string> = {};
  const parsed = { file: undefined as string | undefined, help: false, version: false };
  for (const token of tokens) {
    if (token.kind === 'positional') throw new StasisError('USAGE', `unexpected argument ${JSON.stringify(token.value)}`, { hint: 'stasis-agent takes only flags' });
    if (token.kind !== 'option') continue;
    if (!known.includes(token.name)) {
      const guess = nearest(token.name, known);
      throw new StasisError('USAGE', `unknown flag ${token.rawName}`, { hint: guess === undefined ? 'see stasis-agent --help' : `did you mean --${guess}?` });
    }
    if (token.name === 'help') parsed.help = true;
    else if (token.name === 'version') parsed.version = true;
    else if (token.value === undefined) throw new StasisError('USAGE', `--${token.name} needs a value`);
    else if (token.name === 'config') parsed.file = token.value;
    else flags[token.name] = token.value;
  }
  return { flags, ...parsed };
}

export function agentUsage(): string {
  const rows = keys.map((key) => `  --${key.flag} VALUE\n      ${key.meaning}`);
  return [
    'Usage: stasis-agent [--config FILE] [FLAG…]',
    'The agent of this node: checkpoints containers and restores them. Settings: flags, then STASIS_* variables,',
    'then the configuration file (/etc/stasis/agent.yaml), then defaults; "stasis config" shows them.',
    '',
    '  --config FILE\n      Configuration file (YAML) instead of /etc/stasis/agent.yaml.',
    ...rows,
    '  -h, --help\n  -V, --version',
    '',
  ].join('\n');
}
