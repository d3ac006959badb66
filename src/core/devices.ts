/**
 * Which device nodes somebody may have: a list of rules, as a devices cgroup has them. Plain data, so that it can go to
 * a worker.
 */

export interface Device {
  readonly kind: 'character' | 'block';
  readonly major: number;
  readonly minor: number;
}

export function deviceOf(block: boolean, major: number, minor: number): Device {
  return { kind: block ? 'block' : 'character', major, minor };
}

/** What overlays take for a deletion. It opens nothing. */
export function isWhiteout({ kind, major, minor }: Device): boolean {
  return kind === 'character' && major === 0 && minor === 0;
}

/** An absent kind or number stands for all. */
export interface DeviceRule {
  readonly allow: boolean;
  readonly kind?: Device['kind'] | undefined;
  readonly major?: number | undefined;
  readonly minor?: number | undefined;
}

/** The last rule that fits decides; without one the device is refused. */
export function allowsDevice(rules: readonly DeviceRule[], { kind, major, minor }: Device): boolean {
  return rules.findLast(
    (rule) => (rule.kind ?? kind) === kind && (rule.major ?? major) === major && (rule.minor ?? minor) === minor
  )?.allow ?? false;
}

/** "b 8:0", as /dev and the cgroup's files have it. */
export function deviceName({ kind, major, minor }: Device): string {
  return `${kind === 'block' ? 'b' : 'c'} ${major}:${minor}`;
}
