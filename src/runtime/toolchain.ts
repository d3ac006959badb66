/** What is installed on this node and what it can do. */
import { release } from 'node:os';
import { StasisError, isStasisError } from '../core/errors.ts';
import { run } from '../host/process.ts';
import { printable } from './text.ts';
import type { RuntimeName, Toolchain } from './types.ts';

export type Version = readonly [number, number, number];

export interface ToolchainOptions {
  /** A name on the PATH or an absolute path. runc and crun look for `criu` on the PATH themselves. */
  readonly criu: string;
  readonly runtimes: readonly { readonly name: RuntimeName; readonly binary: string }[];
}

/** `criu check --feature` names that decide something, or that a person with a problem is asked for. */
const FEATURES = [
  'mem_dirty_track', 'uffd', 'uffd-noncoop', 'external_net_ns', 'network_lock_nftables', 'has_ipt_legacy', 'get_rseq_conf', 'pagemap_scan', 'overlayfs_maps',
] as const;

/** A node in its worst minute is slow, not without criu. */
const TIMEOUT_MS = 120_000;

/** "4.2.1", "runc version 1.3.6+ds1", "6.18.5-generic" → the first two or three numbers. */
export function parseVersion(text: string): Version | undefined {
  const match = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
}

export function atLeast(version: Version, wanted: readonly number[]): boolean {
  for (const [index, number] of wanted.entries()) {
    const have = version[index] ?? 0;
    if (have !== number) return have > number;
  }
  return true;
}

interface Probe {
  readonly signal: AbortSignal | undefined;
}

async function criuVersion(binary: string, { signal }: Probe): Promise<Toolchain['criu']> {
  const { stdout, stderr } = await run(binary, ['--version'], { signal, timeoutMs: TIMEOUT_MS });
  const text = /^Version:\s*(\S+)/m.exec(stdout)?.[1] ?? '';
  const version = parseVersion(text);
  if (version === undefined) {
    throw new StasisError('HOST_UNSUPPORTED', `${binary} --version does not tell its version: ${printable(`${stdout} ${stderr}`.trim())}`, { hint: 'install criu 4.2 or newer' });
  }
  return { version, text };
}

async function runtimeVersion(name: RuntimeName, binary: string, { signal }: Probe): Promise<Toolchain['runtimes']> {
  try {
    const { status, stdout } = await run(binary, ['--version'], { signal, timeoutMs: TIMEOUT_MS });
    const version = new RegExp(`^${name} version (\\S+)`, 'm').exec(stdout)?.[1];
    const versionNumbers = version === undefined ? undefined : parseVersion(version);
    if (status !== 0 || version === undefined || versionNumbers === undefined) return [];
    return [{ name, binary, version, versionNumbers }];
  } catch (error) {
    // A node rarely has both runtimes.
    if (isStasisError(error, 'HOST_UNSUPPORTED')) return [];
    throw error;
  }
}

async function hasFeature(binary: string, feature: string, { signal }: Probe): Promise<readonly [string, boolean]> {
  const { status } = await run(binary, ['check', '--feature', feature], { signal, timeoutMs: TIMEOUT_MS });
  return [feature, status === 0];
}

/** A criu that was built without libbpf does not hold the words with which it would refuse a BPF map. */
const BPF_WORDS = 'does not currently support dumping BPF map type';

async function savesBpfMaps(binary: string, { signal }: Probe): Promise<boolean> {
  const search = 'grep -qF "$1" "$(command -v "$2")"';
  return (await run('sh', ['-c', search, 'sh', BPF_WORDS, binary], { signal, timeoutMs: TIMEOUT_MS })).status === 0;
}

/** Among the features: tar keeps extended attributes and ACLs. One that was built without them says so, and goes on. */
export const TAR_ATTRIBUTES = 'tar_attributes';

async function tarKeepsAttributes({ signal }: Probe): Promise<boolean> {
  const options = [
    '--xattrs', '--xattrs-include=*', '--acls', '--create', '--file=/dev/null', '--directory=/', '--no-recursion', '.',
  ];
  try {
    const { status, stderr } = await run('tar', options, { signal, timeoutMs: TIMEOUT_MS });
    return status === 0 && stderr.trim() === '';
  } catch (error) {
    if (isStasisError(error, 'HOST_UNSUPPORTED')) return false;
    throw error;
  }
}

async function criuProblems(binary: string, { signal }: Probe): Promise<string[]> {
  const { status, stdout, stderr } = await run(binary, ['check'], { signal, timeoutMs: TIMEOUT_MS });
  if (status === 0) return [];
  const lines = `${stdout}\n${stderr}`.split('\n').map((line) => line.trim()).filter((line) => line !== '' && !line.includes('RLIMIT_NOFILE'));
  return lines.length > 0 ? lines.slice(0, 10).map(printable) : [`criu check ended with status ${status}`];
}

/**
 * Takes about a tenth of a second of a quiet node. Throws HOST_UNSUPPORTED when criu is not installed; a runtime that
 * is missing is left out.
 */
export async function probeToolchain(options: ToolchainOptions, probe: Probe): Promise<Toolchain> {
  const [criu, bpfMaps, tarAttributes, problems, features, runtimes] = await Promise.all([
    criuVersion(options.criu, probe),
    savesBpfMaps(options.criu, probe),
    tarKeepsAttributes(probe),
    criuProblems(options.criu, probe),
    Promise.all(FEATURES.map((feature) => hasFeature(options.criu, feature, probe))),
    Promise.all(options.runtimes.map(({ name, binary }) => runtimeVersion(name, binary, probe))),
  ]);
  return {
    criu, kernel: release(), runtimes: runtimes.flat(), problems,
    features: { ...Object.fromEntries(features), bpf_maps: bpfMaps, [TAR_ATTRIBUTES]: tarAttributes },
  };
}
