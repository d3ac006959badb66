/** JSON output: names in snake_case with the unit last (frozen_ms), as in logs and metrics. */

export function jsonLine(value: object): string {
  return JSON.stringify(snake(value));
}

export function jsonDocument(value: object): string {
  return JSON.stringify(snake(value), undefined, 2);
}

function snake(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snake);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), snake(child)]));
}
