/**
 * Words of a container's config.json that may be secrets. Errors quote what runtimes and hooks say, and those may quote
 * them: errors go into logs and to everybody who watches.
 */
import { StasisError } from '../core/errors.ts';
import type { OciSpec } from '../runtime/types.ts';

/** Shorter ones are no secret, and would be found everywhere. */
const SHORTEST = 6;
const HIDDEN = '[hidden]';

/** Values of variables, annotations and mount options, and arguments, also those of hooks; the longest first. Paths are none. */
export function secretsOf(spec: OciSpec): readonly string[] {
  const found = new Set<string>();
  const add = (value: unknown): void => {
    if (typeof value === 'string' && value.length >= SHORTEST && !value.startsWith('/')) found.add(value);
  };
  const addProgram = (program: unknown): void => {
    const { env, args } = (program ?? {}) as { env?: unknown; args?: unknown };
    for (const entry of list(env)) add(afterName(entry));
    for (const argument of list(args).slice(1)) {
      add(argument);
      add(afterName(argument));
    }
  };
  addProgram(spec.process);
  for (const hooks of Object.values((spec['hooks'] ?? {}) as Record<string, unknown>)) list(hooks).forEach(addProgram);
  for (const value of Object.values(spec.annotations ?? {})) add(value);
  for (const { options } of spec.mounts ?? []) for (const option of list(options)) add(afterName(option));
  return [...found].sort((a, b) => b.length - a.length);
}

/** The same error without these words. Its cause is dropped when it had one of them. */
export function withoutSecrets(error: StasisError, secrets: readonly string[]): StasisError {
  const strike = (text: string): string => secrets.reduce((rest, secret) => rest.replaceAll(secret, HIDDEN), text);
  const details = Object.fromEntries(Object.entries(error.details).map(([name, value]) => [name, typeof value === 'string' ? strike(value) : value]));
  const hint = error.hint === undefined ? undefined : strike(error.hint);
  const message = strike(error.message);
  const tells = (thrown: unknown): boolean => thrown instanceof Error && (strike(thrown.message) !== thrown.message || tells(thrown.cause));
  if (message === error.message && hint === error.hint && JSON.stringify(details) === JSON.stringify(error.details) && !tells(error.cause)) return error;
  return new StasisError(error.code, message, { hint, details, ...(tells(error.cause) ? {} : { cause: error.cause }) });
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The value of NAME=VALUE. */
function afterName(entry: unknown): string | undefined {
  return typeof entry === 'string' && entry.includes('=') ? entry.slice(entry.indexOf('=') + 1) : undefined;
}
