/** Seccomp filters out of seccomp.img (images/seccomp.proto of CRIU): which follow each other, and for whom they are. */
import { StasisError } from '../../core/errors.ts';
import { singleEntry } from './framing.ts';
import { onlyOnce } from './wire.ts';

export interface SeccompFilter {
  /** The filter that is installed after it. */
  readonly newer: number | undefined;
  /** The first thread installs it for the others (SECCOMP_FILTER_FLAG_TSYNC). */
  readonly forAllThreads: boolean;
}

const TSYNC = 1;

/** By number, as core-TID.img names them. Throws OBJECT_CORRUPT, also for chains that lead nowhere or do not end. */
export function readFilters(bytes: Uint8Array): SeccompFilter[] {
  const filters: SeccompFilter[] = [];
  for (const all of onlyOnce(singleEntry(bytes, 'seccomp', 'seccomp.img'), 'seccomp.img', 1)) {
    if (all.field !== 1) continue;
    let newer: number | undefined;
    let flags = 0;
    for (const one of onlyOnce(all.bytes(), 'seccomp.img')) {
      if (one.field === 2) newer = one.uint32();
      else if (one.field === 3) flags = one.uint32();
    }
    filters.push({ newer, forAllThreads: (flags & TSYNC) !== 0 });
  }
  for (const number of filters.keys()) chain(filters, number);
  return filters;
}

/** A filter, and all that are installed after it. */
export function chain(filters: readonly SeccompFilter[], oldest: number): SeccompFilter[] {
  const found: SeccompFilter[] = [];
  for (let at: number | undefined = oldest; at !== undefined; at = filters[at]?.newer) {
    const filter = filters[at];
    if (filter === undefined) throw new StasisError('OBJECT_CORRUPT', `seccomp.img has no filter ${at}`);
    if (found.includes(filter)) throw new StasisError('OBJECT_CORRUPT', 'seccomp.img has a filter that comes after itself');
    found.push(filter);
  }
  return found;
}
