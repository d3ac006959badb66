/** The bundle a container is restored in: one given by the caller, or one rebuilt from what the checkpoint knows. */
import { chmodSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError, isStasisError } from '../../core/errors.ts';
import type { ContainerId } from '../../core/ids.ts';
import { removeTree } from '../../host/files.ts';
import { mountOverlay, type OverlayMount } from '../../host/overlay.ts';
import { removeTreeAndMounts, unmountBelow } from '../../host/unmount.ts';
import { isBindMount, readSpec, rootPath } from '../spec.ts';
import { printable } from '../text.ts';
import type { OciSpec, Rootfs } from '../types.ts';
import { makeMemoryVolume, type MemoryVolume } from './memory-volume.ts';
import { makeProvidedFiles, replaceableFiles } from './provided-files.ts';
import { requireLayers, requireMounts, requireNamespaces, requireSources } from './requirements.ts';
import { CRIU_CONFIG_ANNOTATION, CRIU_CONFIG_FILE, CRIU_CONFIG_TEXT, restoreSpec } from './restore-spec.ts';

export interface BundleRequest {
  /** A bundle of the caller's, used as it is. Undefined: rebuild one in `directory`. */
  readonly given: string | undefined;
  readonly directory: string;
  readonly id: ContainerId;
  readonly spec: OciSpec;
  readonly rootfs: Rootfs;
  /** Saved contents of mounts in memory, in the order in which `Bundle.volumes` answers. */
  readonly volumes: readonly MemoryVolume[];
}

export interface Bundle {
  /** What runc and crun take as --bundle. */
  readonly directory: string;
  /** Where the container's root file system is, once mounted. */
  readonly rootfs: string;
  /** Fresh overlay upper directory, to be filled before mount(); undefined when the root is not an overlay of ours. */
  readonly upper: string | undefined;
  /** Directory of each volume on the node, ready to be filled. */
  readonly volumes: readonly string[];
  mount(): Promise<void>;
  /** Undoes what was made here; nothing for a given bundle. */
  remove(): Promise<void>;
}

/** Overlay options that the upper directory depends on; the rest is the mounter's choice. */
const LAYER_OPTIONS = /^(redirect_dir|index|metacopy|xino|nfs_export)=|^userxattr$/;

/** Throws RESTORE_INCOMPATIBLE with what is missing on this node. Nothing of the node is used before all of it was found. */
export async function openBundle(request: BundleRequest): Promise<Bundle> {
  return request.given === undefined ? rebuildBundle(request) : givenBundle(request.given, request);
}

async function givenBundle(directory: string, { spec, volumes }: BundleRequest): Promise<Bundle> {
  const given = await readSpec(directory).catch((error: unknown) => {
    throw new StasisError('RESTORE_INCOMPATIBLE', `the bundle ${printable(directory)} cannot be used: config.json: ${(error as Error).message}`, { cause: error, hint: 'give a directory with config.json and the root file system' });
  });
  if (given.annotations?.[CRIU_CONFIG_ANNOTATION]) {
    throw new StasisError('RESTORE_INCOMPATIBLE', 'the bundle\'s annotation org.criu.config names a CRIU configuration file', { hint: 'remove the annotation: such a file can run any program as root' });
  }
  requireMounts(spec, given);
  requireSources(given, new Set());
  const rootfs = rootPath(directory, given);
  requireLayers({ kind: 'plain', path: rootfs });
  const sources = volumes.map(({ destination }) => given.mounts!.find((entry) => entry.destination === destination && isBindMount(entry))?.source);
  if (sources.some((source) => source === undefined)) throw new StasisError('RESTORE_INCOMPATIBLE', 'the bundle lacks a bind mount for a saved volume', { hint: `it needs bind mounts at ${volumes.map(({ destination }) => printable(destination)).join(', ')}` });
  return { directory, rootfs, upper: undefined, volumes: sources as string[], mount: async () => undefined, remove: async () => undefined };
}

async function rebuildBundle({ directory, id, spec, rootfs, volumes }: BundleRequest): Promise<Bundle> {
  requireLayers(rootfs);
  const provided = replaceableFiles(spec);
  requireSources(spec, new Set([...volumes.map(({ destination }) => destination), ...provided]));
  requireNamespaces(spec);
  clear(directory);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    const targets = volumes.map(
      (volume, index) => makeMemoryVolume(join(directory, 'volumes', String(index)), volume, spec)
    );
    const root = rootfs.kind === 'overlay' ? join(directory, 'rootfs') : rootfs.path;
    const sources = new Map([...makeProvidedFiles(join(directory, 'provided'), provided, spec), ...volumes.map(({ destination }, index) => [destination, targets[index]!] as const)]);
    const overlay = rootfs.kind === 'overlay' ? prepareOverlay(directory, rootfs) : undefined;
    writeFileSync(join(directory, CRIU_CONFIG_FILE), CRIU_CONFIG_TEXT, { mode: 0o600 });
    writeFileSync(join(directory, 'config.json'), JSON.stringify(restoreSpec(spec, { id, directory, root, sources })), { mode: 0o600 });
    return {
      directory, rootfs: root, upper: overlay?.upper, volumes: targets,
      mount: async () => overlay?.mount(),
      remove: () => removeBundle(directory),
    };
  } catch (error) {
    await removeBundle(directory);
    throw error;
  }
}

function prepareOverlay(directory: string, rootfs: Rootfs & { kind: 'overlay' }): { upper: string; mount: () => void } {
  const [upper, work, merged] = ['upper', 'work', 'rootfs'].map((name) => join(directory, name)) as [string, string, string];
  for (const path of [upper, work, merged]) mkdirSync(path);
  // The mode of the upper directory is that of the container's "/".
  chmodSync(upper, statSync(rootfs.lower[0]!).mode & 0o7777);
  const options = rootfs.options.filter((option) => LAYER_OPTIONS.test(option));
  return { upper, mount: () => mountRoot(merged, { lower: rootfs.lower, upper, work, options }) };
}

function mountRoot(merged: string, overlay: OverlayMount): void {
  try {
    mountOverlay(merged, overlay);
  } catch (error) {
    if (isStasisError(error)) throw error;
    throw new StasisError('RESTORE_FAILED', `the root file system could not be mounted at ${printable(merged)}: ${(error as Error).message}`, {
      cause: error, hint: 'the agent\'s state directory must be on a file system that can hold overlay upper directories (ext4, xfs), not on an overlay or NFS',
    });
  }
}

/** What an earlier container of the same id left; its output files stay. */
function clear(directory: string): void {
  unmountBelow(directory);
  for (const name of ['rootfs', 'upper', 'work', 'volumes', 'provided', 'criu-root', 'config.json']) removeTree(join(directory, name));
}

/** Removes a rebuilt bundle, its mounts first. The container must be gone. */
export async function removeBundle(directory: string): Promise<void> {
  removeTreeAndMounts(directory);
}
