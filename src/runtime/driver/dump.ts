/** A checkpoint through runc or crun. The caller has frozen the container, and holds the guard and the hook. */
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { Freezer } from '../../host/cgroup.ts';
import { readMountinfo } from '../../host/mountinfo.ts';
import { processAlive } from '../../host/proc.ts';
import { noteStandardPipes, readStandardPipes } from '../standard-pipes.ts';
import type { DumpRequest, DumpResult, Toolchain } from '../types.ts';
import { checkpointArgs, mustLeaveRunning, runtimeLog } from './args.ts';
import { externalsOfDump } from './external-mounts.ts';
import { explainFailure } from './failure.ts';
import { runOperation, versionOf, type DriverOptions } from './operation.ts';
import { tarEnvironment } from './tar.ts';

/**
 * Resolves when the images are written, after the post-dump hook. Throws DUMP_FAILED with the first real cause,
 * CONTAINER_EXITED, HOST_UNSUPPORTED, DEADLINE_EXCEEDED, or the signal's reason.
 */
export async function dump(request: DumpRequest, toolchain: Toolchain, options: DriverOptions): Promise<DumpResult> {
  const { container, workDir, flags } = request;
  const version = versionOf(container.at, toolchain);
  if (request.pageServer !== undefined && container.at.runtime !== 'runc') {
    throw new StasisError('USAGE', 'crun cannot send memory to a page server', { hint: 'use the directory path for containers of crun' });
  }
  appendFileSync(request.criuConfig, externalsOfDump(container.spec, readMountinfo(container.pid)));
  const pipes = readStandardPipes(
    container, () => (container.freezer === undefined ? [] : new Freezer(container.freezer).pids()),
  );
  const criuLog = join(workDir, 'dump.log');
  const { status, stderr } = await runOperation(container.at.binary, checkpointArgs(request, version), {
    ...request, env: tarEnvironment(toolchain),
  }, options);
  if (status !== 0) {
    const what = `container ${container.id} could not be dumped`;
    const failure = explainFailure({ what, phase: 'dump', criuLog, runtimeLog: runtimeLog(workDir), stderr, status });
    if (processAlive(container.pid, container.pidStart) || failure.code === 'HOST_UNSUPPORTED') throw failure;
    throw new StasisError('CONTAINER_EXITED', `container ${container.id} ended while it was dumped`, { cause: failure, hint: 'no checkpoint was made; start the container again', details: failure.details });
  }
  noteStandardPipes(request.imageDir, pipes);
  return { statsPath: join(workDir, 'stats-dump'), logPath: criuLog, leftRunning: !flags.leaveRunning && mustLeaveRunning(container.at, version) };
}
