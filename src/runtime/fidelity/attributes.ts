/** The table: every attribute that is compared, and who keeps it (docs/FIDELITY.md). */
import { MOUNT_ATTRIBUTES } from './mount-attributes.ts';
import { TASK_ATTRIBUTES } from './task-attributes.ts';
import type { Attribute } from './types.ts';

/** namespace-net and the like: "node", or a letter for each that the container has: "a" for the first seen. */
export const NAMESPACES = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'] as const;

export const ATTRIBUTES: readonly Attribute[] = [
  { name: 'tasks', meaning: 'processes and threads, by their ids inside', keeper: 'kept' },
  ...NAMESPACES.map((name): Attribute => ({ name: `namespace-${name}`, meaning: `whose ${name} namespace it is in`, keeper: 'kept' })),
  ...TASK_ATTRIBUTES.map(({ name, meaning, keeper, noted }) => ({ name, meaning, keeper, ...(noted === undefined ? {} : { noted }) })),
  ...MOUNT_ATTRIBUTES.map(({ name, meaning, keeper }) => ({ name, meaning, keeper })),
];

const byName = new Map(ATTRIBUTES.map((attribute) => [attribute.name, attribute]));

/** Undefined for a name that is not in the table. */
export function attributeOf(name: string): Attribute | undefined {
  return byName.get(name);
}

/** Whether a difference is told, and refuses nothing. */
export function isNoted(name: string): boolean {
  const attribute = byName.get(name);
  return attribute?.keeper === 'lost' || attribute?.noted === true;
}
