/** Takes a page-server connection apart: headers here, pages straight to where they are staged. Knows nothing of sockets. */
import { KiB } from '../../core/units.ts';
import { PE_PARENT, PE_PRESENT } from '../criu/pagemap.ts';
import { LONG_HEADER, OP_ADD, OP_ADD_F, OP_CLOSE, OP_FORCE_CLOSE, OP_HOLE, OP_OPEN, OP_OPEN2, OP_PARENT, SHORT_HEADER, checkRunFlags, decodeMessage, imageIdOf, protocolError, sniffHeaderSize } from './protocol.ts';
import type { HeaderSize, ImageId } from './protocol.ts';

export interface PageSink {
  /** An image begins; the one before it is complete. */
  open(image: ImageId): void;
  /** A run of pages begins, in the open image. Returns the bytes that follow. */
  run(image: ImageId, address: number, pages: number, flags: number): number;
  /** Where the next bytes of the run go; undefined when there is no room at the moment. */
  room(): Uint8Array | undefined;
  /** So many bytes were put at the start of room(). */
  wrote(count: number): void;
  /** The dump is complete. */
  close(): void;
  /** Whether there is a round before that has this image: criu then leaves out what it has not seen change. */
  hasParent(image: ImageId): boolean;
  reply(bytes: Uint8Array): void;
}

/** Small enough that little of a long run is copied, large enough for many short ones. */
const SCRATCH_BYTES = 256 * KiB;
/** A rest of a run at least this long is read to its place without a copy. */
const DIRECT_BYTES = 64 * KiB;
/** After a CLOSE that came first nobody knows whether its header had 24 or 32 bytes. */
const CLOSE_SLACK = LONG_HEADER - SHORT_HEADER;

/** Read into buffer(), tell advance() how much, stop reading while it says false, then ask resume(). */
export class PageStream {
  readonly #sink: PageSink;
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  readonly #header = new DataView(new ArrayBuffer(LONG_HEADER));
  readonly #expected: HeaderSize;
  #size: HeaderSize | undefined;
  #headerAt = 0;
  /** Bytes of the current run that have not come yet. */
  #payload = 0;
  /** Bytes in scratch that are not taken apart yet. */
  #from = 0;
  #to = 0;
  #direct = false;
  #closed = false;
  #slack = 0;

  constructor(sink: PageSink, expected: HeaderSize) {
    this.#sink = sink;
    this.#expected = expected;
  }

  /** Where the next bytes of the connection belong. Valid until advance(). */
  buffer(): Uint8Array {
    const room = this.#payload >= DIRECT_BYTES && this.#from === this.#to ? this.#sink.room() : undefined;
    this.#direct = room !== undefined;
    return room === undefined ? this.#scratch : room.subarray(0, Math.min(room.length, this.#payload));
  }

  /** `count` bytes were read into buffer(). False: stop reading, there is no room. */
  advance(count: number): boolean {
    if (this.#direct) this.#take(count);
    else this.#to = count;
    return this.resume();
  }

  /** Goes on with what has been read. True when more can be read. */
  resume(): boolean {
    while (this.#from < this.#to) {
      if (this.#payload === 0) this.#readHeader();
      else if (!this.#copy()) return false;
    }
    this.#from = this.#to = 0;
    return this.#payload === 0 || this.#sink.room() !== undefined;
  }

  /** Whether a CLOSE has been seen. */
  get closed(): boolean {
    return this.#closed;
  }

  get headerSize(): HeaderSize {
    return this.#size ?? this.#expected;
  }

  #hasParent(destination: number): number {
    return this.#sink.hasParent(imageIdOf(destination)) ? 1 : 0;
  }

  #take(count: number): void {
    this.#payload -= count;
    this.#sink.wrote(count);
  }

  #copy(): boolean {
    const room = this.#sink.room();
    if (room === undefined) return false;
    const count = Math.min(room.length, this.#payload, this.#to - this.#from);
    room.set(this.#scratch.subarray(this.#from, this.#from + count));
    this.#from += count;
    this.#take(count);
    return true;
  }

  #readHeader(): void {
    if (this.#closed) {
      this.#slack -= this.#to - this.#from;
      if (this.#slack < 0) throw protocolError('criu goes on after the end of the dump');
      this.#from = this.#to;
      return;
    }
    const wanted = this.#size ?? SHORT_HEADER;
    while (this.#headerAt < wanted && this.#from < this.#to) this.#header.setUint8(this.#headerAt++, this.#scratch[this.#from++] ?? 0);
    if (this.#headerAt < wanted) return;
    if (this.#size === undefined && !this.#settleSize()) return;
    this.#headerAt = 0;
    this.#handle();
  }

  /** After the first 24 bytes. What they show is certain; the version is only a guess. False when 8 more belong to the header. */
  #settleSize(): boolean {
    const op = this.#header.getUint32(0, true) & 0xffff;
    const closing = op === OP_CLOSE || op === OP_FORCE_CLOSE;
    this.#size = closing ? SHORT_HEADER : (sniffHeaderSize(this.#header) ?? this.#expected);
    if (closing) this.#slack = CLOSE_SLACK;
    return this.#size === SHORT_HEADER;
  }

  #handle(): void {
    const { op, flags, pages, address, destination } = decodeMessage(this.#header, this.headerSize);
    switch (op) {
      case OP_OPEN:
      case OP_OPEN2:
        this.#sink.open(imageIdOf(destination));
        if (op === OP_OPEN2) this.#sink.reply(Uint8Array.of(this.#hasParent(destination)));
        return;
      case OP_PARENT:
        this.#sink.reply(Uint8Array.of(this.#hasParent(destination), 0, 0, 0));
        return;
      case OP_ADD:
      case OP_HOLE:
      case OP_ADD_F: {
        const image = imageIdOf(destination);
        const runFlags = op === OP_ADD ? PE_PRESENT : op === OP_HOLE ? PE_PARENT : flags;
        this.#payload = this.#sink.run(image, address, pages, checkRunFlags(runFlags, this.#sink.hasParent(image)));
        return;
      }
      case OP_CLOSE:
      case OP_FORCE_CLOSE:
        this.#closed = true;
        this.#sink.close();
        return;
      default:
        throw protocolError(`unknown command ${op}; its headers were taken to have ${this.headerSize} bytes`);
    }
  }
}
