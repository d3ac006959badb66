/**
 * Something that freezes a container by itself, as a round before the freeze does, ended by a cancel: here a whole dump by criu, because this
 * kernel may not track pages. The rounds themselves are in pre-dump.test.ts.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { FrozenContainer } from '../../src/agent/checkpoint/frozen-container.ts';
import { systemClock } from '../../src/core/clock.ts';
import { criuConfig, dump, findContainer, type RuntimeName } from '../../src/runtime/index.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { roots, toolchain } from '../support/containers.ts';
import { openSession, startVictim, type Session, type Victim } from '../support/victim.ts';

const script = '/opt/stasis/deploy/libexec/stasis-guard';
const MIB = 1024 * 1024;

/** Of the runtime's session: when it is there, when its criu is, when so much memory is written; and whether criu is made to hang then. */
const moments: readonly (readonly [what: string, bytes: number | 'session', hangs: boolean])[] = [
  ['before criu runs', 'session', false], ['as soon as criu is there', 0, false], ['criu hangs as soon as it is there', 0, true],
  ['memory is being written', 8 * MIB, false], ['criu hangs while memory is being written', 40 * MIB, true],
];

async function reach(directory: string, bytes: number | 'session'): Promise<Session> {
  for (let waited = 0; waited < 20_000; waited += 1) {
    const session = openSession(readIfThere(join(directory, 'guard/session')));
    if (session !== undefined && (bytes === 'session' || (session.pids('criu').length > 0 && written(join(directory, 'images')) >= bytes))) return session;
    await delay(1);
  }
  throw new Error('criu never came there');
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function written(images: string): number {
  return readdirSync(images).filter((name) => name.startsWith('pages-')).reduce((sum, name) => sum + statSync(join(images, name)).size, 0);
}

const tools = await toolchain();

for (const runtime of ['runc', 'crun'] satisfies RuntimeName[]) {
  void describe(`an end at once of what freezes by itself, ${runtime}`, () => {
    let victim: Victim;
    before(async () => { victim = await startVictim(runtime, 120); });
    after(() => victim.stop());
    for (const [what, bytes, hangs] of moments) {
      void it(what, async () => {
        const directory = mkdtempSync('/srv/rounds-end-');
        try {
          await cancelled(victim, directory, { bytes, hangs });
          assert.doesNotMatch(readFileSync(`/proc/${victim.pid}/maps`, 'utf8'), /CRIUMFD/);
          assert.match(readFileSync(`/proc/${victim.pid}/status`, 'utf8'), /TracerPid:\t0/);
          await victim.assertWhole();
        } finally {
          rmSync(directory, { recursive: true });
        }
      });
    }
  });
}

async function cancelled(victim: Victim, directory: string, { bytes, hangs }: { bytes: number | 'session'; hangs: boolean }): Promise<void> {
  const container = await findContainer(roots, victim.id, { signal: undefined });
  for (const name of ['images', 'work']) mkdirSync(join(directory, name));
  const config = join(directory, 'work/criu.conf');
  writeFileSync(config, criuConfig({ timeoutSeconds: 30, ghostLimitBytes: MIB }));
  const [cancel, reason] = [new AbortController(), new Error('cancelled')];
  await using frozen = await FrozenContainer.arm({ container, guardScript: script, guardDirectory: join(directory, 'guard'), criuLog: undefined, stop: undefined, budgetMs: 60_000, clock: systemClock, log: silentLogger });
  const outcome = frozen.guarded(() => dump({
    container, flags: { leaveRunning: true, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false }, imageDir: join(directory, 'images'), workDir: join(directory, 'work'),
    pageServer: undefined, criuConfig: config, operationId: 'rounds-end', guardDirectory: join(directory, 'guard'),
  }, tools, { signal: undefined, timeoutMs: 60_000 }), { signal: cancel.signal }).then(() => 'done', (error: unknown) => error);
  const session = await reach(directory, bytes);
  for (const pid of hangs ? session.pids('criu') : []) process.kill(pid, 'SIGSTOP');
  cancel.abort(reason);
  // What holds all tasks is not cut off: it may come to its end.
  const ended = await outcome;
  if (bytes === 'session' || ended !== 'done') assert.equal(ended, reason);
  await session.assertGone();
}
