/** A saved tree as a tar file, and what it deletes. Made twice: once for its length, which the archive needs first, once for its bytes. */
import { StasisError } from '../../core/errors.ts';
import type { CheckpointReader } from '../../repository/types.ts';
import { readTreeIndex } from '../tree/index.ts';
import type { TreeEntry } from '../tree/index.ts';
import { BlobWindows } from './blob-windows.ts';
import { END_BYTES, padding, tarHeader } from './tar-header.ts';
import type { MemberType, TarMember } from './tar-header.ts';

export interface DiffPlan {
  /** Length of the tar file. */
  readonly length: number;
  /** Paths of the image that do not exist any more; absolute, as podman wants them. */
  readonly deleted: readonly string[];
  /** Directories that replace one of the image: what the image has in them must go, too. */
  readonly opaque: readonly string[];
  readonly warnings: readonly string[];
}

/** Lists are part of the archive and of answers. */
const MAX_DELETED = 1_000_000;
const MAX_WARNINGS = 100;

const memberTypes: Readonly<Record<string, MemberType>> = {
  file: 'file', directory: 'directory', symlink: 'symlink', fifo: 'fifo', 'character-device': 'character-device', 'block-device': 'block-device',
};

/** The member of an entry; undefined for what a tar file does not hold: the root, whiteouts and sockets. */
function memberOf(entry: TreeEntry): TarMember | undefined {
  const type = entry.link !== undefined ? 'link' : memberTypes[entry.kind];
  if (type === undefined || entry.path.length === 0) return undefined;
  return {
    name: type === 'directory' ? Buffer.concat([entry.path, Buffer.from('/')]) : entry.path, type,
    mode: entry.mode, uid: entry.uid, gid: entry.gid, mtimeSeconds: entry.mtimeSeconds,
    size: type === 'file' ? entry.size : 0, target: entry.link ?? entry.target, device: entry.device, xattrs: type === 'link' ? [] : entry.attributes,
  };
}

/** The list of deletions is JSON: a path that is no text cannot be in it. */
function text(path: Uint8Array): string {
  const decoded = Buffer.from(path).toString();
  if (Buffer.from(decoded).equals(path)) return decoded;
  throw new StasisError('FORMAT_UNSUPPORTED', `${JSON.stringify(decoded)} was deleted in the container and is not UTF-8: an archive cannot say so`, { hint: 'rename it in the image, or restore with stasis' });
}

export async function planDiff(reader: CheckpointReader, prefix: string, signal: AbortSignal | undefined): Promise<DiffPlan> {
  const [deleted, opaque, warnings]: [string[], string[], string[]] = [[], [], []];
  let length = END_BYTES;
  for await (const entry of readTreeIndex(reader, prefix, { signal })) {
    if (entry.kind === 'whiteout') deleted.push(`/${text(entry.path)}`);
    if (entry.opaque) opaque.push(`/${text(entry.path)}`);
    if (deleted.length + opaque.length > MAX_DELETED) throw new StasisError('LIMIT_EXCEEDED', `the container deleted more than ${MAX_DELETED} paths of its image`);
    if (entry.kind === 'socket' && warnings.length < MAX_WARNINGS) warnings.push(`${JSON.stringify(Buffer.from(entry.path).toString())} is a socket, which a tar file cannot hold`);
    const member = memberOf(entry);
    if (member !== undefined) length += tarHeader(member).length + member.size + padding(member.size);
  }
  return { length, deleted, opaque, warnings };
}

/** Absolute paths of everything that the tree holds. */
export async function treePaths(reader: CheckpointReader, prefix: string, signal: AbortSignal | undefined): Promise<Set<string>> {
  const paths = new Set<string>();
  for await (const entry of readTreeIndex(reader, prefix, { signal })) if (entry.kind !== 'whiteout') paths.add(`/${Buffer.from(entry.path).toString()}`);
  return paths;
}

const ZEROS = Buffer.alloc(65_536);

function* zeros(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= ZEROS.length) yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}

export async function* diffTar(reader: CheckpointReader, prefix: string, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const data = new BlobWindows(reader, `${prefix}data`, signal);
  for await (const entry of readTreeIndex(reader, prefix, { signal })) {
    const member = memberOf(entry);
    if (member === undefined) continue;
    yield tarHeader(member);
    if (member.size === 0) continue;
    yield* contents(entry, data);
    yield* zeros(padding(member.size));
  }
  yield* zeros(END_BYTES);
}

async function* contents({ size, extents }: TreeEntry, data: BlobWindows): AsyncGenerator<Buffer> {
  let at = 0;
  for (let i = 0; i < extents.length; i += 3) {
    const [fileAt, length, dataAt] = [extents[i] as number, extents[i + 1] as number, extents[i + 2] as number];
    yield* zeros(fileAt - at);
    yield* data.read(dataAt, length);
    at = fileAt + length;
  }
  yield* zeros(size - at);
}
