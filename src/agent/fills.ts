/** Containers of this agent whose memory still arrives: they cannot be checkpointed, and their checkpoint cannot be removed. */
import { StasisError } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import type { Container } from '../runtime/types.ts';

export interface Fill {
  readonly checkpoint: CheckpointId;
  readonly totalBytes: number;
  readonly filledBytes: number;
}

type Name = Pick<Container, 'id' | 'at'>;

export class Fills {
  readonly #fills = new Map<string, Fill>();

  of(container: Name): Fill | undefined {
    return this.#fills.get(key(container));
  }

  add(container: Name, fill: Fill): Disposable {
    this.#fills.set(key(container), fill);
    return { [Symbol.dispose]: () => void this.#fills.delete(key(container)) };
  }

  /** Throws NOT_CHECKPOINTABLE. */
  requireFilled(container: Name): void {
    const fill = this.of(container);
    if (fill === undefined) return;
    throw new StasisError('NOT_CHECKPOINTABLE', `container ${container.id} is still filling: ${percent(fill)} % of its memory has arrived`, {
      hint: 'wait until stasis ps does not say filling any more', details: { filled: fill.filledBytes, total: fill.totalBytes },
    });
  }

  /** Throws CHECKPOINT_IN_USE when pages of it are still to come. */
  requireUnused(checkpoint: CheckpointId): void {
    for (const [name, fill] of this.#fills) {
      if (fill.checkpoint !== checkpoint) continue;
      throw new StasisError('CHECKPOINT_IN_USE', `checkpoint ${checkpoint} is still needed: ${name} is filled from it`, { hint: 'wait until stasis ps does not say filling any more' });
    }
  }
}

function key({ id, at }: Name): string {
  return `${at.root}/${id}`;
}

/** Pages that the program has given back are never asked for, so it may end before 100. */
export function percent({ filledBytes, totalBytes }: Pick<Fill, 'filledBytes' | 'totalBytes'>): number {
  return totalBytes === 0 ? 100 : Math.min(100, Math.floor((filledBytes * 100) / totalBytes));
}
