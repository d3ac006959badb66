/** stasis config */
import type { Command } from 'commander';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { harmless } from '../render/json.ts';
import { table } from '../render/text.ts';

export function configCommand(program: Command, io: Io): void {
  program.command('config').argument('[flags...]', 'flags of stasis-agent, such as --config FILE or --staging-size 1G').summary('show the effective configuration')
    .description('Shows the configuration that an agent would have if it were started here and now, and where each value comes from.')
    .option('--json', 'print one JSON object: the values and their origins by key')
    .allowUnknownOption()
    .addHelpText('after', exitHelp([3]))
    .action(async (flags: string[], options: { readonly json?: boolean }) => {
      const [{ loadConfig }, { parseAgentArguments }, { keys }] = await Promise.all([import('../../config/load.ts'), import('../../config/arguments.ts'), import('../../config/keys.ts')]);
      const { config, origins } = await loadConfig(parseAgentArguments(flags));
      const rows = keys.map(({ name, path }) => {
        const value = path.reduce<unknown>((node, part) => (node as Record<string, unknown>)[part], config);
        const from = origins.get(name);
        return { name, value, origin: from?.origin ?? 'default', detail: from?.detail ?? '' };
      });
      if (options.json === true) io.out(harmless(JSON.stringify(Object.fromEntries(rows.map(({ name, ...row }) => [name, row])), undefined, 2)));
      else io.out(table(columns, rows));
    });
}

interface Row {
  readonly name: string;
  readonly value: unknown;
  readonly origin: string;
  readonly detail: string;
}

const columns = [
  { title: 'KEY', value: (row: Row) => row.name },
  { title: 'VALUE', value: (row: Row) => (Array.isArray(row.value) ? row.value.join(',') : String(row.value)) || '-' },
  { title: 'FROM', value: (row: Row) => `${row.origin} ${row.detail}`.trimEnd() },
];
