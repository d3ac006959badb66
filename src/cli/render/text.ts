/** Text on a terminal: tables, lists of pairs, and nothing that a hostile name could use against it. */

/** Names and reasons come from outside: control and format characters (escape sequences, line breaks, directions of writing) are shown, not obeyed. */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`);
}

/** Not UTF-16 units: a name outside of the basic plane would shift its row. */
function characters(text: string): number {
  return Array.from(text).length;
}

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly right?: boolean;
}

/** Columns as wide as their widest value, two spaces between, no space at the end of a line. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ value }) => printable(value(row))))];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => characters(line[i] ?? ''))));
  const pad = (text: string, i: number): string => {
    const fill = ' '.repeat((widths[i] ?? 0) - characters(text));
    return columns[i]?.right === true ? fill + text : text + fill;
  };
  return cells.map((line) => line.map(pad).join('  ').trimEnd()).join('\n');
}

/** "name:   value" lines; absent values are left out. */
export function pairs(entries: readonly (readonly [string, string | undefined])[]): string {
  const shown = entries.filter((entry): entry is readonly [string, string] => entry[1] !== undefined && entry[1] !== '');
  const width = Math.max(0, ...shown.map(([name]) => name.length)) + 2;
  return shown.map(([name, value]) => `${`${name}:`.padEnd(width)}${printable(value)}`).join('\n');
}

/** Local time to the second, as `ls` shows it. */
export function time(ms: number): string {
  const date = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
