/**
 * The pipes through which a container talks with whoever started it. runc and crun note what descriptors 0 to 2 of its
 * first process are at the moment of the dump (descriptors.json) and connect these pipes again at a restore. A shell
 * that is saved in the middle of `echo … >&2` or `echo … > file`, or after `exec 3>&1 >file`, has the pipe on
 * another descriptor: it is looked for there.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { descriptorAccess, listDescriptors, type Descriptor } from '../host/proc.ts';
import type { Container } from './types.ts';

const MAX_DESCRIPTORS = 1024;
const isPipe = (target: string): boolean => target.startsWith('pipe:');
const inode = (target: string): number => Number(/\d+/.exec(target)?.[0]);

/** "read" or "write"; undefined when it is neither, or closed meanwhile. */
export type PipeEnd = (fd: number) => 'read' | 'write' | undefined;

interface Look {
  /** Of the first process, in ascending order. */
  readonly descriptors: readonly Descriptor[];
  /** What 0 to 2 were a moment before. */
  readonly before: readonly string[];
  readonly end: PipeEnd;
  /** Whether the container holds only this end of that pipe; asked only where something is redirected. */
  readonly isExternal: (target: string) => boolean;
}

/** What the standard descriptors 0, 1 and 2 of the first process are when it redirects nothing. */
export function standardPipes({ descriptors, before, end, isExternal }: Look): [string, string, string] {
  const held = new Set(descriptors.map(({ target }) => target));
  const now = [0, 1, 2].map((slot) => descriptors.find(({ fd }) => fd === slot)?.target ?? '');
  const [, out = '', err = ''] = now;
  const isRedirected = [!isPipe(now[0] ?? ''), !areApart(out, err), !areApart(out, err)];
  // What was seen before helps where one is redirected now; it may have been redirected itself.
  const [stdin = '', stdout = '', stderr = ''] = now.map((target, slot) => {
    const earlier = before[slot] ?? '';
    return isRedirected[slot] === true && isPipe(earlier) && held.has(earlier) ? earlier : target;
  });
  // In the order in which they were made.
  const elsewhere = (wanted: 'read' | 'write'): string[] => {
    const found = descriptors.filter(
      ({ fd, target }) => isPipe(target) && ![stdin, stdout, stderr].includes(target) && end(fd) === wanted
    );
    return [...new Set(found.map(({ target }) => target))].filter(isExternal).sort((a, b) => inode(a) - inode(b));
  };
  const input = isPipe(stdin) ? stdin : elsewhere('read')[0] ?? stdin;
  const apart = areApart(stdout, stderr);
  return [input, ...(apart ? [stdout, stderr] as const : outputs(stdout, stderr, elsewhere('write')))];
}

function areApart(out: string, err: string): boolean {
  return isPipe(out) && isPipe(err) && out !== err;
}

/** `spare`: pipes that the standard output or error may have been, the oldest first. */
function outputs(out: string, err: string, [first, second]: readonly string[]): [string, string] {
  if (first === undefined) return [out, err];
  if (!isPipe(out)) return [first, isPipe(err) ? err : second ?? err];
  if (!isPipe(err)) return [out, first];
  // One of two is on both. That of the standard output is most often made first; the kernel tells nothing better.
  return inode(first) < inode(out) ? [first, err] : [out, first];
}

function pipeEnd(pid: number, fd: number): 'read' | 'write' | undefined {
  const access = descriptorAccess(pid, fd);
  return access === 'both' ? undefined : access;
}

/** Which ends of each pipe the processes hold. */
function endsOfPipes(pids: readonly number[]): Map<string, Set<string>> {
  const ends = new Map<string, Set<string>>();
  for (const pid of pids) {
    for (const { fd, target } of listDescriptors(pid, MAX_DESCRIPTORS).filter((held) => isPipe(held.target))) {
      const known = ends.get(target) ?? new Set();
      ends.set(target, known.add(descriptorAccess(pid, fd) ?? ''));
    }
  }
  return ends;
}

/** The same of a frozen container. `pids`: all its processes, by their pids on the node. */
export function readStandardPipes(
  { pid, standard }: Pick<Container, 'pid' | 'standard'>, pids: () => readonly number[],
): [string, string, string] {
  // One look at all of them, and only where something is redirected: the container stands still meanwhile.
  let ends: Map<string, Set<string>> | undefined;
  const isExternal = (target: string): boolean => {
    ends ??= endsOfPipes(pids());
    return ends.get(target)?.size === 1;
  };
  return standardPipes({
    descriptors: listDescriptors(pid, MAX_DESCRIPTORS), before: standard ?? [], end: (fd) => pipeEnd(pid, fd),
    isExternal,
  });
}

/** Makes descriptors.json of written images say which pipes are to be connected again. */
export function noteStandardPipes(imageDir: string, pipes: readonly [string, string, string]): void {
  const path = join(imageDir, 'descriptors.json');
  const noted: unknown = JSON.parse(readFileSync(path, 'utf8'));
  if (!Array.isArray(noted)) return;
  const settled = pipes.map((target, slot) => (isPipe(target) ? target : noted[slot] as unknown));
  if (settled.some((target, slot) => target !== noted[slot])) writeFileSync(path, JSON.stringify(settled));
}
