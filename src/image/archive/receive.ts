/**
 * Takes an archive apart: CRIU's images into a private flat directory, trees of files straight into the checkpoint,
 * documents into memory. Members are known by name; what is not known is read over and named in the result.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';
import type { CheckpointWriter } from '../../repository/types.ts';
import { checkImageName } from '../criu/directory.ts';
import { MAX_DELETED_BYTES, MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_MEMBERS, MAX_UNKNOWN_MEMBERS, NameBudget } from './limits.ts';
import { decompressed, escapes, invalid, readTar, shown } from './read.ts';
import type { ArchiveMember } from './read.ts';
import { TreeMembers } from './tree-members.ts';
import type { TreeMemberCounts } from './tree-members.ts';

export interface ReceiveOptions {
  readonly writer: CheckpointWriter;
  /** Existing private directory for CRIU's images. */
  readonly imageDir: string;
  /** Blob prefixes of the two trees. */
  readonly rootfs: string;
  readonly shm: string;
  /** Called before the directory grows by this much; throws when there is no space. */
  readonly reserve: (bytes: number) => Promise<void>;
  readonly onBytes: (count: number) => void;
  readonly signal: AbortSignal | undefined;
}

export interface Received {
  /** Parsed JSON of config.dump, spec.dump, … by name. */
  readonly documents: ReadonlyMap<string, unknown>;
  readonly rootfs: TreeMemberCounts | undefined;
  readonly shm: TreeMemberCounts | undefined;
  /** What was in the archive and is not in the checkpoint, in words. */
  readonly leftOut: readonly string[];
}

const documentNames = new Set(['config.dump', 'spec.dump', 'network.status', 'bind.mounts', 'status.dump', 'pod.dump', 'pod.options']);
/** Statistics, logs and such: of no use for a restore. */
const ignored = new Set(['stats-dump', 'dump.log', 'ctr.log', 'container.log', 'io.kubernetes.cri-o.LogPath', 'status', 'restore.log']);
const MAX_LEFT_OUT = 100;
/** Space is booked in steps: an archive can have 10^5 small files. */
const RESERVE_BYTES = 16 * MiB;

export async function receiveArchive(bytes: AsyncIterable<Uint8Array>, options: ReceiveOptions): Promise<Received> {
  const receiver = new Receiver(options);
  const { bytes: plain } = await decompressed(bytes, 'the archive');
  for await (const member of readTar(plain, { signal: options.signal, what: 'the archive' })) await receiver.take(member);
  return receiver.finish();
}

class Receiver {
  readonly #options: ReceiveOptions;
  readonly #documents = new Map<string, unknown>();
  readonly #seen = new Set<string>();
  readonly #leftOut: string[] = [];
  readonly #names = new NameBudget();
  #unknown = 0;
  #rootfs: TreeMembers | undefined;
  #shm: TreeMembers | undefined;
  #deleted: readonly string[] = [];
  #reserved = 0;
  #used = 0;

  constructor(options: ReceiveOptions) {
    this.#options = options;
  }

  async take(member: ArchiveMember): Promise<void> {
    const { path, header: { type } } = member;
    const name = path.join('/');
    if (type === 'directory') return;
    if (type !== 'file') throw escapes(`a member that is a ${type ?? 'thing of an unknown kind'}, not a file`, name);
    if (path.length === 0) throw invalid('the archive has a file without a name');
    if (this.#seen.has(name)) throw invalid(`the archive has ${shown(name)} twice`);
    this.#names.take(name.length);
    this.#seen.add(name);
    if (this.#seen.size > MAX_MEMBERS) throw new StasisError('LIMIT_EXCEEDED', `the archive has more than ${MAX_MEMBERS} members`);
    await this.#dispatch(name, path, member);
  }

  async #dispatch(name: string, path: readonly string[], member: ArchiveMember): Promise<void> {
    if (path[0] === 'checkpoint') await this.#image(path, member);
    else if (documentNames.has(name)) this.#documents.set(name, parse(name, await whole(member, name, MAX_JSON_BYTES)));
    else if (name === 'deleted.files') this.#deleted = deletions(parse(name, await whole(member, name, MAX_DELETED_BYTES)));
    else if (name === 'rootfs-diff.tar') this.#rootfs = await this.#tree(member, name, this.#options.rootfs, 'overlay-upper');
    else if (name === 'devshm-checkpoint.tar') this.#shm = await this.#tree(member, name, this.#options.shm, 'plain');
    else if (!ignored.has(name)) this.#skip(name, path);
  }

  /** Artifacts and such come in directories of their own: one of them counts as one. */
  #skip(name: string, [top = '']: readonly string[]): void {
    this.#leaveOut(`${shown(name)} of the archive`);
    if (top !== 'artifacts') this.#unknown += 1;
    if (this.#unknown > MAX_UNKNOWN_MEMBERS) throw new StasisError('LIMIT_EXCEEDED', `the archive has more than ${MAX_UNKNOWN_MEMBERS} files that are not known`, { hint: 'is it an archive of podman or CRI-O?' });
  }

  #leaveOut(what: string): void {
    if (this.#leftOut.length < MAX_LEFT_OUT) this.#leftOut.push(what);
  }

  async #image(path: readonly string[], { header, content }: ArchiveMember): Promise<void> {
    const [, name, ...more] = path;
    if (name === undefined || more.length > 0) throw escapes('an image file that is not in the directory of images', path.join('/'));
    if (!/^[\x20-\x7e]*$/.test(name)) throw escapes('an image file of an impossible name', name);
    await this.#reserve(header.size);
    // The name is one component, the directory is private and fresh, and nothing is followed or written over.
    await using file = await open(join(this.#options.imageDir, checkImageName(name)), constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    for await (const part of content) {
      for (let at = 0; at < part.length; ) at += (await file.write(part, at)).bytesWritten;
    }
  }

  async #reserve(bytes: number): Promise<void> {
    // A file takes whole pages.
    this.#used += Math.ceil(bytes / 4096) * 4096;
    if (this.#used <= this.#reserved) return;
    const step = Math.max(RESERVE_BYTES, this.#used - this.#reserved);
    await this.#options.reserve(step);
    this.#reserved += step;
  }

  async #tree({ content }: ArchiveMember, what: string, prefix: string, kind: 'overlay-upper' | 'plain'): Promise<TreeMembers> {
    const { signal, onBytes, writer } = this.#options;
    const tree = new TreeMembers(writer, prefix, kind, this.#names);
    const { bytes, compression } = await decompressed(content, what);
    // containerd writes the layer of an image, gzipped, where podman and CRI-O write a plain tar and a list of deletions.
    await tree.read(readTar(bytes, { signal, what }), { layer: compression !== 'none' && kind === 'overlay-upper', signal, onBytes });
    for (const warning of tree.warnings) this.#leaveOut(`${warning} of files in ${what}`);
    return tree;
  }

  async finish(): Promise<Received> {
    const { signal, writer, rootfs } = this.#options;
    if (this.#seen.has('oci-layout')) {
      throw new StasisError('FORMAT_UNSUPPORTED', 'this is an image, not an archive of a checkpoint', { hint: 'an image of a checkpoint has the archive as its one layer: unpack it and import the largest file below blobs/sha256' });
    }
    for (const name of ['config.dump', 'spec.dump', 'checkpoint/inventory.img']) if (!this.#seen.has(name)) throw invalid(`the archive has no ${name}`);
    if (this.#deleted.length > 0) {
      this.#rootfs ??= await emptyTree(writer, rootfs, this.#names, signal);
      for (const path of this.#deleted) this.#rootfs.delete(Buffer.from(path).toString('latin1'));
    }
    return { documents: this.#documents, rootfs: await this.#rootfs?.finish({ signal }), shm: await this.#shm?.finish({ signal }), leftOut: this.#leftOut };
  }
}

async function emptyTree(writer: CheckpointWriter, prefix: string, names: NameBudget, signal: AbortSignal | undefined): Promise<TreeMembers> {
  const tree = new TreeMembers(writer, prefix, 'overlay-upper', names);
  await tree.read((async function* () {})(), { layer: false, signal, onBytes: () => {} });
  return tree;
}

async function whole({ header, content }: ArchiveMember, name: string, most: number): Promise<Buffer> {
  if (header.size > most) throw new StasisError('LIMIT_EXCEEDED', `${name} of the archive has ${header.size} bytes, at most ${most} are read`);
  const parts: Buffer[] = [];
  for await (const part of content) parts.push(part);
  return Buffer.concat(parts);
}

function parse(name: string, bytes: Buffer): unknown {
  const text = bytes.toString();
  if (depthOf(text) > MAX_JSON_DEPTH) throw new StasisError('LIMIT_EXCEEDED', `${name} of the archive is nested more than ${MAX_JSON_DEPTH} levels deep`);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw invalid(`${name} of the archive is not JSON: ${(error as Error).message.slice(0, 200)}`, error);
  }
}

/** Brackets inside of strings do not count. */
function depthOf(text: string): number {
  let [depth, deepest, inString] = [0, 0, false];
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i);
    if (inString) {
      if (character === 0x5c) i += 1;
      else if (character === 0x22) inString = false;
    } else if (character === 0x22) inString = true;
    else if (character === 0x7b || character === 0x5b) deepest = Math.max(deepest, ++depth);
    else if (character === 0x7d || character === 0x5d) depth -= 1;
  }
  return deepest;
}

function deletions(value: unknown): readonly string[] {
  if (Array.isArray(value) && value.every((path) => typeof path === 'string')) return value;
  // podman writes null when nothing was deleted.
  if (value === null) return [];
  throw invalid('deleted.files of the archive is no list of paths');
}
