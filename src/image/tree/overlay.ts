/**
 * What overlayfs keeps in the extended attributes of an upper directory (kernel, Documentation/filesystems/overlayfs.rst):
 * which of it belongs to the tree, which to this host only, and which cannot be brought back elsewhere.
 */
import { StasisError } from '../../core/errors.ts';

/** `trusted.overlay.` in ordinary mounts, `user.overlay.` in mounts with the option userxattr (rootless). */
export function overlayPrefix(userxattr: boolean): string {
  return userxattr ? 'user.overlay.' : 'trusted.overlay.';
}

/**
 * A directory that an imported archive only speaks of as part of a path. One that is there keeps its owner, mode, times
 * and attributes; the mark itself is never set on a file system.
 */
export const IMPLICIT = 'trusted.stasis.implicit';

export type OverlayMark = 'opaque' | 'keep' | 'drop';

/**
 * origin, impure, nlink, uuid and upper hold file handles and counts of this host's file system: overlayfs makes
 * them again. protattr (immutable and append-only flags) and the doubly escaped ones of a nested overlay are content.
 */
const host = new Set(['origin', 'impure', 'nlink', 'uuid', 'upper', 'xwhiteouts']);

/** `suffix` is the name after the prefix. Throws NOT_CHECKPOINTABLE for what refers to files of the lower layers. */
export function judge(suffix: string, value: Buffer, path: () => string): OverlayMark {
  if (suffix === 'opaque') {
    const mark = value.toString('latin1');
    if (mark === 'y') return 'opaque';
    // "x" announces whiteouts in the form of attributes, which the kernel never makes in an upper directory itself.
    throw refused(path(), `opaque=${JSON.stringify(mark)}`);
  }
  if (suffix === 'protattr' || suffix.startsWith('overlay.')) return 'keep';
  if (host.has(suffix)) return 'drop';
  throw refused(path(), suffix);
}

function refused(path: string, mark: string): StasisError {
  return new StasisError('NOT_CHECKPOINTABLE', `overlayfs marked ${JSON.stringify(path)} with ${mark}, which only makes sense beside the same lower layers on this node`, {
    hint: 'mount the container’s overlay without redirect_dir, metacopy and verity (in storage.conf: remove metacopy=on from mountopt), then start the container anew',
    details: { path, mark },
  });
}

/** What a loaded index may set: of the overlay's own attributes only those that {@link judge} keeps. */
export function mayRestore(name: string, prefix: string): boolean {
  if (!name.startsWith(prefix)) return true;
  const suffix = name.slice(prefix.length);
  return suffix === 'protattr' || suffix.startsWith('overlay.');
}
