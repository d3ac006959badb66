/** Reading the record of a container that stands still: frozen, stopped, or held by criu. */
import { readMountinfo } from '../../host/mountinfo.ts';
import { listChildren, listThreads, readCgroups, readNamespaces } from '../../host/proc.ts';
import { CONTAINER_ATTRIBUTES, readContainer } from './container-attributes.ts';
import { Descriptors } from './descriptors.ts';
import { MOUNT_ATTRIBUTES, mountNames } from './mount-attributes.ts';
import { NAMESPACES } from './other-attributes.ts';
import type { Surroundings } from './surroundings.ts';
import { TASK_ATTRIBUTES, readTaskFiles, type Reading, type TaskAttribute, type TaskFiles } from './task-attributes.ts';
import type { FidelityRecord, Observation } from './types.ts';

/** Beyond these nothing is read, so that the time in the freeze and the size of a manifest are bounded; the record says so. */
const MAX_TASKS = 4096;
const MAX_THREADS = 4096;
const MAX_MOUNTS = 4096;

type Values = Map<string, Map<string, string>>;

/** What cannot be read is empty, so that it is not taken for the usual value. */
function put(values: Values, attribute: string, subject: string, value = ''): void {
  const subjects = values.get(attribute) ?? new Map<string, string>();
  values.set(attribute, subjects.set(subject, value));
}

/** Host pids of a process and all below it: what criu saves. */
function family(init: number): number[] {
  const found = [init];
  for (const pid of found) {
    found.push(...listChildren(pid));
    if (found.length > MAX_TASKS) break;
  }
  return found;
}

function insideId({ status, tid }: TaskFiles): string {
  return status.get('NSpid')?.split(/\s+/).at(-1) ?? String(tid);
}

/** Letters in the order in which the namespaces are seen, because their numbers are new after a restore. */
class Roles {
  readonly #node = readNamespaces(1);
  readonly #own = readNamespaces('self');
  readonly #letters = new Map<string, string>();
  readonly #counts = new Map<string, number>();

  of(name: (typeof NAMESPACES)[number], namespace: string | undefined): string {
    if (namespace === undefined) return '';
    if (namespace === this.#node[name] || namespace === this.#own[name]) return 'node';
    const known = this.#letters.get(namespace);
    if (known !== undefined) return known;
    const count = this.#counts.get(name) ?? 0;
    this.#counts.set(name, count + 1);
    const letter = count < 26 ? String.fromCharCode(97 + count) : `z${count}`;
    this.#letters.set(namespace, letter);
    return letter;
  }
}

/** The processes of a container by their subjects, as in a record. */
export function processesOf(init: number): readonly { readonly pid: number; readonly subject: string }[] {
  return inOrder(family(init));
}

/** By their ids inside: in that order letters are given, whatever the order of /proc is. */
function inOrder(pids: readonly number[]): { pid: number; files: TaskFiles; subject: string }[] {
  const tasks = pids.flatMap((pid) => {
    const files = readTaskFiles(pid);
    return files === undefined ? [] : [{ pid, files, subject: insideId(files) }];
  });
  return tasks.sort((a, b) => Number(a.subject) - Number(b.subject));
}

/**
 * Synchronous; about a fifth of a millisecond for a task. `init` is the container's first process, by its pid on the
 * node.
 * `rows`: "places" are namespaces and mounts only, which criu has finished before it sets what is a task's own. Without
 * `surroundings` there are no rows of the container as a whole, and none of cgroups.
 */
export function observe(init: number, rows: 'all' | 'places' = 'all', surroundings?: Surroundings): FidelityRecord {
  const ofTasks = rows === 'all' ? TASK_ATTRIBUTES : [];
  const values: Values = new Map();
  const pids = family(init);
  let cut = pids.length > MAX_TASKS;
  const [tasks, threads]: [string[], string[]] = [[], []];
  const roles = new Roles();
  const reading: Reading = { descriptors: new Descriptors(init), surroundings };
  for (const { pid, files, subject } of inOrder(pids.slice(0, MAX_TASKS))) {
    tasks.push(subject);
    for (const { name, read } of ofTasks) put(values, name, subject, read(files, reading));
    const namespaces = readNamespaces(pid);
    for (const name of NAMESPACES) put(values, `namespace-${name}`, subject, roles.of(name, namespaces[name]));
    if (files.status.get('Threads') === '1') continue;
    for (const tid of listThreads(pid)) {
      if (tid === pid) continue;
      if (threads.length >= MAX_THREADS) cut = true;
      else threads.push(...observeThread(values, subject, tid, ofTasks, reading));
    }
  }
  const mounts = readMountinfo(init);
  const cgroups = readCgroups(init);
  const names = mountNames(mounts);
  cut ||= mounts.length > MAX_MOUNTS;
  for (const [index, mount] of mounts.slice(0, MAX_MOUNTS).entries()) {
    for (const { name, read } of MOUNT_ATTRIBUTES) put(values, name, names[index] ?? '', read(mount, cgroups));
  }
  if (rows === 'all' && surroundings !== undefined) {
    const container = readContainer(init, surroundings);
    for (const { name, read } of CONTAINER_ATTRIBUTES) put(values, name, '', read(container));
  }
  return {
    version: 1, tasks: byNumber(tasks), threads: byNumber(threads), mounts: names.slice(0, MAX_MOUNTS).sort(),
    attributes: Object.fromEntries([...values].flatMap(([name, subjects]) => condense(name, subjects))), ...(cut ? { cut } : {}),
  };
}

function observeThread(
  values: Values, task: string, tid: number, rows: readonly TaskAttribute[], reading: Reading,
): string[] {
  const files = readTaskFiles(tid);
  if (files === undefined) return [];
  const subject = `${task}/${insideId(files)}`;
  for (const { name, perThread, read } of rows) if (perThread) put(values, name, subject, read(files, reading));
  return [subject];
}

function byNumber(subjects: string[]): string[] {
  return subjects.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10) || Number(a.split('/')[1] ?? 0) - Number(b.split('/')[1] ?? 0));
}

/** An attribute that this kernel does not have is left out. */
function condense(name: string, subjects: ReadonlyMap<string, string>): [string, Observation][] {
  const counts = new Map<string, number>();
  for (const value of subjects.values()) counts.set(value, (counts.get(value) ?? 0) + 1);
  const [usual = ''] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [];
  const others = Object.fromEntries([...subjects].filter(([, value]) => value !== usual));
  if (usual === '' && counts.size === 1) return [];
  return [[name, { usual, ...(Object.keys(others).length === 0 ? {} : { others }) }]];
}
