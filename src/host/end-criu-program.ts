/**
 * A program: end-criu-program.js GUARD-DIRECTORY MILLISECONDS. What a guard runs when its time has come, so that criu
 * ends without harm to its tasks (criu-end.ts): 0 when all of its session is gone, 1 when no good moment came in so
 * many milliseconds. It is started a little before, and waits for the guard's decision to thaw. Of the guard's files it
 * reads `decision`, `session`, `places` and `freezer`. It loads nothing foreign: the memory may be exhausted.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cgroupProcesses } from './cgroup-walk.ts';
import { areUntraced, endWhileHarmless } from './criu-end.ts';
import { readDecision } from './decision.ts';
import { areAtHome, placesFromText } from './places.ts';

const [directory = '', patience = ''] = process.argv.slice(2);
const POLL_MS = 5;
const at = (name: string): string => join(directory, name);

/** Without places criu freezes by itself, or nobody knows how tasks stood: then only one that holds none is ended. */
function harmless(): { isHarmless: () => boolean; glance: boolean } | undefined {
  if (existsSync(at('places'))) {
    const places = placesFromText(readFileSync(at('places'), 'latin1'));
    return { isHarmless: () => areAtHome(places), glance: false };
  }
  if (!existsSync(at('freezer'))) return undefined;
  return { isHarmless: () => areUntraced(cgroupProcesses(at('freezer'))), glance: true };
}

while (existsSync(directory) && readDecision(directory) === undefined) await delay(POLL_MS);
const judge = readDecision(directory) === 'thaw' ? harmless() : undefined;
const ended = judge !== undefined
  && await endWhileHarmless(at('session'), judge.isHarmless, { patienceMs: Number(patience), glance: judge.glance });
process.exitCode = ended ? 0 : 1;
