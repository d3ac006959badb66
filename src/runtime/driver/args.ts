/** Command lines of runc (1.1 and later) and crun for checkpoints and restores. Pure, so that tests can read them. */
import { join } from 'node:path';
import { atLeast, type Version } from '../toolchain.ts';
import type { CheckpointFlags, DumpRequest, RestoreRequest, RuntimeRoot } from '../types.ts';

/** The runtime's own messages, one JSON object a line, in the working directory of the operation. */
export function runtimeLog(workDir: string): string {
  return join(workDir, 'runtime.log');
}

function global(at: RuntimeRoot, workDir: string): string[] {
  return ['--root', at.root, '--log', runtimeLog(workDir), '--log-format', 'json'];
}

type Shared = Pick<CheckpointFlags, 'tcpEstablished' | 'fileLocks' | 'extUnixSk' | 'shellJob'>;

function criuFlags(flags: Shared): string[] {
  return [
    ...(flags.tcpEstablished ? ['--tcp-established'] : []),
    ...(flags.fileLocks ? ['--file-locks'] : []),
    ...(flags.extUnixSk ? ['--ext-unix-sk'] : []),
    ...(flags.shellJob ? ['--shell-job'] : []),
  ];
}

/**
 * CRIU must leave cgroups to the runtime: its own restore of them leaves traces on the node, and on cgroup v2 changes its
 * mount. runc 1.1 does not know how to say so. crun before 1.26 cannot say it on restore, and then the dump must not either.
 */
function cgroupMode(at: RuntimeRoot, version: Version): string[] {
  return atLeast(version, at.runtime === 'runc' ? [1, 2] : [1, 26]) ? ['--manage-cgroups-mode', 'ignore'] : [];
}

/** Whether a restore leaves cgroups as criu finds them; crun is told so by the bundle (restore-spec.ts). */
export function leavesCgroups(at: RuntimeRoot, version: Version): boolean {
  return at.runtime === 'crun' || atLeast(version, [1, 2]);
}

/** runc from 1.3 on tells criu whether, after criu has read its configuration file; before, and with crun, that file decides. */
function linkRemap(at: RuntimeRoot, version: Version): string[] {
  return at.runtime === 'runc' && atLeast(version, [1, 3]) ? ['--link-remap'] : [];
}

/** The same, with the same versions. */
function skipInFlight({ tcpSkipInFlight }: CheckpointFlags, at: RuntimeRoot, version: Version): string[] {
  return tcpSkipInFlight === true && at.runtime === 'runc' && atLeast(version, [1, 3]) ? ['--tcp-skip-in-flight'] : [];
}

/** runc before 1.2 destroys the container after a checkpoint whether or not it succeeded, so it must never be told to. */
export function mustLeaveRunning(at: RuntimeRoot, version: Version): boolean {
  return at.runtime === 'runc' && !atLeast(version, [1, 2]);
}

export function checkpointArgs(request: DumpRequest, version: Version): string[] {
  const { container, flags, imageDir, workDir, pageServer, preDump, parent } = request;
  return [
    ...global(container.at, workDir), 'checkpoint', '--image-path', imageDir, '--work-path', workDir,
    ...(preDump === true ? ['--pre-dump'] : flags.leaveRunning || mustLeaveRunning(container.at, version) ? ['--leave-running'] : []),
    ...(parent === undefined ? [] : ['--parent-path', parent]),
    ...criuFlags(flags),
    ...cgroupMode(container.at, version),
    ...(preDump === true ? [] : [...linkRemap(container.at, version), ...skipInFlight(flags, container.at, version)]),
    ...(pageServer === undefined ? [] : ['--page-server', pageServer]),
    container.id,
  ];
}

/** crun from 1.24 on tells criu whether, after criu has read its configuration file; before, and with runc, that file decides. */
function tcpClose(at: RuntimeRoot, version: Version): string[] {
  return at.runtime === 'crun' && atLeast(version, [1, 24]) ? ['--tcp-close'] : [];
}

export function restoreArgs(request: RestoreRequest, version: Version): string[] {
  const { at, id, bundle, imageDir, workDir, flags, pidFile, lazyPages } = request;
  return [
    ...global(at, workDir), 'restore', '--detach', '--bundle', bundle, '--image-path', imageDir, '--work-path', workDir, '--pid-file', pidFile,
    ...criuFlags(flags),
    ...cgroupMode(at, version),
    ...(flags.tcpClose ? tcpClose(at, version) : []),
    ...(lazyPages === true ? ['--lazy-pages'] : []),
    id,
  ];
}

export function killArgs(at: RuntimeRoot, id: string, signal: string): string[] {
  return ['--root', at.root, 'kill', id, signal];
}

export function deleteArgs(at: RuntimeRoot, id: string, force: boolean): string[] {
  return ['--root', at.root, 'delete', ...(force ? ['--force'] : []), id];
}
