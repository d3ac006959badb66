/** Open descriptors that CRIU cannot save. */
import { readlinkSync } from 'node:fs';
import { formatBytes } from '../../core/units.ts';
import { readMountinfo } from '../../host/mountinfo.ts';
import { descriptorAccess, readProc } from '../../host/proc.ts';
import { statLink, type StillStat } from '../../host/still-files.ts';
import type { Finding } from '../types.ts';
import { standardPipes } from '../standard-pipes.ts';
import { descriptorInfo, descriptorsOf, fatal, warning, who, type ProcessView, type Scene } from './findings.ts';
import { isMessageQueue } from './file-checks.ts';
import { printable } from '../text.ts';

/** Kinds of anonymous inodes that CRIU saves; whatever is not here it refuses. */
const KNOWN_ANONYMOUS: ReadonlySet<string> = new Set(['eventfd', 'eventpoll', 'inotify', 'fanotify', 'signalfd', 'timerfd', 'pidfd', 'bpf-map']);

const anonymousHints: Readonly<Record<string, string>> = {
  perf_event: 'stop the profiler that runs inside the container',
  userfaultfd: 'the program handles page faults itself (a virtual machine or a garbage collector): this cannot be saved',
  'seccomp notify': 'the program supervises others by seccomp: this cannot be saved',
  'kvm-vm': 'virtual machines cannot be checkpointed from outside',
  'kvm-vcpu': 'virtual machines cannot be checkpointed from outside',
};

/** libuv (Node.js) does not ask the environment for its ring: only seccomp turns it off. */
export const IO_URING_HINT = 'deny io_uring_setup by a seccomp profile, as the default ones of Docker and podman do (Node.js and most others then work without), or switch it off in the program';

/** Character devices by "major:minor", or by major alone, that CRIU opens again or knows how to save. */
const HARMLESS_DEVICES: ReadonlySet<string> = new Set(['1:3', '1:5', '1:7', '1:8', '1:9', '5:0', '5:1', '5:2', '10:200', '136', '137', '138', '139', '140', '141', '142', '143']);

function device({ deviceMajor, deviceMinor }: StillStat): { name: string; harmless: boolean } {
  const name = `${deviceMajor}:${deviceMinor}`;
  return { name, harmless: HARMLESS_DEVICES.has(name) || HARMLESS_DEVICES.has(`${deviceMajor}`) };
}

export function deviceHint(path: string): string {
  if (/^\/dev\/(nvidia|kfd|dri\/)/.test(path)) return 'the container uses a GPU: its state must be taken from the device first';
  if (path.startsWith('/dev/infiniband/')) return 'RDMA connections cannot be saved: use TCP (NCCL_IB_DISABLE=1, UCX_TLS=tcp)';
  if (path.startsWith('/dev/kvm')) return 'virtual machines cannot be checkpointed from outside';
  if (path.startsWith('/dev/fuse')) return 'a FUSE server inside the container cannot be saved: run it outside';
  return 'let the program close the device before a checkpoint';
}

export function checkAnonymousInodes(scene: Scene): Finding[] {
  const findings: Finding[] = [];
  const seen = new Set<string>();
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('anon_inode:'))) {
    const kind = target.slice('anon_inode:'.length).replace(/^\[(.*)\]$/, '$1');
    if (KNOWN_ANONYMOUS.has(kind) || seen.has(`${process.pid} ${kind}`)) continue;
    seen.add(`${process.pid} ${kind}`);
    if (kind === 'io_uring') findings.push(fatal('io_uring', `${who(process)} uses io_uring, descriptor ${fd}`, IO_URING_HINT, process));
    else findings.push(fatal('descriptor', `${who(process)} holds a descriptor of kind ${printable(kind)}, number ${fd}, which CRIU cannot save`, anonymousHints[kind] ?? 'let the program close it before a checkpoint', process));
  }
  return findings;
}

const S_IFMT = 0o170000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;

/** Each device once, with the first process that has it. */
export function checkDevices(scene: Scene): Finding[] {
  const findings: Finding[] = [];
  const seen = new Set<string>();
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('/dev/'))) {
    const stat = seen.has(target) ? undefined : statLink(process.pid, `fd/${fd}`);
    if (stat === undefined) continue;
    seen.add(target);
    const type = stat.mode & S_IFMT;
    const { name, harmless } = device(stat);
    if ((type !== S_IFCHR && type !== S_IFBLK) || (type === S_IFCHR && harmless)) continue;
    findings.push(fatal('device', `${who(process)} has the device ${printable(target)} (${name}) open, descriptor ${fd}`, deviceHint(target), process));
  }
  return findings;
}

/** Mounts of the container, and of its processes that have mounts of their own: those CRIU saves as well. */
function mountsOf(scene: Scene): Set<string> {
  const byNamespace = new Map(scene.tree.processes.map((process) => [process.namespaces.mnt, process.pid]));
  byNamespace.delete(scene.tree.processes[0]?.namespaces.mnt);
  return new Set([scene.mounts, ...[...byNamespace.values()].map((pid) => readMountinfo(pid))].flat().map(({ id }) => String(id)));
}

/** A file that was opened outside and inherited: CRIU looks for its mount among the container's and does not find it. */
export function checkForeignFiles(scene: Scene): Finding[] {
  const mounts = mountsOf(scene);
  const init = scene.tree.processes[0];
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('/') && !name.startsWith('/memfd:') && !name.startsWith('/dev/'))) {
    // A process with mounts of its own has its files there.
    if (process.namespaces.mnt !== init?.namespaces.mnt) continue;
    const mount = mountOf(descriptorInfo(process, fd));
    if (mount === undefined || mounts.has(mount) || !unchanged(process, fd, target, mount)) continue;
    if (target.startsWith('/secretmem') || isMessageQueue(scene, process, fd, target)) continue;
    return [fatal('foreign-file', `${who(process)} has ${printable(target)} open, descriptor ${fd}, a file outside the container`, 'start the container with pipes (or /dev/null) as its standard descriptors, and close what it inherits', process)];
  }
  return [];
}

function mountOf(info: string | undefined): string | undefined {
  return /^mnt_id:\s*(\d+)$/m.exec(info ?? '')?.[1];
}

/** The container runs: a number may have become another file between name and mount (a shell that redirects, and takes it back). */
function unchanged(process: ProcessView, fd: number, target: string, mount: string): boolean {
  try {
    return readlinkSync(`/proc/${process.pid}/fd/${fd}`) === target && mountOf(readProc(process.pid, `fdinfo/${fd}`)) === mount;
  } catch {
    return false;
  }
}

/** A terminal on the standard descriptors whose master is outside. */
export function checkTerminals(scene: Scene): Finding[] {
  if (scene.flags.shellJob || scene.container.spec.process?.terminal === true) return [];
  for (const process of scene.tree.processes) {
    const tty = process.descriptors.find(({ fd, target }) => fd <= 2 && /^\/dev\/(pts\/\d+|tty\w*|console)$/.test(target));
    if (tty === undefined) continue;
    const masters = scene.tree.processes.some(({ descriptors }) => descriptors.some(({ target }) => target.endsWith('/ptmx')));
    return masters ? [] : [fatal(
      'tty', `${who(process)} has the terminal ${tty.target} on descriptor ${tty.fd}`,
      'start it without a terminal, or use --shell-job', process,
    )];
  }
  return [];
}

/** Deleted files that are still open travel inside the images, up to the ghost limit. */
export function checkDeletedFiles(scene: Scene): Finding[] {
  const findings: Finding[] = [];
  const seen = new Set<string>();
  const isDeleted = (name: string): boolean => name.startsWith('/') && name.endsWith(' (deleted)') && !name.startsWith('/memfd:');
  for (const { process, fd, target } of descriptorsOf(scene, isDeleted)) {
    const stat = statLink(process.pid, `fd/${fd}`);
    if (stat === undefined || stat.links > 0 || stat.allocated <= scene.ghostLimitBytes || seen.has(stat.key)) continue;
    seen.add(stat.key);
    const path = printable(target.slice(0, -' (deleted)'.length));
    findings.push(fatal('deleted-file', `${who(process)} keeps the deleted file ${path} of ${formatBytes(stat.allocated)} open, more than the ghost limit of ${formatBytes(scene.ghostLimitBytes)}`, 'raise the ghost limit in the configuration (criu.ghostLimit), or let the program close the file', process));
  }
  return findings;
}

/** A pipe of which only one end is inside. Those that the container was started with are connected again. */
export function checkPipes(scene: Scene): Finding[] {
  const ends = new Map<string, { process: ProcessView; fd: number; kinds: Set<string> }>();
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('pipe:'))) {
    const end = descriptorAccess(process.pid, fd);
    const known = ends.get(target) ?? { process, fd, kinds: new Set() };
    if (end !== undefined) known.kinds.add(end);
    ends.set(target, known);
  }
  const isExternal = (target: string): boolean => ends.get(target)?.kinds.size === 1
    && !ends.get(target)!.kinds.has('both');
  const [init] = scene.tree.processes;
  const inits = (fd: number): 'read' | 'write' | undefined => {
    const end = init && descriptorAccess(init.pid, fd);
    return end === 'both' ? undefined : end;
  };
  const standard = new Set(standardPipes(
    { descriptors: init?.descriptors ?? [], before: scene.container.standard ?? [], end: inits, isExternal }
  ));
  for (const { fd, target } of init?.descriptors ?? []) if (fd <= 2) standard.add(target);
  return [...ends].filter(
    ([target]) => isExternal(target) && !standard.has(target)
  ).map(([target, { process, fd, kinds }]) => (
    warning('external-pipe', `the other end of ${who(process)}'s ${target}, descriptor ${fd}, is outside the container or closed`, kinds.has('read') ? 'after a restore it reads the end of input' : 'after a restore writing to it fails', process)
  ));
}
