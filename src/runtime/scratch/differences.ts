/** In what a container that was rebuilt in a scratch place differs from the saved one. */
import { compare } from '../fidelity/compare.ts';
import type { Difference, FidelityRecord } from '../fidelity/types.ts';
import type { ScratchPlace } from './place.ts';

/** There, the file system is an overlay over the true one. */
const OVERLAY = 'the scratch place shows it through an overlay, so that nothing is written to the true one';

interface OfThePlace {
  readonly reason: string;
  /** Subjects: mount points at which the place has a view of its own, or all. */
  readonly where: 'viewed' | 'everywhere';
  /** The part of a list that differs; all of the value where it is absent. */
  readonly items?: RegExp;
}

/**
 * What the place itself makes different, and why: a restore would not see that. Everything else is compared as a
 * restore compares it, the container as a whole included: the place has cgroups, a network and namespaces of its own,
 * in which all of it can be as it was.
 */
const OF_THE_PLACE: Readonly<Record<string, OfThePlace>> = {
  mount: { reason: OVERLAY, where: 'viewed' },
  'file-system-options': { reason: OVERLAY, where: 'viewed' },
  'mount-part': { reason: OVERLAY, where: 'viewed' },
  'limits-cpu': {
    reason: 'the container still has its share of the real-time processor time, and the node need not have it twice',
    where: 'everywhere', items: /^cpu\.rt_/,
  },
  'limits-processes': {
    reason: 'criu counts among the processes of the place as long as that exists', where: 'everywhere',
  },
};

/** Mounts that lie on one another are told apart by a number. */
const mountPoint = (subject: string): string => subject.replace(/ \(\d+\)$/, '');

const without = (list: string, items: RegExp): string => (
  list.split('; ').filter((item) => !items.test(item)).join('; ')
);

function isOfThePlace({ attribute, subject, was, is }: Difference, viewed: ReadonlySet<string>): boolean {
  const { where, items } = OF_THE_PLACE[attribute] ?? {};
  if (where === undefined || was === undefined || is === undefined) return false;
  if (where === 'viewed' && !viewed.has(mountPoint(subject))) return false;
  return items === undefined || without(was, items) === without(is, items);
}

export function differencesInPlace(
  was: FidelityRecord, is: FidelityRecord, { viewed }: Pick<ScratchPlace, 'viewed'>,
): Difference[] {
  return compare(was, is).filter((difference) => !isOfThePlace(difference, viewed));
}
