/**
 * Marks in a lineage: who writes, reads or removes there. A mark keeps others from deleting. One whose holder is
 * thought dead gets a fence beside it: the holder sees it and gives up, however late it wakes. See docs/FORMAT.md, "Marks".
 */
import { StasisError } from '../core/errors.ts';
import type { CheckpointId, LineageId } from '../core/ids.ts';
import { fenceName, markName, parseMarkName, WRITERS, writersOf } from './format/names.ts';
import type { MarkKind } from './format/names.ts';
import { encodeWriterMark } from './format/writer-mark.ts';
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
  async set(lineage: LineageId, holder: CheckpointId, kind: MarkKind, { signal }: Options): Promise<string> {
    const name = markName(lineage, holder, kind);
    await this.#store.put(name, [encodeWriterMark(lineage, holder)], { signal });
    return name;
  }

  async fence(mark: Mark, { signal }: Options): Promise<void> {
    await this.#store.put(fenceName(mark.name), [encodeWriterMark(mark.lineage, mark.holder)], { signal });
  }

  /** Its holder is done. A fence beside it stays: it harms nobody, and prune removes it in the end. */
  async remove(name: string, { signal }: Options): Promise<void> {
    await this.#store.delete(name, { signal });
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

  /** Throws WRITER_FENCED when the mark was fenced or taken away. */
  async requireHeld(name: string, { signal }: Options): Promise<void> {
    let [held, fenced] = [false, false];
    for await (const { name: found } of this.#store.list(name, { signal })) {
      if (found === name) held = true;
      if (found === fenceName(name)) fenced = true;
    }
    if (held && !fenced) return;
    throw new StasisError('WRITER_FENCED', `${name} was ${fenced ? 'fenced' : 'removed'}: another agent thought that its holder was dead`, {
      hint: 'try again; if the work really takes this long, raise repository.grace',
      details: { object: name },
    });
  }
}
