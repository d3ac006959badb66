/** stasis inspect CHECKPOINT */
import type { Command } from 'commander';
import { formatBytes, formatDuration } from '../../core/units.ts';
import type { CheckpointDetail } from '../../rpc/api.ts';
import { agentOptions, QUICK_MS, withAgent } from '../agent.ts';
import type { AgentOptions } from '../agent.ts';
import { exitHelp } from '../exit.ts';
import type { Io } from '../io.ts';
import { jsonDocument } from '../render/json.ts';
import { pairs, printable, table, time } from '../render/text.ts';

interface Options extends AgentOptions {
  readonly blobs?: boolean;
}

export function inspectCommand(program: Command, io: Io): void {
  const command = program.command('inspect').argument('<checkpoint>', 'id of the checkpoint').summary('show all about one checkpoint')
    .description('Shows what a checkpoint holds, where it comes from and what is not in it. Its seal and its signature are checked for it.')
    .option('--blobs', 'also every blob and its length');
  agentOptions(command).addHelpText('after', exitHelp([10, 20, 30, 31]));
  command.action((checkpoint: string, options: Options) => withAgent(options, async (agent) => {
    const detail = await agent.inspectCheckpoint({ checkpoint }, { signal: undefined, timeoutMs: QUICK_MS });
    if (options.json === true) {
      const { descriptionJson, ...rest } = detail;
      // The description is the agent's own document: its names are left as they are.
      io.out(jsonDocument({ ...rest, description: undefined }).replace(/\n\}$/, `,\n  "description": ${descriptionJson === '' ? 'null' : descriptionJson}\n}`));
    } else io.out(describe(detail, options.blobs === true));
  }));
}

function describe({ info, phases, findings, notIncluded, provenance, blobs }: CheckpointDetail, withBlobs: boolean): string {
  const { raw, zero, reused, stored } = info.bytes;
  const sections = [
    pairs([
      ['Checkpoint', info.id],
      ['Lineage', info.lineage],
      ['Parent', info.parent],
      ['Created', time(info.createdMs)],
      ['Node', info.node],
      ['Asked by', info.principal],
      ['Reason', info.reason],
      ...info.containers.map(({ id, name, runtime, rootfs }) => ['Container', `${name === id ? id : `${name} (${id})`}, ${runtime}, root file system ${rootfs}`] as const),
      ['Image', provenance.imageDigest],
      ['Afterwards', info.leftRunning ? 'left running' : 'stopped'],
      ['Frozen', formatDuration(info.frozenMs)],
      ['Bytes', `${formatBytes(raw)} raw, ${formatBytes(zero)} zero, ${formatBytes(reused)} reused, ${formatBytes(stored)} stored`],
      ['Cipher', info.cipher === 'null' ? 'null: PLAINTEXT, whoever reads the repository can read it' : info.cipher],
      ['Signer', info.signer],
      ['Made with', `stasis ${provenance.agentVersion}, criu ${provenance.criuVersion}, ${info.containers[0]?.runtime ?? 'runtime'} ${provenance.runtimeVersion}`],
      ['Kernel', `${provenance.kernel} (${provenance.architecture})`],
      ['Processor', provenance.cpuModel],
    ]),
    phases.length === 0 ? '' : table([{ title: 'PHASE', value: (row) => row.name }, { title: 'TIME', value: (row) => formatDuration(row.ms), right: true }], phases),
    ...findings.map(({ severity, message }) => `${severity}: ${printable(message)}`),
    ...notIncluded.map((item) => `not in the checkpoint: ${printable(item)}`),
    withBlobs ? table([{ title: 'BLOB', value: (row) => row.name }, { title: 'LENGTH', value: (row) => formatBytes(row.length), right: true }], blobs) : '',
  ];
  return sections.filter((section) => section !== '').join('\n\n');
}
