/**
 * Where the command line finds the agent: its own flags, then STASIS_* variables, then `socket` of the agent's
 * configuration file, then the default. Kept apart from load.ts, so that `stasis ps` need not load a validator.
 */
import { readFile } from 'node:fs/promises';
import { StasisError } from '../core/errors.ts';

export type ClientTarget =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tls'; readonly address: string; readonly cert: string; readonly key: string; readonly ca: string; readonly serverName: string | undefined };

export interface ClientFlags {
  readonly socket?: string;
  readonly address?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly tlsServerName?: string;
}

const defaultSocket = '/run/stasis/agent.sock';
const defaultConfigFile = '/etc/stasis/agent.yaml';

/** Throws USAGE when an address comes without its certificates, or together with a socket. */
export async function clientTarget(flags: ClientFlags, env: Readonly<Record<string, string | undefined>> = process.env): Promise<ClientTarget> {
  if (flags.socket !== undefined && flags.address !== undefined) {
    throw new StasisError('USAGE', '--socket and --address exclude each other', { hint: 'name the one agent that you mean' });
  }
  if (flags.socket !== undefined) return { kind: 'unix', path: flags.socket };
  const variable = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const address = flags.address ?? variable('STASIS_ADDRESS');
  if (address === undefined) return { kind: 'unix', path: variable('STASIS_SOCKET') ?? (await socketOfConfigFile(variable('STASIS_CONFIG') ?? defaultConfigFile)) ?? defaultSocket };
  const cert = flags.tlsCert ?? variable('STASIS_TLS_CERT');
  const key = flags.tlsKey ?? variable('STASIS_TLS_KEY');
  const ca = flags.tlsCa ?? variable('STASIS_TLS_CA');
  if (cert === undefined || key === undefined || ca === undefined) {
    throw new StasisError('USAGE', `${address} can only be reached with mutual TLS`, { hint: 'give --tls-cert, --tls-key and --tls-ca (or STASIS_TLS_CERT, STASIS_TLS_KEY, STASIS_TLS_CA)' });
  }
  return { kind: 'tls', address, cert, key, ca, serverName: flags.tlsServerName ?? variable('STASIS_TLS_SERVER_NAME') };
}

/** Whether talk may be coloured: https://no-color.org, and dumb terminals. */
export function wantsColour(env: Readonly<Record<string, string | undefined>> = process.env): boolean {
  return (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
}

/** A file that cannot be read or parsed says nothing: `stasis config` is there to complain about it. */
async function socketOfConfigFile(file: string): Promise<string | undefined> {
  try {
    const text = await readFile(file, 'utf8');
    if (!/^socket\s*:/m.test(text)) return undefined;
    const { parse } = await import('yaml');
    const socket: unknown = (parse(text) as Record<string, unknown> | null)?.['socket'];
    return typeof socket === 'string' ? socket : undefined;
  } catch {
    return undefined;
  }
}
