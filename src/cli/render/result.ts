/** What checkpoint, restore and inspect show alike. */
import { formatDuration } from '../../core/units.ts';
import type { Finding, Phase } from '../../rpc/api.ts';
import type { Io } from '../io.ts';
import { printable, table } from './text.ts';

/** Phases, their sum, and further rows below a rule. */
export function phaseTable(phases: readonly Phase[], totalMs: number, more: readonly (readonly [string, string])[]): string {
  const rows: (readonly [string, string])[] = [...phases.map(({ name, ms }) => [name, formatDuration(ms)] as const), ['total', formatDuration(totalMs)], ...more];
  return table<readonly [string, string]>([{ title: 'PHASE', value: ([name]) => name }, { title: 'VALUE', value: ([, value]) => value, right: true }], rows);
}

export function tellFindings(io: Io, findings: readonly Finding[]): void {
  for (const finding of findings) {
    io.talk(`stasis: ${finding.severity === 'fatal' ? 'error' : 'warning'}: ${printable(finding.message)}`);
    if (finding.hint !== '') io.talk(`stasis: hint: ${printable(finding.hint)}`);
  }
}
