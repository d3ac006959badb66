/** The table at the end of the demo: one column for each operation. */
import { formatBytes, formatDuration } from '../../src/core/units.ts';
import type { Chapter } from './story.ts';
import type { Phase } from './stasis.ts';

export function resultTable(chapters: readonly Chapter[]): string {
  const rows: string[][] = [['', ...chapters.map(({ title }) => title)]];
  const add = (title: string, value: (chapter: Chapter) => string | undefined): void => {
    const values = chapters.map((chapter) => value(chapter) ?? '-');
    rows.push([title, ...values]);
  };
  const phases = (title: string, of: (chapter: Chapter) => readonly Phase[]): void => {
    for (const name of new Set(chapters.flatMap((chapter) => of(chapter).map((phase) => phase.name)))) {
      add(`  ${title} ${name}`, (chapter) => duration(of(chapter).find((phase) => phase.name === name)?.ms));
    }
  };
  phases('checkpoint:', ({ checkpoint }) => checkpoint.phases);
  add('checkpoint, durable', ({ checkpoint }) => duration(checkpoint.total_ms));
  add('frozen', ({ checkpoint }) => duration(checkpoint.frozen_ms));
  add('raw', ({ checkpoint }) => formatBytes(checkpoint.bytes.raw));
  add('stored', ({ checkpoint }) => formatBytes(checkpoint.bytes.stored));
  add('ratio', ({ checkpoint }) => checkpoint.ratio.toFixed(2));
  add('MB/s', ({ checkpoint }) => (checkpoint.bytes_per_second / 1e6).toFixed(0));
  phases('restore:', ({ restore }) => restore?.phases ?? []);
  add('restore, running', ({ restore }) => duration(restore?.total_ms));
  add('MB/s', ({ restore }) => (restore === undefined ? undefined : (restore.bytes_per_second / 1e6).toFixed(0)));
  add('downtime', ({ restore }) => duration(restore?.downtime_ms));
  return align(rows);
}

function duration(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : formatDuration(ms);
}

/** The first column to the left, the others to the right. */
export function align(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart((widths[column] ?? 0) + 2))).join('').trimEnd()).join('\n');
}
