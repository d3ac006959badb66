/**
 * Device nodes that CRIU would make: deleted files that were open ("ghosts"), and what its tar unpacks into the memory file
 * systems of the container (/dev). That tar runs as root, before the container is closed off: its files are checked like
 * any archive of a stranger's.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { decompressed, escapes, invalid, pathOf, paxBytes, readTar } from '../archive/read.ts';
import type { ArchiveMember } from '../archive/read.ts';
import { EntrySplitter } from './framing.ts';
import { onlyOnce } from './wire.ts';

export interface ImageDevice {
  readonly image: string;
  readonly kind: 'character' | 'block';
  readonly major: number;
  readonly minor: number;
}

const S_IFMT = 0o170000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
/** The description of a ghost comes first and is a few numbers, or the target of a symlink. */
const GHOST_HEAD_BYTES = 16_384;
/** A container's /dev has tens, its /tmp may have thousands. */
const MAX_ENTRIES = 1_000_000;

export async function readDevices(imageDir: string, names: readonly string[]): Promise<ImageDevice[]> {
  const devices: ImageDevice[] = [];
  for (const name of names) {
    if (/^ghost-file-[0-9a-f]+\.img$/.test(name)) devices.push(...ghost(await head(join(imageDir, name)), name));
    else if (/^tmpfs-.*\.img$/.test(name)) devices.push(...(await unpacked(join(imageDir, name), name)));
  }
  return devices;
}

async function head(path: string): Promise<Uint8Array> {
  await using file = await open(path, 'r');
  const block = Buffer.alloc(GHOST_HEAD_BYTES);
  const { bytesRead } = await file.read(block, 0, block.length, 0);
  return block.subarray(0, bytesRead);
}

function ghost(bytes: Uint8Array, image: string): ImageDevice[] {
  // Only the first message: the contents follow without a frame.
  const { value: message } = new EntrySplitter('ghost', image).push(bytes).next();
  if (message === undefined) throw new StasisError('OBJECT_CORRUPT', `${image} does not say what it is`);
  let [mode, device] = [0, 0];
  for (const reader of onlyOnce(message, image)) {
    if (reader.field === 3) mode = reader.uint32();
    else if (reader.field === 6) device = reader.uint32();
  }
  const kind = mode & S_IFMT;
  if (kind !== S_IFCHR && kind !== S_IFBLK) return [];
  // As the kernel writes device numbers to programs of old (new_encode_dev).
  return [{ image, kind: kind === S_IFCHR ? 'character' : 'block', major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) }];
}

async function unpacked(path: string, image: string): Promise<ImageDevice[]> {
  const devices: ImageDevice[] = [];
  const symlinks = new Set<string>();
  let count = 0;
  const { bytes } = await decompressed(createReadStream(path), image);
  for await (const member of readTar(bytes, { signal: undefined, what: image })) {
    count += 1;
    if (count > MAX_ENTRIES) throw new StasisError('LIMIT_EXCEEDED', `${image} has more than ${MAX_ENTRIES} files`);
    const device = examine(member, symlinks, image);
    if (device !== undefined) devices.push(device);
  }
  return devices;
}

function examine({ path, header }: ArchiveMember, symlinks: Set<string>, image: string): ImageDevice | undefined {
  const { type, pax } = header;
  // CRIU's tar takes other names and lengths out of these than the reader here does.
  if (Object.keys(pax).some((key) => key.startsWith('GNU.'))) throw invalid(`${image} has a sparse file`);
  requireNoLink(path, path.length - 1, symlinks, image);
  if (type === 'link') {
    const target = pathOf(pax['linkpath'] === undefined ? (header.linkname ?? '') : paxBytes(pax['linkpath'], 'a link'));
    requireNoLink(target, target.length, symlinks, image);
  } else if (type === 'symlink') symlinks.add(path.join('/'));
  else if (type === 'character-device' || type === 'block-device') return { image, kind: type === 'block-device' ? 'block' : 'character', major: header.devmajor, minor: header.devminor };
  else if (type === null) throw invalid(`${image} has a file of a kind that is not known, or a sparse one`);
  return undefined;
}

/** Nothing is written through a link that the same archive made. */
function requireNoLink(path: readonly string[], depth: number, symlinks: ReadonlySet<string>, image: string): void {
  for (let length = 1; length <= depth; length += 1) {
    if (symlinks.has(path.slice(0, length).join('/'))) throw escapes(`a path through a symlink in ${image}`, path.join('/'));
  }
}
