/**
 * Headers of a tar file (POSIX ustar, with pax records where ustar has no room). Names are bytes, numbers may be as
 * large as Linux has them: tar-stream's own writer takes names as text and writes a uid above 2^18 as 777777.
 */
import { invariant } from '../../core/assert.ts';

export type MemberType = 'file' | 'link' | 'symlink' | 'character-device' | 'block-device' | 'directory' | 'fifo';

const typeFlags: Readonly<Record<MemberType, string>> = { file: '0', link: '1', symlink: '2', 'character-device': '3', 'block-device': '4', directory: '5', fifo: '6' };

export interface TarMember {
  /** Relative path; directories end with "/". */
  readonly name: Uint8Array;
  readonly type: MemberType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  /** Bytes that follow the header; 0 for all but files. */
  readonly size: number;
  readonly target?: Uint8Array | undefined;
  readonly device?: readonly [number, number] | undefined;
  readonly xattrs?: readonly { readonly name: Uint8Array; readonly value: Uint8Array }[];
}

export const BLOCK_BYTES = 512;
const NAME_BYTES = 100;
/** Two blocks of zeros end a tar file. */
export const END_BYTES = 2 * BLOCK_BYTES;

/** What follows `size` bytes so that the next header begins at a block. */
export function padding(size: number): number {
  return (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;
}

export function tarHeader(member: TarMember): Buffer {
  const records = paxRecords(member);
  const block = encode(member, typeFlags[member.type]);
  if (records.length === 0) return block;
  const body = Buffer.concat(records);
  const pax = encode({ ...member, name: Buffer.from('././@PaxHeader'), target: undefined, device: undefined, mode: 0o600, size: body.length }, 'x');
  return Buffer.concat([pax, body, Buffer.alloc(padding(body.length)), block]);
}

function paxRecords({ name, target, xattrs = [] }: TarMember): Buffer[] {
  const records: Buffer[] = [];
  if (name.length > NAME_BYTES) records.push(paxRecord('path', name));
  if (target !== undefined && target.length > NAME_BYTES) records.push(paxRecord('linkpath', target));
  for (const xattr of xattrs) records.push(paxRecord(`SCHILY.xattr.${Buffer.from(xattr.name).toString('latin1')}`, xattr.value));
  return records;
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
function paxRecord(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), value, Buffer.from('\n')]);
  let length = rest.length + String(rest.length).length;
  if (rest.length + String(length).length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function encode({ name, mode, uid, gid, size, mtimeSeconds, target, device }: TarMember, type: string): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  block.set(name.subarray(0, NAME_BYTES), 0);
  number(block, 100, 8, mode);
  number(block, 108, 8, uid);
  number(block, 116, 8, gid);
  number(block, 124, 12, size);
  number(block, 136, 12, mtimeSeconds);
  block.write(type, 156, 'latin1');
  if (target !== undefined) block.set(target.subarray(0, NAME_BYTES), 157);
  block.write('ustar\x0000', 257, 'latin1');
  number(block, 329, 8, device?.[0] ?? 0);
  number(block, 337, 8, device?.[1] ?? 0);
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Octal digits and a NUL; what does not fit, or is negative, in two's complement with the top bit set, as GNU tar does it. */
function number(block: Buffer, at: number, width: number, value: number): void {
  invariant(Number.isSafeInteger(value), `${value} is not a number for a tar header`);
  const digits = value.toString(8);
  if (value >= 0 && digits.length < width) {
    block.write(`${digits.padStart(width - 1, '0')}\0`, at, 'latin1');
    return;
  }
  let rest = BigInt.asUintN((width - 1) * 8, BigInt(value));
  for (let i = width - 1; i > 0; i--) {
    block[at + i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[at] = value < 0 ? 0xff : 0x80;
}
