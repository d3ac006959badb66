/** Two records of one container, before its checkpoint and after its restore. */
import { ATTRIBUTES } from './attributes.ts';
import { CONTAINER_ATTRIBUTES } from './container-attributes.ts';
import { ALL_CGROUPS, MOUNT_ATTRIBUTES, OWN_CGROUPS } from './mount-attributes.ts';
import { NAMESPACES } from './other-attributes.ts';
import { TASK_ATTRIBUTES } from './task-attributes.ts';
import { FOR_A_CALL, type Difference, type FidelityRecord } from './types.ts';

/** More than anybody reads; a list in an error is bounded. */
const MAX_DIFFERENCES = 200;

const threaded = new Set(TASK_ATTRIBUTES.filter(({ perThread }) => perThread).map(({ name }) => name));
const ofMounts = new Set(MOUNT_ATTRIBUTES.map(({ name }) => name));
const ofContainer = new Set(CONTAINER_ATTRIBUTES.map(({ name }) => name));

export function valueOf({ attributes }: FidelityRecord, name: string, subject: string): string | undefined {
  const observation = attributes[name];
  if (observation === undefined) return undefined;
  return observation.others !== undefined && Object.hasOwn(observation.others, subject) ? observation.others[subject] : observation.usual;
}

function missing(was: readonly string[], is: readonly string[], attribute: string): Difference[] {
  const [before, after] = [new Set(was), new Set(is)];
  return [
    ...was.filter((subject) => !after.has(subject)).map((subject) => ({ attribute, subject, was: 'there', is: undefined })),
    ...is.filter((subject) => !before.has(subject)).map((subject) => ({ attribute, subject, was: undefined, is: 'there' })),
  ];
}

const namespaces: ReadonlySet<string> = new Set(NAMESPACES.map((name) => `namespace-${name}`));

/**
 * Letters only say which tasks share a namespace, and criu makes the tasks in another order: any letter may stand for
 * any other, always for the same one.
 */
class Letters {
  readonly #there = new Map<string, string>();
  readonly #back = new Map<string, string>();

  same(before: string | undefined, after: string | undefined): boolean {
    // A namespace of its own instead of one of the node's: it sees less, not more.
    if (before === 'node') return true;
    if (!before || !after || after === 'node') return before === after;
    if ((this.#there.get(before) ?? after) !== after || (this.#back.get(after) ?? before) !== before) return false;
    this.#there.set(before, after);
    this.#back.set(after, before);
    return true;
  }
}

/**
 * What differs, at most 200, in the order of the table. Attributes that one of the two has not read (an older record, another
 * kernel) are passed over. A namespace of its own instead of one of the node's is no difference: it sees less, not more.
 */
export function compare(was: FidelityRecord, is: FidelityRecord): Difference[] {
  const whole = was.cut !== true && is.cut !== true;
  const differences = whole ? [...missing(was.tasks, is.tasks, 'tasks'), ...missing(was.threads, is.threads, 'tasks'), ...missing(was.mounts, is.mounts, 'mount')] : [];
  const common = (before: readonly string[], after: readonly string[]): string[] => {
    const there = new Set(after);
    return before.filter((subject) => there.has(subject));
  };
  const tasks = common(was.tasks, is.tasks);
  const threads = common(was.threads, is.threads);
  const mounts = common(was.mounts, is.mounts);
  const both = [...tasks, ...threads];
  for (const { name, afterwards } of ATTRIBUTES) {
    if (was.attributes[name] === undefined || is.attributes[name] === undefined || afterwards === true) continue;
    const letters = namespaces.has(name) ? new Letters() : undefined;
    const subjects = ofContainer.has(name) ? [''] : ofMounts.has(name) ? mounts : threaded.has(name) ? both : tasks;
    for (const subject of subjects) {
      const [before, after] = [valueOf(was, name, subject), valueOf(is, name, subject)];
      if (letters === undefined ? before === after : letters.same(before, after)) continue;
      if (before === FOR_A_CALL || after === FOR_A_CALL) continue;
      // As with namespaces: it sees less, not more. Older records do not say it.
      if ((before === ALL_CGROUPS || before === '') && after === OWN_CGROUPS) continue;
      differences.push({ attribute: name, subject, was: before, is: after });
    }
  }
  return differences.slice(0, MAX_DIFFERENCES);
}

/** "capabilities-effective of process 7: was 0000000000000000, is 000001ffffffffff". */
export function describeDifference({ attribute, subject, was, is }: Difference): string {
  const whose = subject === '' ? '' : /^\d+\/\d+$/.test(subject) ? ` of thread ${subject}` : /^\d+$/.test(subject) ? ` of process ${subject}` : ` of ${JSON.stringify(subject)}`;
  const [before, after] = [only(was, is), only(is, was)];
  return `${attribute}${whose}: was ${before ?? 'absent'}, is ${after ?? 'absent'}`;
}

/** Of two lists what the other has not. */
function only(list: string | undefined, other: string | undefined): string | undefined {
  if (list === undefined || other === undefined || !`${list}${other}`.includes('; ')) return list;
  const common = new Set(other.split('; '));
  return list.split('; ').filter((item) => !common.has(item)).join('; ') || 'without these';
}
