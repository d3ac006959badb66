/** Limits that a restore would hit: the processes of the container's cgroup, descriptors, limits that the agent may not raise. */
import { dirname } from 'node:path';
import { readProc } from '../../host/proc.ts';
import { isManaged } from '../bundle/restore-spec.ts';
import type { Finding } from '../types.ts';
import { fatal, who, type Scene } from './findings.ts';
import { cgroupNumber, controllerDirectory } from './memory.ts';
import { mayRaiseLimits } from './task-checks.ts';

/** While it rebuilds the processes, criu and its scripts have this many of their own in the container's cgroup (tried: 10 processes need a limit of 14). */
const RESTORE_HELPERS = 4;

/**
 * Its own limit is lifted while criu is there (roomForRestore), but not that of an engine, in whose bundle the container
 * comes back, and none of the cgroups above.
 */
export function checkProcessLimit({ container }: Scene): Finding[] {
  const directory = controllerDirectory(container.pid, 'pids')?.directory;
  if (directory === undefined) return [];
  if (isManaged(container.spec.linux?.cgroupsPath ?? '')) return fullCgroup(directory, 'the container has', 'its limit');
  for (let above = dirname(directory); above !== dirname(above); above = dirname(above)) {
    const [found] = fullCgroup(above, 'the cgroup above the container has', 'the limit of that');
    if (found !== undefined) return [found];
  }
  return [];
}

function fullCgroup(directory: string, who: string, whose: string): Finding[] {
  const limit = cgroupNumber(directory, 'pids.max');
  const now = cgroupNumber(directory, 'pids.current');
  if (limit === undefined || now === undefined || limit - now >= RESTORE_HELPERS) return [];
  return [fatal('limit', `${who} ${now} processes and threads, and ${whose} is ${limit} (pids.max)`, `raise the limit by ${RESTORE_HELPERS - limit + now} at least (runc update --pids-limit): a restore needs room for criu and its helpers beside them`)];
}

/** "Max open files            1024                 524288               files" → its soft and hard value. */
export function parseLimits(text: string): ReadonlyMap<string, { readonly soft: number; readonly hard: number }> {
  const value = (word: string | undefined): number => (word === 'unlimited' ? Number.POSITIVE_INFINITY : Number(word));
  const rows = [...text.matchAll(/^(Max [a-z ]+?)\s{2,}(\d+|unlimited)\s+(\d+|unlimited)\b/gm)];
  return new Map(rows.map(([, name = '', soft, hard]) => [name, { soft: value(soft), hard: value(hard) }]));
}

/** What the agent's own hard limits and capabilities allow to give back. */
export function checkOwnLimits({ tree }: Scene): Finding[] {
  if (mayRaiseLimits()) return [];
  const own = parseLimits(readProc('self', 'limits') ?? '');
  // Children have the limits of their parents, mostly.
  const seen = new Set<string>();
  for (const process of tree.processes) {
    const limits = readProc(process.pid, 'limits') ?? '';
    if (seen.has(limits)) continue;
    seen.add(limits);
    for (const [name, { hard }] of parseLimits(limits)) {
      const mine = own.get(name)?.hard ?? Number.POSITIVE_INFINITY;
      if (hard <= mine) continue;
      const what = name.replace(/^Max /, '');
      return [fatal('limit', `${who(process)} may have more ${what} (${hard}) than the agent (${mine}), which lacks CAP_SYS_RESOURCE to give them back`, `give the agent CAP_SYS_RESOURCE (privileged), or raise its own limit of ${what}`, process)];
    }
  }
  return [];
}
