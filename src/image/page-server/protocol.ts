/**
 * The messages of CRIU's page server (criu/page-xfer.c): a fixed header in the byte order of the machine, then pages.
 * Up to CRIU 4.1 the header has 24 bytes, from 4.2 on 32; there is no negotiation.
 */
import { StasisError } from '../../core/errors.ts';
import { PE_LAZY, PE_PARENT, PE_PRESENT } from '../criu/pagemap.ts';

export const OP_ADD = 1;
export const OP_HOLE = 2;
export const OP_OPEN = 3;
export const OP_OPEN2 = 4;
export const OP_PARENT = 5;
export const OP_ADD_F = 6;
export const OP_GET = 7;
export const OP_CLOSE = 0x1023;
export const OP_FORCE_CLOSE = 0x1024;

export const SHORT_HEADER = 24;
export const LONG_HEADER = 32;
export type HeaderSize = typeof SHORT_HEADER | typeof LONG_HEADER;

/** What dst_id says: which image a message belongs to. */
export interface ImageId {
  readonly kind: 'task' | 'shmem';
  readonly id: number;
}

export interface Message {
  readonly op: number;
  readonly flags: number;
  readonly pages: number;
  readonly address: number;
  /** The low byte is the kind, the rest the number of the image. */
  readonly destination: number;
}

export function headerSizeOf(criu: readonly [number, number, number]): HeaderSize {
  return criu[0] > 4 || (criu[0] === 4 && criu[1] >= 2) ? LONG_HEADER : SHORT_HEADER;
}

/**
 * The header size as the first 24 bytes of a connection show it: an OPEN2 or PARENT carries a destination, never zero,
 * at 16 in the short form, and zeros at 16 in the long one. Undefined when they do not show it.
 */
export function sniffHeaderSize(first: DataView): HeaderSize | undefined {
  const op = first.getUint32(0, true) & 0xffff;
  if (op !== OP_OPEN2 && op !== OP_PARENT) return undefined;
  return first.getBigUint64(16, true) === 0n ? LONG_HEADER : SHORT_HEADER;
}

export function decodeMessage(header: DataView, size: HeaderSize): Message {
  const command = header.getUint32(0, true);
  const long = size === LONG_HEADER;
  return {
    op: command & 0xffff,
    flags: command >>> 16,
    pages: long ? unsigned(header, 8) : header.getUint32(4, true),
    address: unsigned(header, long ? 16 : 8),
    destination: unsigned(header, long ? 24 : 16),
  };
}

/** What decodeMessage reads. `address` is a multiple of the page size, so that it is exact. */
export function encodeMessage({ op, flags, pages, address, destination }: Message, size: HeaderSize): Buffer {
  const header = Buffer.alloc(size);
  const long = size === LONG_HEADER;
  header.writeUInt32LE(((flags << 16) | op) >>> 0, 0);
  if (long) header.writeBigUInt64LE(BigInt(pages), 8);
  else header.writeUInt32LE(pages, 4);
  header.writeBigUInt64LE(BigInt(address), long ? 16 : 8);
  header.writeBigUInt64LE(BigInt(destination), long ? 24 : 16);
  return header;
}

/** Exact for page-aligned numbers and up to 2^53; what is beyond is out of every limit anyhow. */
function unsigned(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

const KIND_TASK = 1;
const KIND_SHMEM = 2;

export function imageIdOf(destination: number): ImageId {
  const kind = destination % 256;
  const id = (destination - kind) / 256;
  if ((kind !== KIND_TASK && kind !== KIND_SHMEM) || !Number.isSafeInteger(destination)) {
    throw protocolError(`a message is for an image of unknown kind ${kind}`);
  }
  return { kind: kind === KIND_TASK ? 'task' : 'shmem', id };
}

/** The flags of the pages of a run; throws for what the checkpoint cannot hold. `parent`: pages may be in the round before. */
export function checkRunFlags(flags: number, parent: boolean): number {
  if ((flags & ~(PE_PARENT | PE_LAZY | PE_PRESENT)) !== 0) {
    throw new StasisError('FORMAT_UNSUPPORTED', `criu sends pages with unknown flags 0x${flags.toString(16)}`, { hint: 'switch compression of images off in the configuration of criu' });
  }
  if ((flags & PE_PRESENT) === 0 && !(parent && (flags & PE_PARENT) !== 0)) throw protocolError('criu leaves pages out (a parent image or a lazy dump), but there is no parent to find them in');
  return flags;
}

/** Something that a real criu does not send: the dump fails, the container goes on. */
export function protocolError(problem: string): StasisError {
  return new StasisError('DUMP_FAILED', `the page server cannot take this dump: ${problem}`);
}
