/** Names of objects in a store, made here and nowhere else. */
import type { CheckpointId, LineageId } from '../../core/ids.ts';
import { parseCheckpointId, parseLineageId } from '../../core/ids.ts';

export const MANIFESTS = 'manifests/';
export const PACKS = 'packs/';
export const LINEAGES = 'lineages/';
export const WRITERS = 'writers/';
export const PINS = 'pins/';

export const manifestName = (id: CheckpointId): string => `${MANIFESTS}${id}`;
export const lineageName = (id: LineageId): string => `${LINEAGES}${id}`;
export const pinName = (id: CheckpointId): string => `${PINS}${id}`;
export const packsOf = (id: CheckpointId): string => `${PACKS}${id}-`;
export const packName = (id: string, digits: string): string => `${PACKS}${id}-${digits}`;
export const writersOf = (lineage: LineageId): string => `${WRITERS}${lineage}-`;

/** The checkpoint whose manifest has this name; throws USAGE for a stray file. */
export function checkpointOfManifest(name: string): CheckpointId {
  return parseCheckpointId(name.slice(MANIFESTS.length));
}

/** What the holder of a mark does: it writes a checkpoint, reads one, or removes what nobody needs. */
export type MarkKind = 'write' | 'read' | 'sweep';

export interface MarkName {
  readonly lineage: LineageId;
  /** The checkpoint that is written; of readers and sweepers: who they are. */
  readonly holder: CheckpointId;
  readonly kind: MarkKind;
  /** This is not the mark but the fence beside it. */
  readonly fence: boolean;
}

const suffixes: Readonly<Record<MarkKind, string>> = { write: '', read: '.read', sweep: '.sweep' };

export const markName = (lineage: LineageId, holder: CheckpointId, kind: MarkKind): string => `${WRITERS}${lineage}-${holder}${suffixes[kind]}`;
export const fenceName = (mark: string): string => `${mark}.fenced`;

/** Undefined for a stray file. */
export function parseMarkName(name: string): MarkName | undefined {
  const match = /^writers\/([0-9a-f]{32})-([0-9a-hjkmnp-tv-z]{20})(?:\.(read|sweep))?(\.fenced)?$/.exec(name);
  if (match === null) return undefined;
  return { lineage: parseLineageId(match[1] ?? ''), holder: parseCheckpointId(match[2] ?? ''), kind: (match[3] ?? 'write') as MarkKind, fence: match[4] !== undefined };
}

/** The checkpoint whose writer made a pack of this name; undefined for a stray file. */
export function checkpointOfPack(name: string): CheckpointId | undefined {
  const id = /^packs\/([0-9a-hjkmnp-tv-z]{20})-[0-9a-f]{16}$/.exec(name)?.[1];
  return id === undefined ? undefined : parseCheckpointId(id);
}

const pattern = /^(?:packs|manifests|lineages|writers|pins)\/[a-z0-9][a-z0-9._-]{0,200}$/;

/** True for a name that a store may turn into a path: one directory, one plain name. */
export function isObjectName(name: string): boolean {
  return pattern.test(name);
}

export function isObjectPrefix(prefix: string): boolean {
  return /^(?:packs|manifests|lineages|writers|pins)\/[a-z0-9._-]{0,200}$/.test(prefix);
}
