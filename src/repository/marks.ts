/**
 * Marks in a lineage: who writes, reads or removes there. A mark keeps others from deleting. One whose holder is
 * thought dead gets a fence beside it: the holder sees it and gives up, however late it wakes. See docs/FORMAT.md, "Marks".
 */
import { isStasisError, StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { asBuffer } from './format/bytes.ts';
import { fenceName, markName, parseMarkName, WRITERS, writersOf } from './format/names.ts';
import type { MarkKind } from './format/names.ts';
import { decodeWriterMark, encodeWriterMark } from './format/writer-mark.ts';
import type { WriterMark } from './format/writer-mark.ts';
import type { Store } from './store/store.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

export interface Mark {
  readonly name: string;
  readonly lineage: LineageId;
  readonly holder: CheckpointId;
  readonly kind: MarkKind;
  /** When it was set and when it was fenced, by the store's clock. Undefined: there is no such object. */
  readonly setMs: number | undefined;
  readonly fencedMs: number | undefined;
}

export class Marks {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Returns the name of the mark, which is durable then. */
  async set(lineage: LineageId, holder: CheckpointId, kind: MarkKind, { signal, reservedBytes = 0 }: Options & { reservedBytes?: number }): Promise<string> {
    const name = markName(lineage, holder, kind);
    await this.#store.put(name, [encodeWriterMark(lineage, holder, { givenUp: false, reservedBytes })], { signal });
    return name;
  }

  async fence(mark: Mark, { signal }: Options): Promise<void> {
    await this.#store.put(fenceName(mark.name), [encodeWriterMark(mark.lineage, mark.holder, { givenUp: false, reservedBytes: 0 })], { signal });
  }

  /** A writer, or its agent after a restart, gives up by itself: a put of its manifest that is still on its way must not count. */
  async giveUp(lineage: LineageId, checkpoint: CheckpointId, { signal }: Options): Promise<void> {
    await this.#store.put(fenceName(markName(lineage, checkpoint, 'write')), [encodeWriterMark(lineage, checkpoint, { givenUp: true, reservedBytes: 0 })], { signal });
  }

  async isGivenUp(name: string, { signal }: Options): Promise<boolean> {
    return (await this.#read(fenceName(name), { signal }))?.givenUp ?? false;
  }

  /** What writers that nobody takes for dead may still put into the store. */
  async reserved({ signal }: Options): Promise<Map<CheckpointId, number>> {
    const reserved = new Map<CheckpointId, number>();
    for (const { name, holder, kind, setMs, fencedMs } of await this.list(undefined, { signal })) {
      if (kind !== 'write' || setMs === undefined || fencedMs !== undefined) continue;
      reserved.set(holder, (await this.#read(name, { signal }))?.reservedBytes ?? 0);
    }
    return reserved;
  }

  async #read(name: string, { signal }: Options): Promise<WriterMark | undefined> {
    try {
      return decodeWriterMark(asBuffer(await this.#store.get(name, undefined, { signal })));
    } catch (error) {
      if (isStasisError(error, 'OBJECT_MISSING')) return undefined;
      throw error;
    }
  }

  /** Its holder is done. A fence beside it stays: it harms nobody, and prune removes it in the end. */
  async remove(name: string, { signal }: Options): Promise<void> {
    await this.#store.delete(name, { signal });
  }

  async isFenced(name: string, { signal }: Options): Promise<boolean> {
    return (await this.#store.head(fenceName(name), { signal })) !== undefined;
  }

  async unfence(name: string, { signal }: Options): Promise<void> {
    await this.#store.delete(fenceName(name), { signal });
  }

  /** Of one lineage, or of all. Strangers' files are passed over. */
  async list(lineage: LineageId | undefined, { signal }: Options): Promise<Mark[]> {
    const marks = new Map<string, { -readonly [Key in keyof Mark]: Mark[Key] }>();
    for await (const { name, modifiedMs } of this.#store.list(lineage === undefined ? WRITERS : writersOf(lineage), { signal })) {
      const parsed = parseMarkName(name);
      if (parsed === undefined) continue;
      const own = markName(parsed.lineage, parsed.holder, parsed.kind);
      const mark = marks.get(own) ?? { name: own, lineage: parsed.lineage, holder: parsed.holder, kind: parsed.kind, setMs: undefined, fencedMs: undefined };
      if (parsed.fence) mark.fencedMs = modifiedMs;
      else mark.setMs = modifiedMs;
      marks.set(own, mark);
    }
    return [...marks.values()];
  }

  /** When the mark was set, by the store's clock. Throws WRITER_FENCED when the mark was fenced or taken away. */
  async requireHeld(name: string, { signal }: Options): Promise<number> {
    // By name and not by a list: where lists lag, this does not.
    const [held, fenced] = await Promise.all([this.#store.head(name, { signal }), this.isFenced(name, { signal })]);
    if (held !== undefined && !fenced) return held.modifiedMs;
    throw new StasisError('WRITER_FENCED', `${name} was ${fenced ? 'fenced' : 'removed'}: another agent thought that its holder was dead`, {
      hint: 'try again; if the work really takes this long, raise repository.grace',
      details: { object: name },
    });
  }
}
