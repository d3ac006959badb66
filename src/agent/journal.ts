/**
 * What a dead agent leaves for the next one: a file for each operation in progress, written before every step that
 * has an effect outside this process, removed when the operation has ended and cleaned up.
 */
import { join } from 'node:path';
import type { CheckpointId, ContainerId, LineageId, OperationId } from '../core/ids.ts';
import { listDirectory, makePrivateDirectory, readJsonFile, removeTree, replaceFile } from '../host/files.ts';
import type { RuntimeRoot } from '../runtime/types.ts';
import type { LinkRemaps } from './checkpoint/link-remaps.ts';

export interface CheckpointRecord {
  readonly kind: 'checkpoint';
  readonly operation: OperationId;
  readonly step: string;
  readonly checkpoint: CheckpointId;
  readonly lineage: LineageId;
  readonly stop: boolean;
  readonly container: { readonly id: ContainerId; readonly at: RuntimeRoot; readonly pid: number; readonly pidStart: number };
  readonly guardDirectory: string;
  readonly stagingDirectory: string;
  /** Agents before 0.2 wrote none. */
  readonly linkRemaps?: LinkRemaps;
}

export interface RestoreRecord {
  readonly kind: 'restore';
  readonly operation: OperationId;
  readonly step: string;
  readonly checkpoint: CheckpointId;
  readonly container: { readonly id: ContainerId; readonly at: RuntimeRoot };
  readonly bundle: string;
  /** Whether that bundle is Stasis's own, or the caller's. */
  readonly rebuilt: boolean;
  readonly stagingDirectory: string;
  /** Where the runtime left the number of its session. */
  readonly workDirectory: string;
}

export interface ImportRecord {
  readonly kind: 'import';
  readonly operation: OperationId;
  readonly step: string;
  readonly checkpoint: CheckpointId;
  readonly stagingDirectory: string;
}

export type JournalRecord = CheckpointRecord | RestoreRecord | ImportRecord;

export class Journal {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    makePrivateDirectory(directory);
  }

  /** Not synced: after a power failure no container is left to be thawed, and packs of a lost record are garbage like any other. */
  write(record: JournalRecord): void {
    replaceFile(this.#path(record.operation), JSON.stringify(record));
  }

  remove(operation: OperationId): void {
    removeTree(this.#path(operation));
  }

  /** What is left of an earlier agent. A torn file is one whose operation had not begun: it is dropped. */
  records(): JournalRecord[] {
    const records: JournalRecord[] = [];
    for (const name of listDirectory(this.#directory)) {
      const record = readJsonFile(join(this.#directory, name));
      if (isRecord(record) && name === `${record.operation}.json`) records.push(record);
      else removeTree(join(this.#directory, name));
    }
    return records;
  }

  #path(operation: OperationId): string {
    return join(this.#directory, `${operation}.json`);
  }
}

/** By kind: what is a text or a number, what is truth, and whether there is a container. Recovery deletes what a record names. */
const shapes: Readonly<Record<string, { readonly texts: readonly string[]; readonly truths: readonly string[]; readonly container: readonly string[] | undefined }>> = {
  checkpoint: { texts: ['operation', 'step', 'checkpoint', 'lineage', 'guardDirectory', 'stagingDirectory'], truths: ['stop'], container: ['pid', 'pidStart'] },
  restore: { texts: ['operation', 'step', 'checkpoint', 'bundle', 'stagingDirectory', 'workDirectory'], truths: ['rebuilt'], container: [] },
  import: { texts: ['operation', 'step', 'checkpoint', 'stagingDirectory'], truths: [], container: undefined },
};

function isRecord(value: unknown): value is JournalRecord {
  const record = fields(value);
  const shape = typeof record['kind'] === 'string' && Object.hasOwn(shapes, record['kind']) ? shapes[record['kind']] : undefined;
  if (shape === undefined) return false;
  const { texts, truths, container: numbers } = shape;
  const container = fields(record['container']);
  const at = fields(container['at']);
  return isLinkRemaps(record['linkRemaps']) && texts.every((key) => typeof record[key] === 'string')
    && truths.every((key) => typeof record[key] === 'boolean') &&
    (numbers === undefined || ([container['id'], at['runtime'], at['binary'], at['root']].every((text) => typeof text === 'string') && numbers.every((key) => Number.isSafeInteger(container[key]))));
}

function isLinkRemaps(value: unknown): boolean {
  if (value === undefined) return true;
  const { trees, places, sinceMs } = fields(value);
  return Number.isFinite(sinceMs) && Array.isArray(trees) && trees.every((tree) => typeof tree === 'string')
    && Array.isArray(places)
    && places.map(fields).every(({ root, directory }) => typeof root === 'string' && typeof directory === 'string');
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}
