/**
 * How CRIU lays a protobuf image out (criu/image.c, images/README): one or two little-endian u32 magics,
 * then entries of a u32 length and a message. Raw files (pages-*, tmpfs archives, …) have no frame at all.
 */
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';

const IMAGE = 0x54564319;
const SERVICE = 0x55105940;

/** The magics an image begins with. inventory.img is the one image without the common first magic. */
export const imageMagics = {
  inventory: [0x58313116],
  pstree: [IMAGE, 0x50273030],
  core: [IMAGE, 0x55053847],
  mm: [IMAGE, 0x57492820],
  pagemap: [IMAGE, 0x56084025],
  files: [IMAGE, 0x56303138],
  ids: [IMAGE, 0x54432030],
  mounts: [IMAGE, 0x55563928],
  userns: [IMAGE, 0x55474906],
  netdev: [IMAGE, 0x57373951],
  ghost: [IMAGE, 0x52583605],
  seccomp: [IMAGE, 0x64413049],
  cpuinfo: [IMAGE, 0x61404013],
  stats: [SERVICE, 0x57093306],
} as const;

export type ImageKind = keyof typeof imageMagics;

/** The largest message CRIU writes is mm-PID.img: about 40 bytes for each of up to some 100,000 mappings. */
const MAX_ENTRY_BYTES = 64 * MiB;

/** Cuts a stream of blocks into the messages of an image. Holds at most one incomplete message. */
export class EntrySplitter {
  readonly #kind: ImageKind;
  readonly #what: string;
  #rest: Uint8Array = new Uint8Array(0);
  #headed = false;

  constructor(kind: ImageKind, what: string) {
    this.#kind = kind;
    this.#what = what;
  }

  /** The messages completed by this block: views, valid until the block is reused. */
  *push(block: Uint8Array): Generator<Uint8Array> {
    const bytes = this.#rest.length === 0 ? block : Buffer.concat([this.#rest, block]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = this.#headed ? 0 : this.#header(view);
    while (this.#headed && at + 4 <= bytes.length) {
      const length = view.getUint32(at, true);
      if (length > MAX_ENTRY_BYTES) {
        throw new StasisError('LIMIT_EXCEEDED', `${this.#what} has a message of ${length} bytes; at most ${MAX_ENTRY_BYTES} are read`);
      }
      if (at + 4 + length > bytes.length) break;
      yield bytes.subarray(at + 4, at + 4 + length);
      at += 4 + length;
    }
    this.#rest = bytes.slice(at);
  }

  /** Throws when the image stopped in the middle of something. */
  end(): void {
    if (!this.#headed) throw new StasisError('OBJECT_CORRUPT', `${this.#what} is shorter than the header of a CRIU image`);
    if (this.#rest.length > 0) throw new StasisError('OBJECT_CORRUPT', `${this.#what} ends in the middle of a message`);
  }

  #header(view: DataView): number {
    const magics = imageMagics[this.#kind];
    if (view.byteLength < magics.length * 4) return 0;
    magics.forEach((magic, i) => {
      const found = view.getUint32(i * 4, true);
      if (found === magic) return;
      throw new StasisError('OBJECT_CORRUPT', `${this.#what} is not a CRIU ${this.#kind} image: magic 0x${found.toString(16)} instead of 0x${magic.toString(16)}`);
    });
    this.#headed = true;
    return magics.length * 4;
  }
}

/** All messages of an image that lies in memory. */
export function* imageEntries(bytes: Uint8Array, kind: ImageKind, what: string): Generator<Uint8Array> {
  const splitter = new EntrySplitter(kind, what);
  yield* splitter.push(bytes);
  splitter.end();
}

/** The one message of an image that has exactly one. */
export function singleEntry(bytes: Uint8Array, kind: ImageKind, what: string): Uint8Array {
  const entries = [...imageEntries(bytes, kind, what)];
  const [entry] = entries;
  if (entry === undefined || entries.length > 1) throw new StasisError('OBJECT_CORRUPT', `${what} has ${entries.length} messages instead of one`);
  return entry;
}

/** The header and the framed messages of an image, for those that Stasis writes. */
export function imageHeader(kind: ImageKind): Uint8Array {
  const magics = imageMagics[kind];
  const bytes = Buffer.alloc(magics.length * 4);
  magics.forEach((magic, i) => bytes.writeUInt32LE(magic, i * 4));
  return bytes;
}

export function frame(message: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(4 + message.length);
  bytes.writeUInt32LE(message.length);
  bytes.set(message, 4);
  return bytes;
}
