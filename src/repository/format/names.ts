/** Names of objects in a store, made here and nowhere else. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { parseCheckpointId, parseLineageId } from '../../core/ids.ts';

export const MANIFESTS = 'manifests/';
export const PACKS = 'packs/';
export const WRITERS = 'writers/';

export const manifestName = (id: CheckpointId): string => `${MANIFESTS}${id}`;
export const lineageName = (id: LineageId): string => `lineages/${id}`;
export const packsOf = (id: CheckpointId): string => `${PACKS}${id}-`;
export const packName = (id: string, digits: string): string => `${PACKS}${id}-${digits}`;
export const writersOf = (lineage: LineageId): string => `${WRITERS}${lineage}-`;
export const writerName = (lineage: LineageId, id: CheckpointId): string => `${WRITERS}${lineage}-${id}`;

/** The checkpoint whose manifest has this name; throws USAGE for a stray file. */
export function checkpointOfManifest(name: string): CheckpointId {
  return parseCheckpointId(name.slice(MANIFESTS.length));
}

/** Lineage and checkpoint of a writer mark, undefined for a stray file. */
export function parseWriterName(name: string): { lineage: LineageId; checkpoint: CheckpointId } | undefined {
  const match = /^writers\/([0-9a-f]{32})-([0-9a-z]{20})$/.exec(name);
  if (match === null) return undefined;
  return { lineage: parseLineageId(match[1] ?? ''), checkpoint: parseCheckpointId(match[2] ?? '') };
}

const pattern = /^(?:packs|manifests|lineages|writers)\/[a-z0-9][a-z0-9._-]{0,200}$/;

/** True for a name that a store may turn into a path: one directory, one plain name. */
export function isObjectName(name: string): boolean {
  return pattern.test(name);
}

export function isObjectPrefix(prefix: string): boolean {
  return /^(?:packs|manifests|lineages|writers)\/[a-z0-9._-]{0,200}$/.test(prefix);
}
