/** What a restore on another machine must compare: the processor, as /proc/cpuinfo names its features. */
import { readFileSync } from 'node:fs';
import { StasisError } from '../core/errors.ts';

export interface CpuDescription {
  readonly model: string;
  readonly features: readonly string[];
}

/**
 * Features whose absence makes a restored program fail: instruction sets and the register state that criu saves.
 * Others (power management, mitigations, virtualisation) may differ.
 */
const relevant = /^(sse|ssse|avx|amx|aes|fma|f16c|bmi|sha|vaes|vpclmul|pclmul|movbe|popcnt|rdrand|rdseed|adx|xsave|fsgsbase|pku|erms|lzcnt|abm|asimd|sve|crc32|atomics)/;

export function parseCpuInfo(text: string): CpuDescription {
  const model = /^model name\s*:\s*(.*)$/m.exec(text)?.[1] ?? '';
  const features = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1]?.split(' ') ?? [];
  return { model, features: features.filter((name) => relevant.test(name)).sort() };
}

export function cpuDescription(): CpuDescription {
  return parseCpuInfo(readFileSync('/proc/cpuinfo', 'utf8'));
}

/** Throws RESTORE_INCOMPATIBLE when this processor lacks what the saved program may already use. */
export function requireCpu(saved: CpuDescription, architecture: string): void {
  if (architecture !== process.arch) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `the checkpoint is of architecture ${architecture}, this node is ${process.arch}`);
  }
  const here = new Set(cpuDescription().features);
  const missing = saved.features.filter((feature) => !here.has(feature));
  if (missing.length > 0) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `this node's processor lacks ${missing.join(', ')}, which the checkpointed program may use`, {
      hint: `restore on a node with the features of ${saved.model || 'the original processor'}`,
    });
  }
}
