/** Chooses the implementation: the addon where it loads, WebAssembly elsewhere. */
import type { Sodium } from './port.ts';

export type SodiumChoice = 'auto' | 'sodium-native' | 'libsodium-wrappers';

export async function loadSodium(choice: SodiumChoice): Promise<Sodium> {
  if (choice !== 'libsodium-wrappers') {
    try {
      return (await import('./native.ts')).nativeSodium;
    } catch (error) {
      // No prebuilt addon for this machine: the same library as WebAssembly gives the same bytes.
      if (choice === 'sodium-native') throw error;
    }
  }
  return (await import('./portable.ts')).loadPortableSodium();
}
