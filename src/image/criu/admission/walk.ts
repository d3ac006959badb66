/** Reads an image file from beginning to end by its rule: every byte is a known magic, a message of a table, or the payload that the message speaks of. */
import { closeSync, openSync, readSync } from 'node:fs';
import { KiB, MiB } from '../../../core/units.ts';
import { tables } from './catalog.ts';
import type { ImageRule } from './catalog.ts';
import { corrupt } from './message.ts';
import type { Message } from './message.ts';

const IMAGE_MAGIC = 0x54564319;
/** mm-PID.img has some 40 bytes for each of up to 100,000 mappings. */
const MAX_MESSAGE_BYTES = 64 * MiB;
const BLOCK_BYTES = 256 * KiB;

export type Visit = (message: Message) => void;

/** `complete`: messages have every field that CRIU wants. Throws OBJECT_CORRUPT. */
export function walkImage(path: string, file: { readonly name: string; readonly size: number }, rule: ImageRule, visit: Visit, complete = true): void {
  const fd = openSync(path, 'r');
  try {
    walk(new Cursor(fd, file, complete), rule, visit);
  } finally {
    closeSync(fd);
  }
}

function walk(cursor: Cursor, rule: ImageRule, visit: Visit): void {
  for (const magic of rule.kind === 'inventory' ? [rule.magic] : [IMAGE_MAGIC, rule.magic]) {
    const found = cursor.u32();
    if (found !== magic) throw corrupt(cursor.name, `is not what it is named: magic 0x${found.toString(16)}`);
  }
  let count = 0;
  if (rule.head !== undefined) visit(cursor.message(rule.head));
  while (cursor.left > 0) {
    const message = cursor.message(rule.message);
    count += 1;
    if (rule.single && count > 1) throw corrupt(cursor.name, 'has more than one message');
    visit(message);
    payload(cursor, rule, message, visit);
  }
  if (count === 0 && (rule.single || rule.payload === 'ghost')) throw corrupt(cursor.name, 'has no message');
}

/** Lengths as CRIU takes them (criu/pipes.c, sk-queue.c, sk-tcp.c, ipc_ns.c, files-reg.c). */
function payload(cursor: Cursor, { payload: kind }: ImageRule, message: Message, visit: Visit): void {
  switch (kind) {
    case 'pipe': cursor.skip(message.number('bytes')); break;
    case 'queue': cursor.skip(message.number('length')); break;
    case 'tcp': cursor.skip(message.number('inq_len') + message.number('outq_len')); break;
    case 'semaphores': cursor.skip(roundUp(message.number('nsems') * 2, 8)); break;
    case 'shared': if (!message.flag('in_pagemaps')) cursor.skip(roundUp(Number(message.big('size')), 4)); break;
    case 'messages':
      for (let i = 0; i < message.number('qnum'); i += 1) {
        const one = cursor.message('ipc_msg');
        visit(one);
        cursor.skip(roundUp(one.number('msize'), 8));
      }
      break;
    case 'ghost':
      if (!message.flag('chunks')) cursor.skip(cursor.left);
      while (cursor.left > 0) {
        const chunk = cursor.message('ghost_chunk');
        visit(chunk);
        cursor.skip(Number(chunk.big('len')));
      }
      break;
    default:
  }
}

const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to;

/** A place in a file. */
class Cursor {
  readonly name: string;
  readonly #fd: number;
  readonly #size: number;
  readonly #complete: boolean;
  #at = 0;
  #block: Buffer = Buffer.alloc(0);
  #blockAt = 0;

  constructor(fd: number, { name, size }: { readonly name: string; readonly size: number }, complete: boolean) {
    this.#fd = fd;
    this.#complete = complete;
    this.name = name;
    this.#size = size;
  }

  get left(): number {
    return this.#size - this.#at;
  }

  u32(): number {
    return this.#take(4).readUInt32LE();
  }

  message(table: string): Message {
    const length = this.u32();
    if (length > MAX_MESSAGE_BYTES) throw corrupt(this.name, `has a message of ${length} bytes`);
    return tables.read(table, this.#take(length), this.name, this.#complete);
  }

  skip(count: number): void {
    if (!(count <= this.left)) throw corrupt(this.name, 'ends in the middle of what it holds');
    this.#at += count;
  }

  /** Valid until the next call, unless the message keeps views of it: those are of a block of their own. */
  #take(count: number): Buffer {
    if (count > this.left) throw corrupt(this.name, 'ends in the middle of a message');
    const from = this.#at - this.#blockAt;
    if (from < 0 || from + count > this.#block.length) this.#fill(count);
    const bytes = this.#block.subarray(this.#at - this.#blockAt, this.#at - this.#blockAt + count);
    this.#at += count;
    return bytes;
  }

  #fill(count: number): void {
    const block = Buffer.alloc(Math.min(Math.max(BLOCK_BYTES, count), this.left));
    let filled = 0;
    while (filled < block.length) {
      const read = readSync(this.#fd, block, filled, block.length - filled, this.#at + filled);
      if (read === 0) throw corrupt(this.name, 'is shorter than it was');
      filled += read;
    }
    this.#block = block;
    this.#blockAt = this.#at;
  }
}
