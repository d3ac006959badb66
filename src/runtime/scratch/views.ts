/**
 * Private views of what a container has mounted from the node: overlays whose changes go to memory and are thrown away. The
 * files below are the same ones, but nobody who has them open otherwise sees a lock, a link or a byte of a rehearsal.
 */
import { chmodSync, chownSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';
import { mountOf, readMountinfo, type Mount } from '../../host/mountinfo.ts';
import { mountOverlay } from '../../host/overlay.ts';
import { isBindMount } from '../spec.ts';
import { printable } from '../text.ts';
import type { OciSpec, Rootfs } from '../types.ts';

/** A rehearsal is not possible here; the message says why. The checkpoint itself may be fine. */
export class NoScratch extends Error {}

/** Of the kernel's own making: no overlay can lie over them, and CRIU writes nothing there. */
const KERNEL_FILE_SYSTEMS: ReadonlySet<string> = new Set(['proc', 'sysfs', 'cgroup', 'cgroup2', 'devtmpfs', 'devpts', 'mqueue', 'securityfs', 'debugfs', 'tracefs', 'bpf', 'pstore', 'efivarfs', 'configfs', 'fusectl', 'binfmt_misc', 'nsfs', 'hugetlbfs']);

/** Overlay options that decide how the layers are read. */
const READING_OPTIONS = /^(redirect_dir|metacopy|xino)=|^userxattr$/;

export class Views {
  readonly #mountPoints: string;
  readonly #memory: string;
  readonly #mounts: readonly Mount[] = readMountinfo('self');
  readonly #byLower = new Map<string, string>();

  /** Mount points are made below the first directory; what is written goes below the second, which lies in memory. */
  constructor(mountPoints: string, memory: string) {
    this.#mountPoints = mountPoints;
    this.#memory = memory;
  }

  /** Where the root file system is seen. Throws NoScratch. */
  root(rootfs: Rootfs): string {
    if (rootfs.kind === 'plain') return this.#overlay([rootfs.path], []);
    return this.#overlay([rootfs.upper, ...rootfs.lower], rootfs.options.filter((option) => READING_OPTIONS.test(option)));
  }

  /** Where each bind mount of config.json is seen, by destination; `replaced` are those that have a source of their own by now. Throws NoScratch. */
  binds(spec: OciSpec, replaced: ReadonlyMap<string, string>): Map<string, string> {
    const sources = new Map(replaced);
    for (const { destination, source, ...mount } of spec.mounts ?? []) {
      if (isBindMount(mount) && source !== undefined && !sources.has(destination)) sources.set(destination, this.#bind(source));
    }
    return sources;
  }

  #bind(source: string): string {
    const real = realpathSync(source);
    const stat = statSync(real);
    const fsType = mountOf(this.#mounts, real)?.fsType ?? '';
    if (stat.isCharacterDevice() || stat.isBlockDevice() || KERNEL_FILE_SYSTEMS.has(fsType)) return real;
    return stat.isDirectory() ? this.#overlay([real], []) : join(this.#overlay([dirname(real)], []), basename(real));
  }

  #overlay(lower: readonly string[], options: readonly string[]): string {
    const key = lower.join('\0');
    const known = this.#byLower.get(key);
    if (known !== undefined) return known;
    const name = String(this.#byLower.size);
    const target = join(this.#mountPoints, name);
    const [upper, work] = [join(this.#memory, name, 'upper'), join(this.#memory, name, 'work')] as const;
    for (const path of [target, upper, work]) mkdirSync(path, { recursive: true, mode: 0o700 });
    // What the topmost layer's own directory is like, the whole view is like.
    const { mode, uid, gid } = statSync(lower[0]!);
    chownSync(upper, uid, gid);
    chmodSync(upper, mode & 0o7777);
    try {
      // Without an index: the upper layer of the container lies below, and is in use.
      mountOverlay(target, { lower, upper, work, options: ['index=off', ...options.filter((option) => !option.startsWith('index='))] });
    } catch (error) {
      throw new NoScratch(`no overlay can be put over ${printable(lower[0] ?? '')} (${errnoCode(error) ?? (error as Error).message})`, { cause: error });
    }
    this.#byLower.set(key, target);
    return target;
  }
}
