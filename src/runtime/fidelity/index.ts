/** What the kernel says of a container, before a checkpoint and after a restore (docs/FIDELITY.md). */
export { ATTRIBUTES, attributeOf, isNoted } from './attributes.ts';
export { blockedFromImages } from './blocked-signals.ts';
export { putBackCgroups } from './cgroups-back.ts';
export { compare, describeDifference } from './compare.ts';
export { unlike } from './expected.ts';
export { closeMasks, putBackMounts } from './mounts-back.ts';
export { observe } from './observe.ts';
export { surroundingsOf, type Surroundings } from './surroundings.ts';
export type * from './types.ts';
