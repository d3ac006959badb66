/**
 * What criu must reach when it is the root of a user namespace and no more: it opens its images and the sources of bind
 * mounts after it has entered that.
 */
import { chmodSync, chownSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { lgetxattr, lsetxattr } from '../../host/libc.ts';
import { isBindMount, readSpec } from '../spec.ts';
import type { OciSpec, RestoreRequest } from '../types.ts';

interface IdMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

/** The id on the node of id 0 in the container; 0 without a mapping. */
function hostRoot(mappings: unknown): number {
  const list = Array.isArray(mappings) ? (mappings as IdMapping[]) : [];
  return list.find(({ containerID, size }) => containerID === 0 && size > 0)?.hostID ?? 0;
}

const ACL = 'system.posix_acl_access';

/** An access control list (Linux: include/uapi/linux/posix_acl_xattr.h) of a directory of root's that lets one more user pass. */
function passing(mode: number, uid: number): Buffer {
  const NOBODY = 0xffffffff;
  const [group, others] = [(mode >> 3) & 7, mode & 7];
  const entries = [[0x01, (mode >> 6) & 7, NOBODY], [0x02, 1, uid], [0x04, group, NOBODY], [0x10, group | 1, NOBODY], [0x20, others, NOBODY]] as const;
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(2, 0);
  entries.forEach(([tag, permissions, id], index) => {
    bytes.writeUInt16LE(tag, 4 + index * 8);
    bytes.writeUInt16LE(permissions, 6 + index * 8);
    bytes.writeUInt32LE(id, 8 + index * 8);
  });
  return bytes;
}

function basicList(mode: number): Buffer {
  const whole = passing(mode, 0);
  return Buffer.concat([whole.subarray(0, 12), whole.subarray(20, 28), whole.subarray(36)]);
}

/** Lets `uid` pass through a directory (not list it), until the answer is called. */
function letPass(directory: string, uid: number): () => void {
  const { mode, uid: owner } = statSync(directory);
  // Whoever made a list of their own knows who may pass.
  if ((mode & 1) !== 0 || owner === uid || lgetxattr(directory, ACL) !== undefined) return () => undefined;
  lsetxattr(directory, ACL, passing(mode, uid));
  return () => {
    lsetxattr(directory, ACL, basicList(mode));
    chmodSync(directory, mode & 0o7777);
  };
}

function above(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [] : [...above(parent), parent];
}

/** Where the sources of external mounts lie; crun covers masked directories with an empty one beside its state. */
function sources(spec: OciSpec, { at, bundle }: RestoreRequest): string[] {
  const binds = (spec.mounts ?? []).flatMap((mount) => (isBindMount(mount) && mount.source?.startsWith('/') === true ? [mount.source] : []));
  return [...binds, join(bundle, 'config.json'), ...(at.runtime === 'crun' ? [join(at.root, '.empty-directory')] : [])];
}

/** Root's own still: criu opens the first of them before its ids are mapped. */
function giveToGroup(imageDir: string, gid: number): void {
  for (const name of readdirSync(imageDir)) {
    chownSync(join(imageDir, name), 0, gid);
    chmodSync(join(imageDir, name), 0o640);
  }
  chownSync(imageDir, 0, gid);
  chmodSync(imageDir, 0o750);
}

/**
 * Gives the images to the group of the container's root and lets that pass to the sources of its mounts, until the answer is disposed of. The
 * directory above the images is root's alone: nobody else with that id reaches them.
 */
export async function openToMappedRoot(request: RestoreRequest): Promise<Disposable> {
  const spec = await readSpec(request.bundle);
  const [uid, gid] = [hostRoot(spec.linux?.['uidMappings']), hostRoot(spec.linux?.['gidMappings'])];
  using undo = new DisposableStack();
  if (uid === 0 && gid === 0) return undo.move();
  giveToGroup(request.imageDir, gid);
  for (const directory of new Set(sources(spec, request).flatMap(above))) {
    try {
      undo.defer(letPass(directory, uid));
    } catch {
      // Not there yet, or no access control lists: criu names what it cannot reach.
    }
  }
  return undo.move();
}
