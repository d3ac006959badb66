/** JSON output: names in snake_case with the unit last (frozen_ms), as in logs and metrics. */

export function jsonLine(value: object): string {
  return harmless(JSON.stringify(snake(value)));
}

export function jsonDocument(value: object): string {
  return harmless(JSON.stringify(snake(value), undefined, 2));
}

/**
 * JSON that a terminal shows and does not obey: control characters of C1, format characters (directions of writing, what is not
 * seen) and separators of lines as \\uXXXX, those of C0 JSON.stringify escapes. For a parser it is the same.
 */
export function harmless(json: string): string {
  return json.replaceAll(/[\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`).join(''));
}

function snake(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snake);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), snake(child)]));
}
