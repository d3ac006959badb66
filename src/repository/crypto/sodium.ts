/** Chooses the implementation: the fastest that this machine can load. All give the same bytes. */
import { withBulkCipher } from './bulk.ts';
import type { Sodium } from './port.ts';

export type SodiumChoice = 'auto' | Sodium['name'];

export async function loadSodium(choice: SodiumChoice): Promise<Sodium> {
  const base = choice === 'libsodium-wrappers' ? undefined : await loadNative(choice === 'sodium-native');
  const sodium = base ?? (await (await import('./portable.ts')).loadPortableSodium());
  if (choice !== 'auto' && choice !== 'bulk') return sodium;
  return withBulkCipher(sodium) ?? sodium;
}

/** Undefined where there is no prebuilt addon for this machine. */
async function loadNative(required: boolean): Promise<Sodium | undefined> {
  try {
    return (await import('./native.ts')).nativeSodium;
  } catch (error) {
    if (required) throw error;
    return undefined;
  }
}
