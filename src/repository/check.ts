/** Is everything there that the manifests name, and what is there that none of them names? */
import { asStasisError, isStasisError } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import { ordered } from '../core/ordered.ts';
import { packObject } from './format/body.ts';
import { manifestName } from './format/names.ts';
import type { LineageCache } from './manifests.ts';
import { Packs } from './packs.ts';
import type { PruneParts } from './prune.ts';
import { isAboutObject } from './sweeper.ts';
import type { CheckReport, VerifyReport } from './types.ts';

export interface CheckOptions {
  readonly signal: AbortSignal | undefined;
  /** Every byte is read, too. */
  readonly readData: boolean;
  readonly onCheckpoint?: (done: number, total: number) => void;
}

type Verify = (id: CheckpointId, options: { signal: AbortSignal | undefined }) => Promise<VerifyReport>;
type Seen = Pick<VerifyReport, 'objects' | 'bytes' | 'problems'>;

/** Manifests that are open at the same time: each may be of 64 MiB. */
const PARALLEL = 4;
/** Checkpoints that the message of a problem names; a pack of a long lineage may be in hundreds. */
const NAMED = 3;

export async function checkRepository(parts: PruneParts, verify: Verify, { signal, readData, onCheckpoint }: CheckOptions): Promise<CheckReport> {
  const problems = new Problems();
  const packs = await Packs.list(parts.store, { signal });
  const ids = await Array.fromAsync(parts.manifests.ids({ signal, onProblem: (object, error) => problems.note(object, error) }));
  const cache: LineageCache = new Map();
  const look = async (id: CheckpointId): Promise<Seen> => {
    signal?.throwIfAborted();
    try {
      const structure = await structureOf(parts, packs, id, { signal, cache });
      const seen = readData ? await verify(id, { signal }) : structure;
      // Deleted meanwhile.
      return seen.problems.length === 0 || (await parts.manifests.exists(id, { signal })) ? seen : nothing;
    } catch (error) {
      packs.keepOf(id);
      if (isStasisError(error, 'CHECKPOINT_NOT_FOUND')) return nothing;
      if (!isAboutObject(error)) throw error;
      return { objects: 1, bytes: 0, problems: [problemOf(manifestName(id), error)] };
    }
  };
  let [sealed, objects, bytes, done] = [0, 0, 0, 0];
  for await (const seen of ordered(ids, readData ? 1 : PARALLEL, look)) {
    const id = ids[done] as CheckpointId;
    done += 1;
    // It may be for the eyes of others only.
    if (seen.problems.length > 0 && seen.problems.every(({ code }) => code === 'KEY_WRONG')) sealed += 1;
    else for (const problem of seen.problems) problems.add(problem, id);
    objects += seen.objects;
    bytes += seen.bytes;
    onCheckpoint?.(done, ids.length);
  }
  return { checkpoints: ids.length, sealed, objects, bytes, problems: problems.list(), loose: packs.loose() };
}

const nothing: Seen = { objects: 0, bytes: 0, problems: [] };

async function structureOf({ manifests, store }: PruneParts, all: Packs, id: CheckpointId, { signal, cache }: { signal: AbortSignal | undefined; cache: LineageCache }): Promise<Seen> {
  const { tables: { packs }, size } = await manifests.open(id, { signal, cache });
  const problems: VerifyReport['problems'][number][] = [];
  let bytes = size;
  for (const pack of packs) {
    const object = packObject(pack);
    // Written since the list was made, perhaps.
    const found = all.use(object) ?? (await store.head(object, { signal }))?.size;
    if (found === undefined) problems.push({ object, code: 'OBJECT_MISSING', message: `${object} is not in the store` });
    else if (found !== pack.size) problems.push({ object, code: 'OBJECT_CORRUPT', message: `${object} has ${found} bytes instead of ${pack.size}` });
    bytes += found ?? 0;
  }
  return { objects: packs.length + 2, bytes, problems };
}

/** Each object is told once, with the checkpoints that suffer. */
class Problems {
  readonly #found = new Map<string, { readonly problem: CheckReport['problems'][number]; readonly checkpoints: Set<CheckpointId> }>();

  note(object: string, error: unknown): void {
    this.add(problemOf(object, error), undefined);
  }

  add(problem: CheckReport['problems'][number], id: CheckpointId | undefined): void {
    const key = `${problem.object} ${problem.code}`;
    const known = this.#found.get(key) ?? { problem, checkpoints: new Set<CheckpointId>() };
    this.#found.set(key, known);
    if (id !== undefined && problem.object !== manifestName(id)) known.checkpoints.add(id);
  }

  list(): CheckReport['problems'] {
    return [...this.#found.values()].map(({ problem, checkpoints }) => {
      if (checkpoints.size === 0) return problem;
      const named = [...checkpoints].slice(0, NAMED).join(', ');
      const more = checkpoints.size > NAMED ? ` and ${checkpoints.size - NAMED} more` : '';
      return { ...problem, message: `${problem.message}; needed by checkpoint${checkpoints.size === 1 ? '' : 's'} ${named}${more}` };
    });
  }
}

function problemOf(object: string, error: unknown): CheckReport['problems'][number] {
  const { code, message, details } = asStasisError(error, object);
  return { object: String(details['object'] ?? object), code, message };
}
