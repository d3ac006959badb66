/** To whom data keys are wrapped, when that is not the node alone. */
import { StasisError } from '../../core/errors.ts';
import { MAX_RECIPIENTS } from '../format/limits.ts';
import type { KeyProvider } from './port.ts';

/** `recipients`: hexadecimal X25519 public keys; none for those of the provider. Throws CONFIG_INVALID when there are too many. */
export function withRecipients(provider: KeyProvider, recipients: readonly string[]): KeyProvider {
  if (recipients.length === 0) return provider;
  const unique = [...new Set(recipients)].map((key) => Buffer.from(key, 'hex'));
  if (unique.length > MAX_RECIPIENTS) throw new StasisError('CONFIG_INVALID', `keys.recipients has ${unique.length} keys, at most ${MAX_RECIPIENTS} are possible`);
  return { description: provider.description, keys: async () => ({ ...(await provider.keys()), recipients: unique }) };
}
