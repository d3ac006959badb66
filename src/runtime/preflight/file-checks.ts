/** Open files that CRIU cannot find again or does not know: message queues, memory that nobody may read, namespaces, files below a mount. */
import { readdirSync } from 'node:fs';
import { arch } from 'node:process';
import { mountOf } from '../../host/mountinfo.ts';
import { statLink, statOpen, withinRoot } from '../../host/still-files.ts';
import type { Finding } from '../types.ts';
import { printable } from '../text.ts';
import { descriptorFlags, descriptorInfo, descriptorMount, descriptorsOf, fatal, who, type ProcessView, type Scene } from './findings.ts';

/** O_DIRECT of a pipe is packet mode. */
const O_DIRECT = arch === 'arm64' ? 0o200000 : 0o40000;
/** PIDFD_THREAD is O_EXCL. */
const PIDFD_THREAD = 0o200;

const QUEUE_HINT = 'CRIU cannot save POSIX message queues: let the program close and remove them (mq_close, mq_unlink) before a checkpoint';

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

/** Whether an open file is a message queue: only the device of the container's mqueue file system tells, its path has one component. */
export function isMessageQueue(scene: Scene, process: ProcessView, fd: number, target: string): boolean {
  if (!/^\/[^/]+$/.test(target)) return false;
  const stat = statLink(process.pid, `fd/${fd}`);
  const device = stat?.key.split(' ')[0];
  return stat !== undefined && (stat.mode & S_IFMT) === S_IFREG && scene.mounts.some((mount) => mount.fsType === 'mqueue' && mount.device === device);
}

/** Names in the container's mqueue file system: CRIU refuses one that is not empty. Bind mounts are not looked into. */
function queueNames({ container, mounts }: Scene): string[] {
  const made = (container.spec.mounts ?? []).filter(({ type }) => type === 'mqueue').map(({ destination }) => destination);
  return mounts.filter(({ fsType, mountPoint }) => fsType === 'mqueue' && made.includes(mountPoint)).flatMap(({ id, mountPoint }) => (
    withinRoot(container.pid, mountPoint, (fd) => (statOpen(fd)?.mountId === id ? readdirSync(`/proc/self/fd/${fd}`) : [])) ?? []
  ));
}

export function checkMessageQueues(scene: Scene): Finding[] {
  const seen = new Set<string>();
  const findings: Finding[] = [];
  for (const { process, fd, target } of descriptorsOf(scene, (name) => /^\/[^/]+$/.test(name))) {
    if (seen.has(target) || !isMessageQueue(scene, process, fd, target)) continue;
    seen.add(target);
    findings.push(fatal('mqueue', `${who(process)} has the POSIX message queue ${printable(target)} open, descriptor ${fd}`, QUEUE_HINT, process));
  }
  const closed = queueNames(scene).filter((name) => !seen.has(`/${name}`));
  if (closed.length === 0) return findings;
  const more = closed.length === 1 ? '' : ` and ${closed.length - 1} more`;
  return [...findings, fatal('mqueue', `the container has the POSIX message queue /${printable(closed[0]!)}${more}, which nobody has open`, QUEUE_HINT)];
}

/** pidfds of single threads, and of processes outside the container. */
export function checkPidfds(scene: Scene): Finding[] {
  const inside = new Set(scene.tree.processes.map(({ pid }) => pid));
  const findings: Finding[] = [];
  for (const { process, fd } of descriptorsOf(scene, (name) => name === 'anon_inode:[pidfd]' || name === 'pidfd:[pidfd]')) {
    const pid = Number(/^Pid:\s*(-?\d+)$/m.exec(descriptorInfo(process, fd) ?? '')?.[1] ?? -1);
    if ((descriptorFlags(process, fd) & PIDFD_THREAD) !== 0) {
      findings.push(fatal('pidfd', `${who(process)} has a pidfd of a single thread open (PIDFD_THREAD), descriptor ${fd}`, 'let the program close it, or open the pidfd of the whole process', process));
    } else if (pid > 0 && !inside.has(pid) && scene.tree.unexamined === 0) {
      findings.push(fatal('pidfd', `${who(process)} has a pidfd of pid ${pid} open, descriptor ${fd}, a process outside the container`, 'let the program close it before a checkpoint', process));
    }
  }
  return findings;
}

/** How many descriptors of one pipe are looked at: children inherit all of them, and share their flags. */
const LOOKS_PER_PIPE = 4;

/** Only the end that writes shows it. */
export function checkPacketPipes(scene: Scene): Finding[] {
  const looks = new Map<string, number>();
  for (const { process, fd, target } of descriptorsOf(scene, (name) => name.startsWith('pipe:'))) {
    const look = looks.get(target) ?? 0;
    looks.set(target, look + 1);
    if (look >= LOOKS_PER_PIPE || (descriptorFlags(process, fd) & O_DIRECT) === 0) continue;
    return [fatal(
      'pipe', `${who(process)} has a pipe in packet mode (O_DIRECT), descriptor ${fd}`,
      'let the program make its pipe without O_DIRECT', process,
    )];
  }
  return [];
}

/** Secret memory that is open but not mapped; checkMappings sees what is mapped. */
export function checkSecretMemory(scene: Scene): Finding[] {
  return [...descriptorsOf(scene, (name) => name.startsWith('/secretmem'))].map(({ process, fd }) => (
    fatal('mapping', `${who(process)} has secret memory open (memfd_secret), descriptor ${fd}`, 'the kernel does not let anybody read it: switch its use off', process)
  ));
}

export function checkBpfMaps(scene: Scene): Finding[] {
  if (scene.toolchain.features['bpf_maps'] === true) return [];
  return [...descriptorsOf(scene, (name) => name === 'anon_inode:bpf-map')].slice(0, 1).map(({ process, fd }) => (
    fatal('bpf', `${who(process)} has a BPF map open, descriptor ${fd}, which this criu cannot save`, 'let the program close it, load the BPF program from outside the container, or install a criu that was built with libbpf', process)
  ));
}

/** A namespace that no process of the container is in: CRIU saves only those that have a process. */
export function checkNamespaceFiles(scene: Scene): Finding[] {
  const known = new Set(scene.tree.processes.flatMap(({ namespaces }) => Object.values(namespaces)));
  const isNamespace = (name: string): boolean => /^(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]$/.test(name);
  return [...descriptorsOf(scene, (name) => isNamespace(name) && !known.has(name))].slice(0, 1).map(({ process, fd, target }) => (
    fatal('nested-namespace', `${who(process)} holds the namespace ${target} open, descriptor ${fd}, in which no process of the container is`, 'let the program close it: CRIU saves a namespace only with a process in it', process)
  ));
}

/** Files that something was mounted over since they were opened. */
export function checkHiddenFiles(scene: Scene): Finding[] {
  const [init] = scene.tree.processes;
  const ids = new Map(scene.mounts.map((mount) => [mount.id, mount]));
  const hidden = (path: string, mount: number | undefined): boolean => {
    const lies = mount === undefined ? undefined : ids.get(mount);
    const covers = lies === undefined ? undefined : mountOf(scene.mounts, path);
    return covers !== undefined && covers.id !== lies?.id && covers.mountPoint.length > 1;
  };
  for (const process of scene.tree.processes) {
    if (process.namespaces.mnt !== init?.namespaces.mnt) continue;
    const cwd = process.directory;
    if (cwd !== undefined && hidden(cwd, statLink(process.pid, 'cwd')?.mountId)) return [hiddenFile(process, 'works in', cwd, '')];
    for (const { fd, target } of process.descriptors) {
      if (!target.startsWith('/') || target.endsWith(' (deleted)') || !hidden(target, descriptorMount(process, fd))) continue;
      return [hiddenFile(process, 'has', target, ` open, descriptor ${fd}`)];
    }
  }
  return [];
}

function hiddenFile(process: ProcessView, verb: string, path: string, how: string): Finding {
  return fatal('overmount', `${who(process)} ${verb} ${printable(path)}${how}, which is hidden below another mount`, 'let the program open it again or go elsewhere, or unmount what was mounted over it', process);
}

/** A tun device that a program serves: CRIU makes it again only in a network that it restores, which no runtime lets it do. */
export function checkTunDevices(scene: Scene): Finding[] {
  return [...descriptorsOf(scene, (name) => name === '/dev/net/tun')].flatMap(({ process, fd }) => {
    const device = /^iff:\s*(\S+)$/m.exec(descriptorInfo(process, fd) ?? '')?.[1];
    return device === undefined ? [] : [fatal('tun', `${who(process)} serves the network device ${printable(device)} (tun), descriptor ${fd}`, 'end the VPN or tunnel before a checkpoint, or run it outside the container', process)];
  });
}
