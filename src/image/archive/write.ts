/**
 * A checkpoint as an archive of podman's form: a tar file with CRIU's images, changes of the root file system, and a
 * few JSON documents that the caller makes. The bytes come in order and are never held as a whole.
 */
import type { CheckpointReader } from '../../repository/types.ts';
import { checkImageName } from '../criu/directory.ts';
import { BlobWindows } from './blob-windows.ts';
import { diffTar } from './diff-tar.ts';
import type { DiffPlan } from './diff-tar.ts';
import { END_BYTES, padding, tarHeader } from './tar-header.ts';
import type { TarMember } from './tar-header.ts';

export interface ArchiveContents {
  readonly reader: CheckpointReader;
  /** Blob prefix of CRIU's images. */
  readonly images: string;
  /** Small members by name ("config.dump"), in this order, before all else. */
  readonly documents: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  /** Saved trees that become tar files inside the archive. */
  readonly trees: readonly { readonly name: string; readonly prefix: string; readonly plan: DiffPlan }[];
  readonly mtimeSeconds: number;
}

/** How long the archive will be. */
export function archiveLength(contents: ArchiveContents): number {
  const sizes = [...contents.documents.map(({ bytes }) => bytes.length), ...contents.trees.map(({ plan }) => plan.length), ...images(contents).map(({ length }) => length), 0];
  return sizes.reduce((sum, size) => sum + 512 + size + padding(size), END_BYTES);
}

function images({ reader, images: prefix }: ArchiveContents): { name: string; blob: string; length: number }[] {
  return [...reader.blobs].filter(([blob]) => blob.startsWith(prefix)).map(([blob, length]) => ({ name: checkImageName(blob.slice(prefix.length)), blob, length }));
}

export async function* writeArchive(contents: ArchiveContents, { signal }: { signal: AbortSignal | undefined }): AsyncGenerator<Buffer> {
  const { reader, mtimeSeconds } = contents;
  const member = (name: string, size: number, type: TarMember['type'] = 'file'): Buffer =>
    tarHeader({ name: Buffer.from(name), type, mode: type === 'file' ? 0o600 : 0o700, uid: 0, gid: 0, mtimeSeconds, size });
  for (const { name, bytes } of contents.documents) {
    yield member(name, bytes.length);
    yield Buffer.from(bytes);
    yield Buffer.alloc(padding(bytes.length));
  }
  for (const { name, prefix, plan } of contents.trees) {
    yield member(name, plan.length);
    yield* diffTar(reader, prefix, signal);
    yield Buffer.alloc(padding(plan.length));
  }
  yield member('checkpoint/', 0, 'directory');
  for (const { name, blob, length } of images(contents)) {
    yield member(`checkpoint/${name}`, length);
    if (length > 0) yield* new BlobWindows(reader, blob, signal).read(0, length);
    yield Buffer.alloc(padding(length));
  }
  yield Buffer.alloc(END_BYTES);
}
