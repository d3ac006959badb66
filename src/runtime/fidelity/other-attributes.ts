/** Rows that have no file to read them from. */
import type { Attribute } from './types.ts';

/** namespace-net and the like: "node", or a letter for each that the container has: "a" for the first seen. */
export const NAMESPACES = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'] as const;

const untold = (name: string, meaning: string): Attribute => ({ name, meaning, keeper: 'kept', untold: true });
const lost = (name: string, meaning: string): Attribute => (
  { name, meaning, keeper: 'lost', untold: true, finding: 'lost' }
);

/** What the kernel tells nobody but the process itself (prctl(2), getitimer(2)), or nobody at all. */
export const UNTOLD_ATTRIBUTES: readonly Attribute[] = [
  untold('securebits', 'what root means to exec and to changes of user'),
  untold('dumpable', 'whether its own user may trace it'),
  untold('parent-death-signal', 'signal that it gets when its parent ends'),
  untold('child-subreaper', 'whether orphans below it become its children'),
  untold('interval-timers', 'timers of setitimer'),
  {
    name: 'file-attributes', meaning: 'extended attributes, ACLs and file capabilities of files in a tmpfs',
    keeper: 'kept', untold: true, instead: 'what tar could not set is a difference',
  },
  lost('landlock', 'what Landlock forbids it'),
  lost('socket-options', 'options of sockets that CRIU does not know'),
  lost('cgroup-settings', 'limits of cgroups below the container\'s'),
];
