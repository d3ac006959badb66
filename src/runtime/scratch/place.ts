/**
 * The scratch place of a rehearsal: everything that a checkpoint needs to be rebuilt beside its frozen container, on this
 * node, without anybody seeing it. All of it is below one directory, and in cgroups that bear its id.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseContainerId, type ContainerId } from '../../core/ids.ts';
import { killSession } from '../../host/session.ts';
import { removeTreeAndMounts } from '../../host/unmount.ts';
import { makeProvidedFiles, replaceableFiles } from '../bundle/provided-files.ts';
import { mountPointOf } from '../spec.ts';
import { requireLayers, requireSources } from '../bundle/requirements.ts';
import { CRIU_CONFIG_FILE, CRIU_CONFIG_TEXT } from '../bundle/restore-spec.ts';
import { sweepCgroups } from '../driver/cgroups.ts';
import { prepareNetwork, roomForRestore, type KernelState } from '../put-back/index.ts';
import type { Container } from '../types.ts';
import { networkCommands, type Interface } from './network.ts';
import { networkKind, scratchNetwork, scratchSpec } from './spec.ts';
import { Views } from './views.ts';

export interface ScratchPlace {
  readonly id: ContainerId;
  readonly directory: string;
  readonly bundle: string;
  readonly pidFile: string;
  readonly sessionFile: string;
  /** What stasis-network brings back there. */
  readonly networkDirectory?: string | undefined;
  /** Mount points of the container, "/" among them, at which a view of the scratch place lies. */
  readonly viewed: ReadonlySet<string>;
}

export interface PlaceRequest {
  readonly container: Container;
  /** Made here; the last part of its name is unique on this node. */
  readonly directory: string;
  /** An empty directory in memory that is not swapped, for what CRIU writes: unlinked files that are open are rebuilt there. */
  readonly memory: string;
  /** Interfaces of the container's network, where that is not its own. */
  readonly interfaces: readonly Interface[];
  readonly kernel: KernelState;
}

/** What the runtime calls it, and its cgroups. */
export const scratchId = (directory: string): ContainerId => parseContainerId(`stasis-rehearsal-${basename(directory)}`);

function placeAt(directory: string): Omit<ScratchPlace, 'viewed'> {
  return {
    id: scratchId(directory), directory, bundle: join(directory, 'bundle'), pidFile: join(directory, 'pid'), sessionFile: join(directory, 'session'),
  };
}

/**
 * Throws RESTORE_INCOMPATIBLE for what a restore would lack here, NoScratch where no such place can be made. What was made
 * until then is left for removePlace().
 */
export function makePlace({ container, directory, memory, interfaces, kernel }: PlaceRequest): ScratchPlace {
  const { spec, rootfs } = container;
  const place = placeAt(directory);
  for (const path of [directory, place.bundle, join(directory, 'runtime')]) mkdirSync(path, { recursive: true, mode: 0o700 });
  // It lies over the runtime's own, through which the root of a user namespace must pass. What is above here is root's alone.
  chmodSync(join(directory, 'runtime'), 0o711);
  requireLayers(rootfs);
  const provided = replaceableFiles(spec);
  requireSources(spec, new Set(provided));
  const views = new Views(join(directory, 'views'), memory);
  const root = views.root(rootfs);
  const sources = views.binds(spec, makeProvidedFiles(join(directory, 'provided'), provided, spec));
  const network = scratchNetwork(directory);
  const criuConfig = join(place.bundle, CRIU_CONFIG_FILE);
  writeFileSync(criuConfig, CRIU_CONFIG_TEXT, { mode: 0o600 });
  writeFileSync(join(directory, 'addresses'), networkCommands(interfaces), { mode: 0o600 });
  if (networkKind(spec) === 'joined') writeFileSync(network, '', { mode: 0o600 });
  writeFileSync(join(place.bundle, 'config.json'), JSON.stringify(scratchSpec(roomForRestore(spec, kernel.limits), { root, criuConfig, cgroupsPath: `/${place.id}`, network, sources })), { mode: 0o600 });
  return { ...place, viewed: new Set(['/', ...[...sources.keys()].map(mountPointOf)]), networkDirectory: prepareNetwork(
    kernel.network, spec, join(directory, 'own-network'),
  ) };
}

/** Ends whatever runs there and removes all of it. Nothing when it does not exist. */
export async function removePlace(directory: string): Promise<void> {
  const { id, bundle, sessionFile } = placeAt(directory);
  await killSession(sessionFile);
  // In all hierarchies, whatever the runtime was.
  await sweepCgroups({ runtime: 'crun', id, bundle });
  removeTreeAndMounts(directory);
}
