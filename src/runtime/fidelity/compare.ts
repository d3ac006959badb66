/** Two records of one container, before its checkpoint and after its restore. */
import { ATTRIBUTES, NAMESPACES } from './attributes.ts';
import { MOUNT_ATTRIBUTES } from './mount-attributes.ts';
import { TASK_ATTRIBUTES } from './task-attributes.ts';
import type { Difference, FidelityRecord } from './types.ts';

/** More than anybody reads; a list in an error is bounded. */
const MAX_DIFFERENCES = 200;

const threaded = new Set(TASK_ATTRIBUTES.filter(({ perThread }) => perThread).map(({ name }) => name));
const ofMounts = new Set(MOUNT_ATTRIBUTES.map(({ name }) => name));

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
 * Letters only say which tasks share a namespace, and criu makes the tasks in another order: any letter may stand for any
 * other, always for the same one.
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
  for (const { name } of ATTRIBUTES) {
    if (was.attributes[name] === undefined || is.attributes[name] === undefined) continue;
    const letters = namespaces.has(name) ? new Letters() : undefined;
    const subjects = ofMounts.has(name) ? mounts : threaded.has(name) ? [...tasks, ...threads] : tasks;
    for (const subject of subjects) {
      const [before, after] = [valueOf(was, name, subject), valueOf(is, name, subject)];
      if (letters === undefined ? before === after : letters.same(before, after)) continue;
      differences.push({ attribute: name, subject, was: before, is: after });
    }
  }
  return differences.slice(0, MAX_DIFFERENCES);
}

/** "capabilities-effective of process 7: was 0000000000000000, is 000001ffffffffff". */
export function describeDifference({ attribute, subject, was, is }: Difference): string {
  const whose = subject === '' ? '' : /^\d+\/\d+$/.test(subject) ? ` of thread ${subject}` : /^\d+$/.test(subject) ? ` of process ${subject}` : ` of ${JSON.stringify(subject)}`;
  return `${attribute}${whose}: was ${was ?? 'absent'}, is ${is ?? 'absent'}`;
}
