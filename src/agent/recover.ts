/**
 * At the start, before anything else is served: what a dead agent left is finished or rolled back.
 *
 * A checkpoint: its guard has settled the container (thawed, or dead because committed: thaw-first.ts). The manifest exists: the checkpoint
 * stands, unless its container should have died for it and was let go; no manifest: its packs are garbage.
 * A restore: the container is removed; its record is there until the container runs and all of its memory has arrived.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { asStasisError, isStasisError } from '../core/errors.ts';
import { removeTree } from '../host/files.ts';
import { listGuards, recoverGuard, removeGuard } from '../host/guard.ts';
import { recoverFill } from '../host/lazy-guard.ts';
import { processAlive } from '../host/proc.ts';
import { killSession } from '../host/session.ts';
import { findContainer, remove, removeBundle } from '../runtime/index.ts';
import { mayHaveLinkRemaps, removeLinkRemaps } from './checkpoint/link-remaps.ts';
import { sweepRehearsal } from './checkpoint/rehearse.ts';
import type { AgentContext } from './context.ts';
import type { CheckpointRecord, ImportRecord, JournalRecord, RestoreRecord } from './journal.ts';
import { releaseLock, settleLock, settleLocks, sweepLocks } from './network-locks.ts';
import { guardsDirectory } from './thaw-first.ts';
import { fillDirectory, gateDirectory, sweepContainers } from './restore/container-directory.ts';

export async function recover(agent: AgentContext): Promise<void> {
  // First: it asks nobody, and neighbours of a dead container wait for it.
  await settleLocks(agent);
  for (const record of agent.journal.records()) {
    try {
      const outcome = await recoverRecord(agent, record);
      agent.journal.remove(record.operation);
      agent.log.event('operation.recovered', { operation_id: record.operation, kind: record.kind, checkpoint_id: record.checkpoint, outcome });
    } catch (error) {
      // Kept in the journal: the next start tries again, and until then nothing else is held up.
      agent.log.event('operation.unrecovered', { operation_id: record.operation, kind: record.kind, err: asStasisError(error, 'recovery failed') });
    }
    removeStaging(record);
  }
  await sweepGuards(agent);
  await sweepLocks(agent, { signal: AbortSignal.timeout(STORE_MS) });
  await sweepContainers(agent);
}

/** The agent serves only afterwards: a store that is away must not keep it from its other work for long. */
const STORE_MS = 60_000;

function recoverRecord(agent: AgentContext, record: JournalRecord): Promise<string> {
  if (record.kind === 'checkpoint') return recoverCheckpoint(agent, record);
  return record.kind === 'restore' ? recoverRestore(agent, record) : recoverImport(agent, record);
}

/** It stands if its manifest does. */
async function recoverImport(agent: AgentContext, { checkpoint }: ImportRecord): Promise<string> {
  const signal = AbortSignal.timeout(STORE_MS);
  if (await agent.repository.exists(checkpoint, { signal })) return 'finished';
  await agent.repository.discard(checkpoint, { signal });
  return 'rolled back';
}

async function recoverCheckpoint(agent: AgentContext, record: CheckpointRecord): Promise<string> {
  const { checkpoint, container } = record;
  const signal = AbortSignal.timeout(STORE_MS);
  const decision = existsSync(record.guardDirectory) ? await recoverGuard(agent.settings.scripts.guard, record.guardDirectory) : undefined;
  removeGuard(record.guardDirectory);
  await sweepRehearsal(agent, record.operation);
  const exists = await agent.repository.exists(checkpoint, { signal });
  const saved = exists && (!record.stop || !processAlive(container.pid, container.pidStart));
  await removeLeftNames(record, saved ? 'saved' : 'nothing');
  if (!exists) {
    await agent.repository.discard(checkpoint, { signal });
    await releaseLock(agent, checkpoint);
    return 'rolled back';
  }
  if (!record.stop) return 'finished';
  if (processAlive(container.pid, container.pidStart)) {
    // Nothing was lost by going on, and a checkpoint that nobody reported must not be restored beside it.
    await agent.repository.delete(checkpoint, { signal });
    await releaseLock(agent, checkpoint);
    return 'rolled back';
  }
  if (decision === 'commit') await removeFromRuntime(record);
  return 'finished';
}

/** Staging is gone after a restart of the machine, and with it the knowledge whether there are any. */
async function removeLeftNames(
  { linkRemaps, stagingDirectory }: CheckpointRecord, checkpoint: 'saved' | 'nothing',
): Promise<void> {
  if (
    linkRemaps === undefined || (existsSync(stagingDirectory) && !mayHaveLinkRemaps(join(stagingDirectory, 'images')))
  ) return;
  await removeLinkRemaps(linkRemaps, checkpoint);
}

/** criu killed the tasks, but the runtime may have died before it took the container off its books. */
async function removeFromRuntime({ container }: CheckpointRecord): Promise<void> {
  try {
    const left = await findContainer([container.at], container.id, { signal: undefined });
    if (left.id === container.id && left.status === 'stopped') await remove(container.at, container.id, { force: true, signal: undefined });
  } catch (error) {
    if (!isStasisError(error, 'CONTAINER_NOT_FOUND')) throw error;
  }
}

async function recoverRestore(agent: AgentContext, record: RestoreRecord): Promise<string> {
  const fill = fillDirectory(agent, record.operation);
  const outcome = await recoverFill(agent.settings.scripts.lazyGuard, fill);
  removeTree(fill);
  // Only the cleaning up was left.
  if (outcome === 'complete') {
    await releaseLock(agent, record.checkpoint);
    return 'finished';
  }
  await killSession(join(record.workDirectory, 'session'), { traced: true });
  removeTree(gateDirectory(agent, record.operation));
  if (await isOurs(record)) await remove(record.container.at, record.container.id, { force: true, bundle: record.bundle, signal: undefined });
  await settleLock(agent, record.checkpoint, { again: true });
  if (record.rebuilt) await removeBundle(record.bundle);
  return 'rolled back';
}

/** False when somebody has made another container of that id meanwhile. One of which nothing can be read is half a restore. */
async function isOurs({ container, bundle }: RestoreRecord): Promise<boolean> {
  try {
    const found = await findContainer([container.at], container.id, { signal: undefined });
    // A name or the beginning of an id may have been found instead.
    return found.id !== container.id || found.bundle === bundle;
  } catch {
    return true;
  }
}

function removeStaging(record: JournalRecord): void {
  removeTree(record.stagingDirectory);
}

/** Guards without a journal: their agent died between the two, with nothing frozen. */
async function sweepGuards(agent: AgentContext): Promise<void> {
  const guards = guardsDirectory(agent.settings.runDirectory);
  for (const name of listGuards(guards)) {
    await recoverGuard(agent.settings.scripts.guard, join(guards, name));
    removeGuard(join(guards, name));
  }
}
