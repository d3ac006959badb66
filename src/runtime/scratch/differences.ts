/** In what a container that was rebuilt in a scratch place differs from the saved one. */
import { compare } from '../fidelity/compare.ts';
import type { Difference, FidelityRecord } from '../fidelity/types.ts';
import type { ScratchPlace } from './place.ts';

/** Of a mount: what depends on the file system, which in a scratch place is an overlay over the true one. */
const OF_FILE_SYSTEM: ReadonlySet<string> = new Set(['mount', 'file-system-options', 'mount-part']);

/** Mounts that lie on one another are told apart by a number. */
const mountPoint = (subject: string): string => subject.replace(/ \(\d+\)$/, '');

/** Less what the place itself makes different; a restore would not see that. */
export function differencesInPlace(was: FidelityRecord, is: FidelityRecord, { viewed }: ScratchPlace): Difference[] {
  return compare(was, is).filter(({ attribute, subject, was: before, is: after }) => {
    const bothThere = before !== undefined && after !== undefined;
    return !(bothThere && OF_FILE_SYSTEM.has(attribute) && viewed.has(mountPoint(subject)));
  });
}
