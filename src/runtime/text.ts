/** Names that containers choose themselves, made fit for a line of text. */
const MAX_LENGTH = 255;

/** Control characters (terminal escapes, newlines) become "?"; cut at 255 characters. */
export function printable(text: string): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
  return clean.length > MAX_LENGTH ? `${clean.slice(0, MAX_LENGTH - 1)}…` : clean;
}
