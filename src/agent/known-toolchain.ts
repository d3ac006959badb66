/**
 * What is installed on the node, asked of its programs once a boot: some fourteen processes, which an agent that starts
 * again on a busy node should not wait for. The answer is kept in the run directory, which is gone after a boot, and
 * asked anew when a program is another file, or this process may do more or less than the one that asked.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { version } from '../core/version.ts';
import { readJsonFile, replaceFile } from '../host/files.ts';
import { bootId, readStatus } from '../host/proc.ts';
import { fileStamp, programStamp } from '../host/programs.ts';
import { probeToolchain, type ToolchainOptions } from '../runtime/index.ts';
import type { Toolchain } from '../runtime/types.ts';

interface Known {
  readonly key: string;
  readonly toolchain: Toolchain;
}

/** Linked into criu, and replaced without it. */
const LIBRARIES = '/etc/ld.so.cache';

function keyOf({ criu, runtimes }: ToolchainOptions): string {
  const status = readStatus('self');
  const parts = [
    version, bootId(), programStamp(criu), runtimes.map(({ name, binary }) => [name, binary, programStamp(binary)]),
    programStamp('tar'), fileStamp(LIBRARIES),
    ['CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp_filters'].map((name) => status?.get(name)),
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

/** Throws HOST_UNSUPPORTED when criu is not installed. */
export async function knownToolchain(options: ToolchainOptions, runDirectory: string): Promise<Toolchain> {
  const path = join(runDirectory, 'toolchain.json');
  const key = keyOf(options);
  const known = readJsonFile(path) as Known | undefined;
  if (known?.key === key) return known.toolchain;
  const toolchain = await probeToolchain(options, { signal: undefined });
  // A problem, or a program that is missing, may be mended at any moment.
  if (toolchain.problems.length > 0 || toolchain.runtimes.length === 0) return toolchain;
  try {
    replaceFile(path, JSON.stringify({ key, toolchain } satisfies Known));
  } catch {
    // It is asked again then.
  }
  return toolchain;
}
