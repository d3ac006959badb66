/**
 * What each lineage's last rehearsed stop looked like, and how long rehearsals take here: from this follows whether the next
 * stop is rehearsed when that is left to the agent.
 */
import { createHash } from 'node:crypto';
import type { LineageId } from '../core/ids.ts';
import { readJsonFile, replaceFile } from '../host/files.ts';
import { bootId } from '../host/proc.ts';
import { fileStamp, programStamp } from '../host/programs.ts';
import { readKernelState } from '../runtime/index.ts';
import type { Container, Verdict } from '../runtime/types.ts';
import type { CheckpointRequest } from './checkpoint/checkpoint.ts';
import type { AgentContext } from './context.ts';

/** Those of lineages that are long gone are dropped beyond this many, oldest first. */
const MAX_ENTRIES = 10_000;
/** Until one was made here. */
const FIRST_MS = 1000;
/** A node is busier at times, and a stop that could have been rehearsed is not to be left unrehearsed for fear of that. */
const SAFETY = 3;
const MOST_MS = 5000;

export class Rehearsals {
  readonly #path: string;
  readonly #shapes: Map<string, string>;
  #lastMs = FIRST_MS;

  constructor(path: string) {
    this.#path = path;
    this.#shapes = new Map(Object.entries(readJsonFile(path) ?? {}).filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
  }

  /** Whether a stop of this shape is the last one that was rehearsed in this lineage. */
  knows(lineage: LineageId, shape: string): boolean {
    return this.#shapes.get(lineage) === shape;
  }

  /** The next stop is rehearsed, whatever it looks like. Throws a system error when that cannot be written down. */
  forget(lineage: LineageId): void {
    if (this.#shapes.delete(lineage)) this.#write();
  }

  /** Of the freeze budget, what a rehearsal may be expected to need. */
  get expectedMs(): number {
    return Math.min(this.#lastMs * SAFETY, MOST_MS);
  }

  /** Throws a system error when it cannot be written down; it holds for this process nevertheless. */
  remember(lineage: LineageId, shape: string, ms: number): void {
    this.#lastMs = ms;
    this.#shapes.delete(lineage);
    this.#shapes.set(lineage, shape);
    for (const oldest of this.#shapes.keys()) {
      if (this.#shapes.size <= MAX_ENTRIES) break;
      this.#shapes.delete(oldest);
    }
    this.#write();
  }

  #write(): void {
    replaceFile(this.#path, JSON.stringify(Object.fromEntries(this.#shapes)));
  }
}

export interface ShapeParts {
  readonly container: Container;
  readonly verdict: Verdict;
  readonly request: Pick<CheckpointRequest, 'flags' | 'allowDifference'>;
}

/** Read by criu before what Stasis tells it. */
const CRIU_CONFIGURATION = ['/etc/criu/default.conf', '/etc/criu/runc.conf', '/etc/criu/crun.conf'];

/**
 * All that a restore depends on and that changes seldom: the node, its programs, configuration, mounts, limits, kinds
 * of descriptors, warnings.
 */
export function shapeOf(
  { toolchain, settings }: Pick<AgentContext, 'toolchain' | 'settings'>, { container, verdict, request }: ShapeParts,
): string {
  const { spec, at, rootfs } = container;
  const { root: _root, annotations: _annotations, ...rest } = spec;
  // Numbers in messages are pids and sizes.
  const findings = verdict.findings.map(({ kind, message }) => `${kind}: ${message.replace(/\d+/g, '#')}`).sort();
  const node = [
    toolchain, programStamp(at.binary), programStamp('criu'), CRIU_CONFIGURATION.map(fileStamp), settings.version,
    settings.ghostLimitBytes,
    bootId(),
  ];
  const files = rootfs.kind === 'overlay' ? [rootfs.lower, rootfs.options] : rootfs.path;
  const parts = [
    node, rest, files, readKernelState(container, []).limits, request.flags, [...request.allowDifference].sort(),
    at.runtime, verdict.shape, [...new Set(findings)],
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
