/** Archives for tests, good ones and such as no honest tool writes: every field of a header can be anything. */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PE_PRESENT } from '../../src/image/criu/pagemap.ts';
import { pagemap, writeMetadata } from './criu-images.ts';

export interface Fields {
  readonly name?: string | Buffer;
  /** Type flag, '0' for a file. */
  readonly type?: string;
  readonly link?: string;
  readonly body?: Uint8Array | string;
  /** The size field as it is; the length of the body unless told. */
  readonly size?: number | Buffer;
  readonly mode?: number;
  readonly uid?: number | Buffer;
  readonly mtime?: Buffer;
  readonly device?: readonly [number, number];
  readonly magic?: string;
  readonly checksum?: number;
  /** Records of a pax header before this one. */
  readonly pax?: Readonly<Record<string, string | Buffer>>;
}

const octal = (value: number | Buffer, width: number): Buffer => (Buffer.isBuffer(value) ? value : Buffer.from(value.toString(8).padStart(width - 1, '0')));

export function member(fields: Fields): Buffer {
  const body = Buffer.from(fields.body ?? '');
  const block = Buffer.alloc(512);
  Buffer.from(fields.name ?? 'x').copy(block, 0, 0, 100);
  octal(fields.mode ?? 0o644, 8).copy(block, 100);
  octal(fields.uid ?? 0, 8).copy(block, 108);
  octal(0, 8).copy(block, 116);
  octal(fields.size ?? body.length, 12).copy(block, 124);
  (fields.mtime ?? octal(1, 12)).copy(block, 136);
  block.write(fields.type ?? '0', 156, 'latin1');
  block.write(fields.link ?? '', 157, 100, 'latin1');
  block.write(fields.magic ?? 'ustar\x0000', 257, 'latin1');
  octal(fields.device?.[0] ?? 0, 8).copy(block, 329);
  octal(fields.device?.[1] ?? 0, 8).copy(block, 337);
  block.fill(' ', 148, 156);
  const sum = fields.checksum ?? block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const before = fields.pax === undefined ? Buffer.alloc(0) : member({ name: 'pax', type: 'x', body: records(fields.pax) });
  return Buffer.concat([before, block, body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}

export function records(pax: Readonly<Record<string, string | Buffer>>): Buffer {
  return Buffer.concat(Object.entries(pax).map(([key, value]) => {
    const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
    let length = rest.length + String(rest.length).length;
    if (rest.length + String(length).length !== length) length += 1;
    return Buffer.concat([Buffer.from(String(length)), rest]);
  }));
}

export const end = Buffer.alloc(1024);
export const tar = (...members: readonly Buffer[]): Buffer => Buffer.concat([...members, end]);

/** Members of a good archive by name. */
export function goodMembers(): Map<string, Buffer> {
  const directory = mkdtempSync(join(tmpdir(), 'images-'));
  writeMetadata(directory);
  const members = new Map<string, Buffer>();
  const add = (name: string, body: Uint8Array | string): void => void members.set(name, member({ name, body }));
  add('config.dump', JSON.stringify({ id: 'ab'.repeat(32), name: 'web', rootfsImageName: 'localhost/x:1', runtime: 'runc' }));
  add('spec.dump', JSON.stringify({ ociVersion: '1.2.0', process: { args: ['sh'], cwd: '/' }, annotations: { 'io.container.manager': 'libpod' }, mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }] }));
  add('network.status', 'null');
  add('stats-dump', 'statistics');
  for (const name of readdirSync(directory)) add(`checkpoint/${name}`, readFileSync(join(directory, name)));
  add('checkpoint/pagemap-1.img', pagemap(1, [{ address: 0x10000, pages: 2, flags: PE_PRESENT }]));
  add('checkpoint/pages-1.img', Buffer.alloc(8192, 3));
  rmSync(directory, { recursive: true });
  return members;
}

/** A good archive with some members replaced (undefined: left out) and others put at its end. */
export function archive(replaced: Readonly<Record<string, Buffer | undefined>> = {}, ...more: readonly Buffer[]): Buffer {
  const members = goodMembers();
  for (const [name, bytes] of Object.entries(replaced)) {
    if (bytes === undefined) members.delete(name);
    else members.set(name, bytes);
  }
  return tar(...members.values(), ...more);
}
