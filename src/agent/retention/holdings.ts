/** What the repository holds for whom. Manifests never change, so each is read once. */
import type { CheckpointId } from '../../core/ids.ts';
import type { Repository } from '../../repository/types.ts';
import { podDescription } from '../description.ts';
import type { RetentionItem } from './policy.ts';

type Holding = Omit<RetentionItem, 'pinned' | 'packs'> & { readonly packs: Uint32Array; readonly storedBytes: number };

export class Holdings {
  readonly #repository: Repository;
  #known = new Map<CheckpointId, Holding>();
  /** Numbers and sizes of packs. */
  #numbers = new Map<string, number>();
  #sizes: number[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  /** What cannot be read is told to `onProblem`, each time. */
  read({ signal, onProblem }: { signal: AbortSignal; onProblem: (object: string, error: unknown) => void }): Promise<{ items: readonly Holding[]; sizes: readonly number[] }> {
    const mine = this.#turn.catch(() => undefined).then(() => this.#read(signal, onProblem));
    this.#turn = mine;
    return mine;
  }

  async #read(signal: AbortSignal, onProblem: (object: string, error: unknown) => void): Promise<{ items: readonly Holding[]; sizes: readonly number[] }> {
    const there = new Map<CheckpointId, Holding>();
    for await (const { id, footprint } of this.#repository.maintenance.footprints({ signal, onProblem, known: (one) => this.#known.has(one) })) {
      const known = this.#known.get(id);
      if (known !== undefined) there.set(id, known);
      if (footprint === undefined) continue;
      const { summary, packs } = footprint;
      try {
        const { pod } = podDescription(summary);
        there.set(id, {
          id, lineage: summary.lineage, createdMs: summary.createdMs, namespace: pod.namespace ?? '', name: pod.name,
          storedBytes: summary.bytes.stored, packs: Uint32Array.from(packs, ({ name, size }) => this.#number(name, size)),
        });
      } catch (error) {
        onProblem(`manifests/${id}`, error);
      }
    }
    // Those that were deleted leave their packs' numbers behind; when most are such, everything is numbered anew.
    const goneMany = this.#known.size > 2 * there.size + 1000;
    this.#known = goneMany ? new Map() : there;
    const result = { items: [...there.values()], sizes: this.#sizes };
    if (goneMany) [this.#numbers, this.#sizes] = [new Map(), []];
    return result;
  }

  #number(name: string, size: number): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const number = this.#sizes.push(size) - 1;
    this.#numbers.set(name, number);
    return number;
  }

  /** Bytes of a namespace: each pack that its checkpoints need, once. */
  async bytesOf(namespace: string, { signal }: { signal: AbortSignal }): Promise<number> {
    const { items, sizes } = await this.read({ signal, onProblem: () => undefined });
    const packs = new Set<number>();
    for (const item of items) if (item.namespace === namespace) for (const pack of item.packs) packs.add(pack);
    let bytes = 0;
    for (const pack of packs) bytes += sizes[pack] ?? 0;
    return bytes;
  }
}
