/**
 * Reads a tar file of a stranger's, plain or compressed, as a sequence of members. Nothing is written anywhere and no
 * name is looked up: a member is a checked relative path, its kind, and its bytes.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract } from 'tar-stream';
import { StasisError, isStasisError } from '../../core/errors.ts';
import { formatBytes } from '../../core/units.ts';
import { MAX_ARCHIVE_BYTES, MAX_NAME_BYTES, MAX_PATH_BYTES } from './limits.ts';

export interface MemberHeader {
  /** As tar-stream names the kinds; null for one that it does not know. */
  readonly type: string | null;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Date;
  readonly linkname: string | null;
  readonly devmajor: number;
  readonly devminor: number;
  readonly pax: Readonly<Record<string, string>>;
}

export interface ArchiveMember {
  /** Components of the path, as Latin-1 text of its bytes; none for the root itself. */
  readonly path: readonly string[];
  readonly header: MemberHeader;
  /** Of a file; to be read before the next member is asked for, or not at all. */
  readonly content: AsyncIterable<Buffer>;
}

export function invalid(message: string, cause?: unknown): StasisError {
  return new StasisError('ARCHIVE_INVALID', message, { cause, hint: 'is it an archive of podman or CRI-O, and complete?' });
}

export function escapes(what: string, name: string): StasisError {
  return new StasisError('PATH_ESCAPES', `the archive has ${what}: ${shown(name)}`, { hint: 'nothing was written; such an archive was made to do harm, or is damaged' });
}

export function shown(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}

/**
 * Components of a path that stays where it is. Throws PATH_ESCAPES for an absolute path, "..", a NUL; LIMIT_EXCEEDED for
 * what no file system takes. `absolute`: a leading "/" means the root of the container.
 */
export function pathOf(name: string, { absolute = false } = {}): string[] {
  if (name.includes('\0')) throw escapes('a name with a NUL', name);
  if (name.startsWith('/') && !absolute) throw escapes('an absolute name', name);
  if (name.length > MAX_PATH_BYTES) throw new StasisError('LIMIT_EXCEEDED', `a name in the archive has ${name.length} bytes, at most ${MAX_PATH_BYTES} are possible`);
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw escapes('a name that leads out', name);
  if (parts.some((part) => part.length > MAX_NAME_BYTES)) throw new StasisError('LIMIT_EXCEEDED', `a name in the archive is longer than ${MAX_NAME_BYTES} bytes: ${shown(name)}`);
  return parts;
}

/** Text of pax is UTF-8, and its decoder puts U+FFFD where it is not: such a name would be another one. */
export function paxBytes(text: string, what: string): string {
  if (text.includes('\uFFFD')) throw new StasisError('FORMAT_UNSUPPORTED', `the archive has ${what} that is not UTF-8: ${shown(text)}`, { hint: 'it cannot be kept byte for byte' });
  return Buffer.from(text).toString('latin1');
}

/** Members in their order. Throws ARCHIVE_INVALID, PATH_ESCAPES or LIMIT_EXCEEDED. */
export async function* readTar(bytes: AsyncIterable<Uint8Array>, { signal, what }: { signal: AbortSignal | undefined; what: string }): AsyncGenerator<ArchiveMember> {
  // Its types do not know the option. Bytes of names stay apart: Latin-1 has a character for each.
  const options: object = { filenameEncoding: 'latin1' };
  const unpacker = extract(options);
  let failure: unknown;
  const feeding = pipeline(counted(bytes, what), unpacker, { signal: signal ?? new AbortController().signal }).catch((error: unknown) => {
    failure = error;
  });
  /** What ended the stream: the source knows better than the unpacker. */
  const explain = async (error: unknown): Promise<Error> => {
    await feeding;
    signal?.throwIfAborted();
    if (isStasisError(failure)) return failure;
    return isStasisError(error) ? error : invalid(`${what} is no tar file, or is damaged: ${(error as Error).message}`, error);
  };
  try {
    for await (const entry of unpacker) {
      const raw = entry.header as unknown as Omit<MemberHeader, 'pax'> & { readonly name: string; readonly pax: MemberHeader['pax'] | null };
      const header = { ...raw, pax: raw.pax ?? {} };
      const name = header.pax['path'] === undefined ? raw.name : paxBytes(header.pax['path'], 'a name');
      if (!Number.isSafeInteger(header.size) || header.size > MAX_ARCHIVE_BYTES) throw new StasisError('LIMIT_EXCEEDED', `${shown(name)} of the archive has ${header.size} bytes`);
      yield { path: pathOf(name), header, content: contentOf(entry as AsyncIterable<Buffer>, explain) };
      // What the caller did not read.
      if (!entry.destroyed) entry.resume();
    }
  } catch (error) {
    throw await explain(error);
  } finally {
    unpacker.destroy();
  }
  await feeding;
  if (isStasisError(failure)) throw failure;
}

async function* contentOf(entry: AsyncIterable<Buffer>, explain: (error: unknown) => Promise<Error>): AsyncGenerator<Buffer> {
  try {
    yield* entry;
  } catch (error) {
    throw await explain(error);
  }
}

async function* counted(bytes: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array> {
  let count = 0;
  for await (const part of bytes) {
    count += part.length;
    if (count > MAX_ARCHIVE_BYTES) throw new StasisError('LIMIT_EXCEEDED', `${what} unfolds to more than ${formatBytes(MAX_ARCHIVE_BYTES)}`);
    yield part;
  }
  if (count === 0) throw invalid(`${what} is empty`);
}

export type Compression = 'none' | 'gzip' | 'zstd';

/** Looks at the first bytes and decompresses what is compressed. */
export async function decompressed(bytes: AsyncIterable<Uint8Array>, what: string): Promise<{ compression: Compression; bytes: AsyncIterable<Uint8Array> }> {
  const { head, all } = await peek(bytes, 6);
  if (head[0] === 0x1f && head[1] === 0x8b) return { compression: 'gzip', bytes: through(all, createGunzip(), what) };
  if (head.subarray(0, 4).equals(Buffer.from('28b52ffd', 'hex'))) return { compression: 'zstd', bytes: through(all, createZstdDecompress(), what) };
  if (head.subarray(0, 3).toString('latin1') === 'BZh' || head.equals(Buffer.from('fd377a585a00', 'hex'))) {
    throw new StasisError('FORMAT_UNSUPPORTED', `${what} is compressed with bzip2 or xz`, { hint: 'decompress it first; plain, gzip and zstd are read' });
  }
  return { compression: 'none', bytes: all };
}

async function peek(bytes: AsyncIterable<Uint8Array>, count: number): Promise<{ head: Buffer; all: AsyncIterable<Uint8Array> }> {
  const iterator = bytes[Symbol.asyncIterator]();
  const parts: Uint8Array[] = [];
  for (let length = 0; length < count; ) {
    const next = await iterator.next();
    if (next.done === true) break;
    parts.push(next.value);
    length += next.value.length;
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    try {
      yield* parts;
      for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.();
    }
  }
  return { head: Buffer.concat(parts).subarray(0, count), all: all() };
}

async function* through(bytes: AsyncIterable<Uint8Array>, unfold: ReturnType<typeof createGunzip> | ReturnType<typeof createZstdDecompress>, what: string): AsyncGenerator<Uint8Array> {
  const source = Readable.from(bytes);
  let failure: unknown;
  source.on('error', (error) => {
    failure = error;
    unfold.destroy(error);
  });
  source.pipe(unfold);
  try {
    for await (const part of unfold) yield part as Uint8Array;
  } catch (error) {
    if (failure !== undefined) throw failure;
    throw invalid(`${what} is compressed, and damaged: ${(error as Error).message}`, error);
  } finally {
    source.destroy();
    unfold.destroy();
  }
}
