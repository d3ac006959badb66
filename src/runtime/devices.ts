/** What config.json says of devices (OCI runtime specification, "Devices" and "Allowed Device list"). */
import type { DeviceRule } from '../core/devices.ts';
import { hasUserNamespace, isObject } from './spec.ts';
import type { OciSpec } from './types.ts';

const NAMED: readonly (readonly [number, number])[] = [[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 1], [5, 2]];
const TERMINALS = { first: 136, last: 143 } as const;

/**
 * Of every container ("Default Devices"): null, zero, full, random, urandom, tty, console, ptmx, and ends of terminals.
 */
export const DEFAULT_DEVICES: readonly DeviceRule[] = [
  ...NAMED.map(([major, minor]) => ({ allow: true, kind: 'character' as const, major, minor })),
  ...Array.from({ length: TERMINALS.last - TERMINALS.first + 1 }, (_, index) => (
    { allow: true, kind: 'character' as const, major: TERMINALS.first + index }
  )),
];

/** Also "-1", as runtimes write it. */
function number(value: unknown): number | undefined {
  return typeof value === 'number' && value >= 0 ? value : undefined;
}

const kinds: Readonly<Record<string, 'character' | 'block'>> = { c: 'character', u: 'character', b: 'block' };

function objects(value: unknown): Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** The devices that the runtime makes for the container: `linux.devices`. */
export function madeDevices({ linux }: OciSpec): DeviceRule[] {
  return objects(linux?.['devices']).flatMap(({ type, major, minor }) => {
    const kind = kinds[String(type)];
    return kind === undefined || number(major) === undefined || number(minor) === undefined ? []
      : [{ allow: true, kind, major: number(major), minor: number(minor) }];
  });
}

/**
 * The devices of which the container may have nodes: those of every container, those that it was given, and what its
 * devices cgroup lets it make ("m"). runc lets containers make any node beside that, since they cannot open it; that
 * grants nothing, and is not looked at. In a user namespace nobody can make a node: only those of every container
 * count.
 */
export function nodeRules(spec: OciSpec): DeviceRule[] {
  if (hasUserNamespace(spec)) return [...DEFAULT_DEVICES];
  const listed = listedDevices(spec).filter(({ letters }) => letters.includes('m')).map(({ rule }) => rule);
  return [...listed, ...madeDevices(spec), ...DEFAULT_DEVICES];
}

/** The same for files of a stranger's: what a rule grants must be named with its numbers, and be for use. */
export function nodeRulesForStrangers(spec: OciSpec): DeviceRule[] {
  if (hasUserNamespace(spec)) return [...DEFAULT_DEVICES];
  const listed = listedDevices(spec).filter(({ rule, letters }) => !rule.allow || (
    letters.includes('m') && /[rw]/.test(letters) && rule.major !== undefined && rule.minor !== undefined
  ));
  return [...listed.map(({ rule }) => rule), ...madeDevices(spec), ...DEFAULT_DEVICES];
}

function listedDevices({ linux }: OciSpec): { readonly rule: DeviceRule; readonly letters: string }[] {
  const resources = linux?.['resources'];
  return objects(
    isObject(resources) ? resources['devices'] : undefined
  ).map(({ allow, type, major, minor, access }) => ({
    rule: { allow: allow === true, kind: kinds[String(type)], major: number(major), minor: number(minor) },
    letters: typeof access === 'string' && access !== '' ? access : 'rwm',
  }));
}
