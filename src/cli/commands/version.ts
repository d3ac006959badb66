/** stasis version */
import type { Command } from 'commander';
import { version } from '../../core/version.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';

export function versionCommand(program: Command, io: Io): void {
  program.command('version').summary('show the version of this program').description('Shows the version of this program; that of the agent is in stasis node.')
    .option('--json', 'print one JSON object')
    .action((options: { readonly json?: boolean }) => {
      io.out(options.json === true ? jsonDocument({ version, node: process.version }) : `stasis ${version}`);
    });
}
