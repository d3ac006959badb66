/**
 * The first thing that an agent does: containers that a dead agent froze go on, or die because their checkpoint is committed.
 * From files of this machine alone: keys, toolchain and store may be away for longer than any budget.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { asStasisError } from '../core/errors.ts';
import { heldFromAbove, listGuards, recoverGuard } from '../host/guard.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Journal } from './journal.ts';

export function guardsDirectory(runDirectory: string): string {
  return join(runDirectory, 'guards');
}

/**
 * Every guard carries out its decision, side by side: one that has to wait for a criu holds up no other container. What it
 * decided stays in its directory, for recover() to read. Never throws.
 */
export async function thawFirst({ runDirectory, journal, guardScript, log }: { runDirectory: string; journal: Journal; guardScript: string; log: Logger }): Promise<void> {
  const guards = guardsDirectory(runDirectory);
  const known = listGuards(guards).map((name) => join(guards, name));
  // The run directory may have been another one then.
  const recorded = journal.records().flatMap((record) => (record.kind === 'checkpoint' && existsSync(record.guardDirectory) ? [record.guardDirectory] : []));
  await Promise.all([...new Set([...known, ...recorded])].map(async (directory) => {
    try {
      const decision = await recoverGuard(guardScript, directory);
      log.event('guard.stale', { guard: directory, decision, held: heldFromAbove(directory) });
    } catch (error) {
      log.event('guard.failed', { guard: directory, err: asStasisError(error, 'a guard of a dead agent could not be carried out') });
    }
  }));
}
