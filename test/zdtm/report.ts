/** What the runs came to: one row for each program, a line for each verdict, and what is otherwise than expected. */
import { expectations, type Expectation } from './expectations.ts';
import { NO_LAZINESS, meanings, title, verdicts, type Combination, type Result } from './suite.ts';

export interface Run {
  readonly combination: Combination;
  readonly results: readonly Result[];
}

/** What a program may come to in a combination: a pass, unless the list of expectations says otherwise. */
function expected({ runtime, by, memory }: Combination, name: string): Expectation | undefined {
  if (by !== 'stasis') return undefined;
  return expectations.find((entry) => entry.names.includes(name) && (entry.runtime ?? runtime) === runtime && (entry.memory ?? memory) === memory);
}

/** One that passes although it was not expected to is no failure; one that does not begin any more is. */
export function unexpected({ combination, results }: Run): Result[] {
  if (combination.by !== 'stasis') return [];
  return results.filter(({ name, verdict, detail }) => {
    if (verdict === 'pass' || (verdict === 'skip' && detail === NO_LAZINESS)) return false;
    const entry = expected(combination, name);
    return verdict !== entry?.verdict || entry.says?.test(detail) === false;
  });
}

function column(cells: readonly string[]): number {
  return Math.max(...cells.map((cell) => cell.length));
}

/** The details are those of the first run. */
export function table(runs: readonly Run[]): string {
  const names = [...new Set(runs.flatMap(({ results }) => results.map(({ name }) => name)))];
  const head = ['program', ...runs.map(({ combination }) => title(combination)), 'why'];
  const rows = names.map((name) => {
    const of = runs.map(({ results }) => results.find((result) => result.name === name));
    return [name, ...of.map((result) => result?.verdict ?? '-'), of.find((result) => result !== undefined && result.detail !== '')?.detail ?? ''];
  });
  const widths = head.map((_, index) => (index === head.length - 1 ? 0 : column([head, ...rows].map((row) => row[index] ?? ''))));
  return [head, ...rows].map((row) => row.map((cell, index) => cell.padEnd(widths[index] ?? 0)).join('  ').trimEnd()).join('\n');
}

export function summary(runs: readonly Run[]): string {
  return runs.flatMap(({ combination, results }) => [
    `${title(combination)}: ${results.length} programs, ${results.filter(({ verdict }) => verdict !== 'skip').length} begin here`,
    ...verdicts.map((verdict) => `  ${String(results.filter((result) => result.verdict === verdict).length).padStart(4)}  ${meanings[verdict]}`),
  ]).join('\n');
}
