/**
 * Export of a checkpoint as an archive that podman and checkpointctl read.
 *
 *   open   manifest read, seal and signature checked; the packs are held
 *   plan   what the archive will hold, and what it cannot
 *   write  every byte is fetched, verified and handed to the caller, in order
 *
 * The archive is plaintext: memory with every key and password in it. It goes to the caller and nowhere else.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError, errnoCode } from '../../core/errors.ts';
import type { CheckpointId, OperationId } from '../../core/ids.ts';
import { MiB } from '../../core/units.ts';
import { archiveLength, planDiff, treePaths, writeArchive, type ArchiveContents } from '../../image/archive/index.ts';
import { findPodmanImage } from '../../runtime/index.ts';
import type { Rootfs } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import { podDescription, type SavedContainer } from '../description.ts';
import type { Handover } from '../handover.ts';
import type { Operation } from '../operation.ts';
import { archiveDocuments } from './documents.ts';

export const EXPORT_STEPS = ['open', 'plan', 'write'] as const;

export interface ExportRequest {
  readonly checkpoint: CheckpointId;
  /** Name of the image in the archive; undefined: the one that the container was made from. */
  readonly image: string | undefined;
}

export interface ExportOutcome {
  readonly operation: OperationId;
  readonly checkpoint: CheckpointId;
  readonly bytes: number;
  readonly totalMs: number;
  readonly notIncluded: readonly string[];
}

/** Messages between agent and caller: large enough to be quick, small enough to wait in memory. */
const MESSAGE_BYTES = MiB;

interface Planned {
  readonly contents: ArchiveContents;
  readonly notIncluded: readonly string[];
}

export async function exportCheckpoint(agent: AgentContext, request: ExportRequest, operation: Operation, out: Handover<Buffer>): Promise<ExportOutcome> {
  const started = agent.clock.monotonic();
  // Others may delete the checkpoint meanwhile: what is being read stays until it is written.
  await using held = new AsyncDisposableStack();
  const reader = await operation.step('open', async (signal) => {
    held.use(await agent.repository.maintenance.hold(request.checkpoint, { signal }));
    return agent.repository.open(request.checkpoint, { signal });
  });
  const { contents, notIncluded } = await operation.step('plan', (signal) => plan(request, reader, signal));
  operation.expectBytes(archiveLength(contents));
  const bytes = await operation.step('write', async (signal) => {
    let count = 0;
    for await (const message of gathered(writeArchive(contents, { signal }))) {
      await out.put(message, { signal });
      operation.addBytes(message.length);
      count += message.length;
    }
    return count;
  });
  return { operation: operation.id, checkpoint: request.checkpoint, bytes, totalMs: agent.clock.monotonic() - started, notIncluded };
}

async function plan(request: ExportRequest, reader: ArchiveContents['reader'], signal: AbortSignal): Promise<Planned> {
  const description = podDescription(reader.summary);
  const saved = description.containers[0];
  if (saved === undefined || description.containers.length !== 1) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `checkpoint ${request.checkpoint} holds ${description.containers.length} containers, an archive holds one`);
  }
  if (description.imported !== undefined) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `checkpoint ${request.checkpoint} was imported: what its archive said of mounts and privileges was not kept`, { hint: `use the archive itself (${description.imported.source})` });
  }
  const image = await imageOf(request, saved);
  const trees: ArchiveContents['trees'][number][] = [];
  const notIncluded: string[] = [...description.notSaved];
  const deleted: string[] = [];
  if (saved.rootfs.saved) {
    const diff = await planDiff(reader, saved.rootfs.prefix, signal);
    trees.push({ name: 'rootfs-diff.tar', prefix: saved.rootfs.prefix, plan: diff });
    deleted.push(...diff.deleted, ...(await hiddenBelow(saved, diff.opaque, reader, signal)));
    notIncluded.push(...diff.warnings);
  }
  for (const { destination, prefix } of saved.volumes) {
    if (destination === '/dev/shm') trees.push({ name: 'devshm-checkpoint.tar', prefix, plan: await planDiff(reader, prefix, signal) });
    else notIncluded.push(`the files of the volume ${destination}: archives of this form have no place for them`);
  }
  if (image === undefined) notIncluded.push('the name of the image: podman cannot import the archive without (--image)');
  else if (image.id === undefined) notIncluded.push(`the id of the image ${image.name}, which podman does not have on this node: podman cannot import the archive without`);
  const documents = archiveDocuments(description, saved, image, deleted);
  return { contents: { reader, images: saved.images.prefix, documents, trees, mtimeSeconds: Math.floor(description.frozenAtMs / 1000) }, notIncluded };
}

/** podman wants the id beside the name; who named the image need not know it. */
async function imageOf({ image }: ExportRequest, saved: SavedContainer): Promise<SavedContainer['image']> {
  const named = image === undefined ? saved.image : { name: image };
  return named === undefined || named.id !== undefined ? named : ((await findPodmanImage(named.name)) ?? named);
}

/** A directory that replaces one of the image hides what the image has in it. An archive can only name what is to be deleted. */
async function hiddenBelow({ rootfs }: SavedContainer, opaque: readonly string[], reader: ArchiveContents['reader'], signal: AbortSignal): Promise<string[]> {
  if (opaque.length === 0) return [];
  const layers = lowerLayers(rootfs.layout);
  const kept = await treePaths(reader, rootfs.prefix, signal);
  return opaque.flatMap((directory) => [...new Set(layers.flatMap((layer) => namesIn(join(layer, directory))))]
    .map((name) => join(directory, name)).filter((path) => !kept.has(path)));
}

function lowerLayers(layout: Rootfs): readonly string[] {
  if (layout.kind === 'overlay' && layout.lower.every((layer) => namesIn(layer).length > 0)) return layout.lower;
  throw new StasisError('RESTORE_INCOMPATIBLE', 'the container replaced directories of its image, and the layers of the image are not on this node to tell what they hide', {
    hint: 'export on the node where the container was checkpointed, or pull its image here',
  });
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoCode(error) ?? '')) return [];
    throw error;
  }
}

/** Pieces of any size as messages of an even one. */
async function* gathered(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let message = Buffer.allocUnsafe(MESSAGE_BYTES);
  let used = 0;
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const count = piece.copy(message, used, at);
      at += count;
      used += count;
      if (used < message.length) continue;
      yield message;
      message = Buffer.allocUnsafe(MESSAGE_BYTES);
      used = 0;
    }
  }
  if (used > 0) yield message.subarray(0, used);
}
