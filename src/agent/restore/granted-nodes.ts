/** Device nodes among the files of an imported archive: only those that the operator's bundle names. */
import { allowsDevice, deviceName, deviceOf, isWhiteout } from '../../core/devices.ts';
import { StasisError } from '../../core/errors.ts';
import { readTreeIndex } from '../../image/tree/index.ts';
import { nodeRulesForStrangers, printable } from '../../runtime/index.ts';
import type { OciSpec } from '../../runtime/types.ts';
import type { RestorePlan } from './restore.ts';

const SHOWN = 5;

/** Before any file is written: the bundle's root file system may be the operator's own. Throws RESTORE_INCOMPATIBLE. */
export async function requireGrantedNodes(
  { reader, saved }: Pick<RestorePlan, 'reader' | 'saved'>, bundle: OciSpec, signal: AbortSignal,
): Promise<void> {
  const rules = nodeRulesForStrangers(bundle);
  const refused: string[] = [];
  let count = 0;
  for (const prefix of [
    ...(saved.rootfs.saved ? [saved.rootfs.prefix] : []), ...saved.volumes.map((volume) => volume.prefix),
  ]) {
    for await (const entry of readTreeIndex(reader, prefix, { signal })) {
      if (entry.device === undefined) continue;
      const device = deviceOf(entry.kind === 'block-device', ...entry.device);
      if (isWhiteout(device) || allowsDevice(rules, device)) continue;
      count += 1;
      if (refused.length < SHOWN) refused.push(
        `${printable(`/${Buffer.from(entry.path).toString()}`)} (${deviceName(device)})`
      );
    }
  }
  if (count === 0) return;
  throw new StasisError('RESTORE_INCOMPATIBLE', 'the imported files hold device nodes that the bundle does not '
    + `grant: ${refused.join(', ')}${count > SHOWN ? ` and ${count - SHOWN} more` : ''}`, {
    hint: 'if the container shall have such a device, name it with its numbers in linux.devices of the bundle; else '
      + 'do not restore this archive', details: { nodes: count },
  });
}
