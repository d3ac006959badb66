/** All packs of a store and which of them are needed: one list instead of a question for each; some 200 bytes of memory for each. */
import type { CheckpointId } from '../core/ids.ts';
import { checkpointOfPack, PACKS } from './format/names.ts';
import type { Store } from './store/store.ts';

export class Packs {
  readonly #sizes: ReadonlyMap<string, number>;
  readonly #used = new Set<string>();
  readonly #kept = new Set<CheckpointId>();

  private constructor(sizes: ReadonlyMap<string, number>) {
    this.#sizes = sizes;
  }

  /** To be made before the manifests are listed: who writes puts packs first. */
  static async list(store: Store, { signal }: { signal: AbortSignal | undefined }): Promise<Packs> {
    const sizes = new Map<string, number>();
    for await (const { name, size } of store.list(PACKS, { signal })) sizes.set(name, size);
    return new Packs(sizes);
  }

  get count(): number {
    return this.#sizes.size;
  }

  get bytes(): number {
    return this.#sizes.values().reduce((sum, size) => sum + size, 0);
  }

  /** Its size, undefined when it was not there. A manifest names it. */
  use(name: string): number | undefined {
    const size = this.#sizes.get(name);
    if (size !== undefined) this.#used.add(name);
    return size;
  }

  /** Nobody knows what this checkpoint names; what its writer wrote, at least. */
  keepOf(checkpoint: CheckpointId): void {
    this.#kept.add(checkpoint);
  }

  /** What no manifest names: of checkpoints in the making, or garbage. */
  loose(): { packs: number; bytes: number } {
    const loose = { packs: 0, bytes: 0 };
    for (const [name, size] of this.#sizes) {
      const checkpoint = checkpointOfPack(name);
      if (this.#used.has(name) || (checkpoint !== undefined && this.#kept.has(checkpoint))) continue;
      loose.packs += 1;
      loose.bytes += size;
    }
    return loose;
  }
}
