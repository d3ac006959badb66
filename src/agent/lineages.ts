/**
 * Which lineage a container of this node belongs to: successive checkpoints of one workload share a data key and
 * their chunks. A restored container goes on in the lineage that it came from.
 */
import { parseCheckpointId, parseLineageId, type CheckpointId, type LineageId } from '../core/ids.ts';
import { readJsonFile, replaceFile } from '../host/files.ts';
import type { Container } from '../runtime/types.ts';
import type { AgentContext } from './context.ts';

/** Entries of containers that are long gone are dropped beyond this many, oldest first. */
const MAX_ENTRIES = 10_000;

export interface LineageEnd {
  readonly lineage: LineageId;
  /** Its newest checkpoint that this container made or came from. */
  readonly last: CheckpointId;
}

export class Lineages {
  readonly #path: string;
  readonly #entries: Map<string, LineageEnd>;

  constructor(path: string) {
    this.#path = path;
    this.#entries = new Map(Object.entries(readJsonFile(path) ?? {}).filter((entry): entry is [string, LineageEnd] => isLineageEnd(entry[1])));
  }

  of(container: Container): LineageEnd | undefined {
    return this.#entries.get(containerKey(container));
  }

  remember(container: Container, end: LineageEnd): void {
    const name = containerKey(container);
    this.#entries.delete(name);
    this.#entries.set(name, end);
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= MAX_ENTRIES) break;
      this.#entries.delete(oldest);
    }
    replaceFile(this.#path, JSON.stringify(Object.fromEntries(this.#entries)));
  }
}

/** A lineage that cannot be read counts as unknown: its container begins another. */
function isLineageEnd(value: unknown): value is LineageEnd {
  const { lineage, last } = (value ?? {}) as Partial<Record<string, unknown>>;
  try {
    return parseLineageId(String(lineage)) === lineage && parseCheckpointId(String(last)) === last;
  } catch {
    return false;
  }
}

/** For an operation that is done: that it cannot be noted down (a full disk) does not make it fail. */
export function rememberLineage(agent: AgentContext, container: Container, end: LineageEnd): void {
  try {
    agent.lineages.remember(container, end);
  } catch (error) {
    agent.log.event('lineage.unwritten', { container_id: container.id, err: error });
  }
}

/** An id can be used again for another workload: the time of creation tells them apart. */
export function containerKey(container: Container): string {
  return `${container.at.root}/${container.id}@${container.createdMs}`;
}
