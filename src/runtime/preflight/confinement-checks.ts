/**
 * What processes of a container have put upon themselves, and CRIU leaves out: Landlock, execution domains, settings of
 * cgroups of their own.
 */
import { readCgroups, readProc } from '../../host/proc.ts';
import { landlockVersion } from '../../host/task-calls.ts';
import { cgroupPlaces } from '../cgroup.ts';
import { printable } from '../text.ts';
import { lost, who, type Scene } from './findings.ts';
import type { Finding } from '../types.ts';

/** The part of config.json's process that is asked here. */
interface Program {
  readonly noNewPrivileges?: boolean;
}

/**
 * The kernel tells nobody of Landlock. Without CAP_SYS_ADMIN a process must first give up new privileges: one that has
 * done so by itself may use it. Where config.json does it for all, nothing is to be seen.
 */
export function checkLandlock({ container, tree }: Scene): Finding[] {
  if ((container.spec.process as Program | undefined)?.noNewPrivileges === true || landlockVersion() < 1) return [];
  const [first, ...others] = tree.processes.filter(({ status }) => status.get('NoNewPrivs') === '1');
  if (first === undefined) return [];
  const more = others.length === 0 ? '' : ` and of ${others.length} more`;
  return [lost(
    `what Landlock may forbid to ${who(first)}${more} (new privileges were given up by the program itself, as those `
    + 'do that use it)', 'if it uses Landlock, restart it after a restore: until then it may do what its container may',
    first,
  )];
}

/** setarch(8), personality(2): CRIU writes it down and never sets it. */
export function checkPersonalities({ tree }: Scene): Finding[] {
  const [first, ...others] = tree.processes.filter(({ pid }) => !/^0*\s*$/.test(readProc(pid, 'personality') ?? ''));
  if (first === undefined) return [];
  const more = others.length === 0 ? '' : ` and of ${others.length} more`;
  return [lost(
    `the execution domain (personality) of ${who(first)}${more}`,
    'what it does to memory that is mapped stays; start the program without setarch, or restart it after a restore '
    + 'if it needs it later', first,
  )];
}

/** Their processes go back into them (docs/FIDELITY.md). */
export function checkInnerCgroups({ container, tree }: Scene): Finding[] {
  const places = cgroupPlaces(container.pid, container.freezer?.directory);
  const outer = new Map(places.map(({ name, path }) => [name, path]));
  const entries = tree.processes.flatMap(({ pid }) => readCgroups(pid));
  const inner = new Set(entries.flatMap(({ hierarchy, controllers, path }) => {
    const of = outer.get(hierarchy === 0 ? 'unified' : controllers.join(','));
    return of !== undefined && path.startsWith(`${of}/`) ? [path] : [];
  }));
  const [first] = inner;
  if (first === undefined) return [];
  const more = inner.size > 1 ? ` and ${inner.size - 1} more` : '';
  return [lost(
    `limits and settings of the cgroup ${printable(first)}${more}, which was made inside the container,`,
    'let the program set them again: its processes go back into a cgroup of that name, which has none',
  )];
}
