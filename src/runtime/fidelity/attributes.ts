/** The table: every attribute, and who keeps it (docs/FIDELITY.md). */
import { CONTAINER_ATTRIBUTES } from './container-attributes.ts';
import { MOUNT_ATTRIBUTES } from './mount-attributes.ts';
import { NAMESPACES, UNTOLD_ATTRIBUTES } from './other-attributes.ts';
import { TASK_ATTRIBUTES } from './task-attributes.ts';
import type { Attribute } from './types.ts';

/** Without what a reading room knows of it. */
function plain({ name, meaning, keeper, noted, afterwards, untold, instead, finding }: Attribute): Attribute {
  return {
    name, meaning, keeper, ...(noted && { noted }), ...(afterwards && { afterwards }), ...(untold && { untold }),
    ...(instead !== undefined && { instead }),
    ...(finding !== undefined && { finding }),
  };
}

export const ATTRIBUTES: readonly Attribute[] = [
  { name: 'tasks', meaning: 'processes and threads, by their ids inside', keeper: 'kept' },
  ...NAMESPACES.map((name): Attribute => ({
    name: `namespace-${name}`, meaning: `whose ${name} namespace it is in`,
    keeper: name === 'cgroup' ? 'put-back' : 'kept',
  })),
  ...[...TASK_ATTRIBUTES, ...MOUNT_ATTRIBUTES, ...CONTAINER_ATTRIBUTES, ...UNTOLD_ATTRIBUTES].map(plain),
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
