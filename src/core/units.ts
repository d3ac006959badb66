/** Sizes and durations as people write them. Sizes are powers of 1024, as the Kubernetes "Mi" suffixes are. */
import { StasisError } from './errors.ts';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

const sizeFactors: Readonly<Record<string, number>> = { '': 1, K: KiB, M: MiB, G: GiB, T: 1024 * GiB };

/** "512", "64M", "64Mi", "64MiB", "1.5G" → bytes. */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B?)$/i.exec(text.trim());
  const factor = sizeFactors[(match?.[2] ?? '').toUpperCase()];
  const bytes = Math.round(Number(match?.[1]) * (factor ?? Number.NaN));
  if (!Number.isSafeInteger(bytes)) {
    throw new StasisError('USAGE', `${JSON.stringify(text)} is not a size`, { hint: 'write a size as 64M, 1.5G or a number of bytes' });
  }
  return bytes;
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)} ${units[unit]}`;
}

const timeFactors: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** "250ms", "30s", "2m", "1h" → milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text.trim());
  const ms = Math.round(Number(match?.[1]) * (timeFactors[match?.[2] ?? ''] ?? Number.NaN));
  if (!Number.isSafeInteger(ms)) {
    throw new StasisError('USAGE', `${JSON.stringify(text)} is not a duration`, { hint: 'write a duration as 250ms, 30s, 2m or 1h' });
  }
  return ms;
}

export function formatDuration(ms: number): string {
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`;
  const minutes = Math.floor(ms / 60_000);
  return `${minutes} min ${Math.round((ms - minutes * 60_000) / 1000)} s`;
}
