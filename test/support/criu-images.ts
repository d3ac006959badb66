/** Makes small CRIU image directories as CRIU 4.2 writes them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { frame, imageHeader } from '../../src/image/criu/framing.ts';
import type { ImageKind } from '../../src/image/criu/framing.ts';
import { PagemapWriter } from '../../src/image/criu/pagemap.ts';
import type { PageRun } from '../../src/image/criu/pagemap.ts';
import { WireWriter } from '../../src/image/criu/wire.ts';

const text = (value: string): Uint8Array => Buffer.from(value);

export function image(kind: ImageKind, messages: readonly WireWriter[]): Buffer {
  return Buffer.concat([imageHeader(kind), ...messages.map((message) => frame(message.result()))]);
}

export function pagemap(pagesId: number, runs: readonly PageRun[]): Buffer {
  const writer = new PagemapWriter();
  return Buffer.concat([writer.head(pagesId), ...runs.map((run) => writer.run(run))]);
}

/** One process (pid 1, "sh") with a listening and an established socket, and one with shared memory beside it. */
export function writeMetadata(directory: string): void {
  const plugins = new WireWriter().bytes(12, text('cuda_plugin'));
  const files = {
    'inventory.img': image('inventory', [new WireWriter().uint(1, 2).uint(6, 2).uint(10, 1).uint(11, 2).bytes(12, plugins.result())]),
    'pstree.img': image('pstree', [new WireWriter().uint(1, 1).uint(2, 0).uint(5, 1).uint(5, 7), new WireWriter().uint(1, 9).uint(2, 1).uint(5, 9)]),
    'core-1.img': image('core', [new WireWriter().uint(1, 1).bytes(3, new WireWriter().uint(1, 1).bytes(6, text('sh\u001b[2J')).result())]),
    'mm-1.img': image('mm', [new WireWriter().bytes(14, mapping(0x10000, 0x30000, 0x200)).bytes(14, mapping(0x40000, 0x41000, 0x40))]),
    'files.img': image('files', [socket(10, 6379, [0], []), socket(1, 6379, [0x0100007f], [0x0200007f]), new WireWriter().uint(1, 1).uint(2, 3)]),
    'iptables-10.img': Buffer.alloc(0),
    'ghost-file-1.img': ghost(1000),
    'descriptors.json': Buffer.from('["/dev/null","pipe:[1]","pipe:[2]"]'),
  };
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(directory, name), bytes);
}

/** The deleted file is as large as the image lets it be. */
function ghost(bytes: number): Buffer {
  const head = image('ghost', [new WireWriter().uint(1, 0).uint(2, 0).uint(3, 0o100644)]);
  return Buffer.concat([head, Buffer.alloc(bytes - head.length, 7)]);
}

function mapping(start: number, end: number, status: number): Uint8Array {
  return new WireWriter().uint(1, start).uint(2, end).uint(7, status).result();
}

function socket(state: number, port: number, source: readonly number[], destination: readonly number[]): WireWriter {
  const inet = new WireWriter().uint(1, 1).uint(3, 2).uint(4, 1).uint(5, 6).uint(6, state).uint(7, port).uint(8, 999);
  for (const word of source) inet.uint(11, word);
  for (const word of destination) inet.uint(12, word);
  return new WireWriter().uint(1, 4).uint(2, 1).bytes(4, inet.result());
}
