/** Epolls that watch what their process has closed: CRIU finds the watched file of each entry among the descriptors of one process. */
import type { Finding } from '../types.ts';
import { descriptorInfo, fatal, who, type ProcessView, type Scene } from './findings.ts';

/** Entries that are looked at in one epoll; beyond it the dump tells. */
const MAX_ENTRIES = 8192;

interface Watch {
  readonly fd: number;
  readonly inode: number;
}

/** "tfd:        5 events:       19 data:                5  pos:0 ino:3f2a1 sdev:9": the inode is hexadecimal. */
export function parseWatches(info: string): Watch[] {
  const found: Watch[] = [];
  for (const [, fd, inode] of info.matchAll(/^tfd:\s*(\d+) .*\bino:([0-9a-f]+)/gm)) {
    if (found.push({ fd: Number(fd), inode: Number.parseInt(inode ?? '', 16) }) >= MAX_ENTRIES) break;
  }
  return found;
}

/** The tree as CRIU walks it: each process before its children. An epoll that several hold is saved with the first of them. */
export function inDumpOrder(processes: readonly ProcessView[]): ProcessView[] {
  const children = Map.groupBy(processes.slice(1), ({ ppid }) => ppid);
  const ordered: ProcessView[] = [];
  const waiting = processes.slice(0, 1);
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    ordered.push(next);
    waiting.push(...(children.get(next.pid) ?? []).toReversed());
  }
  return ordered;
}

function inodeOf(target: string): number | undefined {
  const inode = /^(?:socket|pipe):\[(\d+)\]$/.exec(target)?.[1];
  return inode === undefined ? undefined : Number(inode);
}

/** Descriptors that the epoll watches although its process has closed them. `anonymous` is the inode that all anonymous files share. */
function closedWatches(process: ProcessView, watches: readonly Watch[], anonymous: number | undefined): Watch[] {
  const targets = new Map(process.descriptors.map(({ fd, target }) => [fd, target]));
  const inodes = new Set(process.descriptors.map(({ target }) => inodeOf(target)));
  const hasAnonymous = process.descriptors.some(({ target }) => target.startsWith('anon_inode:'));
  return watches.filter(({ fd, inode }) => {
    const target = targets.get(fd);
    const open = target === undefined ? undefined : inodeOf(target);
    if (target !== undefined && (open === undefined || open === inode)) return false;
    // The same file under another number is found, too; which of the anonymous ones it is cannot be told from here.
    return !inodes.has(inode) && !(inode === anonymous && hasAnonymous);
  });
}

export function checkEpolls({ tree }: Scene): Finding[] {
  const findings: Finding[] = [];
  const seen = new Set<string>();
  for (const process of inDumpOrder(tree.processes)) {
    for (const { fd } of process.descriptors.filter(({ target }) => target === 'anon_inode:[eventpoll]')) {
      const info = descriptorInfo(process, fd) ?? '';
      const watches = parseWatches(info);
      // Two processes that hold one epoll show the same entries.
      const key = [...info.matchAll(/^tfd:.*$/gm)].map(([line]) => line).join('\n');
      if (watches.length === 0 || seen.has(key)) continue;
      seen.add(key);
      const [first, ...more] = closedWatches(process, watches, Number(/^ino:\s*(\d+)$/m.exec(info)?.[1]));
      if (first === undefined) continue;
      const others = more.length === 0 ? '' : ` and ${more.length} more`;
      findings.push(fatal('epoll', `${who(process)} has an epoll, descriptor ${fd}, that watches descriptor ${first.fd}${others}, which this process has closed`, 'take it out of the epoll (EPOLL_CTL_DEL) before it is closed: a copy in a child process keeps the watch alive', process));
    }
  }
  return findings;
}
