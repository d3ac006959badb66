/** Device nodes among the container's own files: a restore makes those that the container may have. */
import { closeSync, constants, openSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { allowsDevice, deviceName, deviceOf, isWhiteout, type Device, type DeviceRule } from '../../core/devices.ts';
import { errnoCode } from '../../core/errors.ts';
import { DirectoryScanner, ENTRY, StatBuffer, openConfined, statAt } from '../../host/tree-calls.ts';
import { nodeRules } from '../devices.ts';
import { printable } from '../text.ts';
import type { Finding } from '../types.ts';
import { warning, type Scene } from './findings.ts';
import { findVolumes } from './mount-checks.ts';

/** Some 20 µs each. What lies in others is only told by the restore. */
const MAX_DIRECTORIES = 20_000;
/** Others may use the thread meanwhile. */
const TURN = 50;
const SHOWN = 5;
const OPEN = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | constants.O_NOATIME;

interface Node extends Device {
  readonly path: string;
}

/**
 * Nodes below a directory of the node which the rules do not allow. The directory may belong to an enemy: no link is
 * followed, and only directories are opened.
 */
async function* nodesBelow(
  root: string, rules: readonly DeviceRule[], budget: { left: number }, signal: AbortSignal | undefined,
): AsyncGenerator<Node, void, void> {
  const rootFd = openRoot(root);
  if (rootFd === undefined) return;
  const scanner = new DirectoryScanner();
  const stat = new StatBuffer();
  try {
    const waiting = [Buffer.alloc(0)];
    for (let path = waiting.pop(); path !== undefined && budget.left > 0; path = waiting.pop()) {
      if ((budget.left -= 1) % TURN === 0) {
        await nextTurn();
        signal?.throwIfAborted();
      }
      yield* look(rootFd, path, { scanner, stat, waiting, rules });
    }
  } finally {
    closeSync(rootFd);
  }
}

/** Undefined where the agent does not see the directory: then its files are not saved either, which the save says. */
function openRoot(path: string): number | undefined {
  try {
    return openSync(path, OPEN);
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return undefined;
  }
}

/** What is open of the walk. */
interface Walk {
  readonly scanner: DirectoryScanner;
  readonly stat: StatBuffer;
  readonly waiting: Buffer[];
  readonly rules: readonly DeviceRule[];
}

function look(root: number, directory: Buffer, { scanner, stat, waiting, rules }: Walk): Node[] {
  const found: Node[] = [];
  let fd: number | undefined;
  try {
    fd = openConfined(root, directory, OPEN, 0);
    const dirfd = fd;
    scanner.scan(dirfd, (name, length, type) => {
      if (
        type !== ENTRY.unknown && type !== ENTRY.directory && type !== ENTRY.character && type !== ENTRY.block
      ) return;
      const path = Buffer.concat(
        directory.length === 0 ? [name.subarray(0, length)] : [directory, Buffer.from('/'), name.subarray(0, length)]
      );
      if (type === ENTRY.directory) return void waiting.push(path);
      if (!statAt(dirfd, name, stat)) return;
      const kind = stat.mode & constants.S_IFMT;
      if (kind === constants.S_IFDIR) waiting.push(path);
      if (kind !== constants.S_IFCHR && kind !== constants.S_IFBLK) return;
      const device = deviceOf(kind === constants.S_IFBLK, stat.deviceMajor, stat.deviceMinor);
      if (!isWhiteout(device) && !allowsDevice(rules, device)) found.push({ ...device, path: path.toString() });
    });
  } catch (error) {
    // Removed or replaced meanwhile, or another mount.
    if (errnoCode(error) === undefined) throw error;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  return found;
}

export async function checkDeviceNodes(
  { container, mounts }: Scene, signal: AbortSignal | undefined,
): Promise<Finding[]> {
  const rules = nodeRules(container.spec);
  if (allowsAll(rules)) return [];
  const { rootfs } = container;
  const places = [...(
    rootfs.kind === 'overlay' ? [{ at: '', root: rootfs.upper }] : []
  ), ...findVolumes(container, mounts).map(({ destination, source }) => ({ at: destination, root: source }))];
  const found: string[] = [];
  let count = 0;
  const budget = { left: MAX_DIRECTORIES };
  for (const { at, root } of places) {
    for await (const node of nodesBelow(root, rules, budget, signal)) {
      count += 1;
      if (found.length < SHOWN) found.push(`${printable(`${at}/${node.path}`)} (${deviceName(node)})`);
    }
  }
  if (count === 0) return [];
  const more = count > SHOWN ? ` and ${count - SHOWN} more` : '';
  const what = `the device node${count > 1 ? 's' : ''} ${found.join(', ')}${more}`;
  const those = count > 1 ? 'such devices' : 'that device';
  return [warning(
    'device-node',
    `${what} will not come back after a restore: the container may not have ${those}`,
    'grant it in config.json (linux.resources.devices with access "m", or linux.devices), or let the program make it '
    + 'again',
  )];
}

/** A privileged container: nothing to look for. */
function allowsAll(rules: readonly DeviceRule[]): boolean {
  const last = rules.findLastIndex((rule) => !rule.allow);
  return rules.slice(last + 1).some(
    (rule) => rule.kind === undefined && rule.major === undefined && rule.minor === undefined
  );
}
