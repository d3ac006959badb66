/** The contents of a blob: runs of zeros and references into chunks, in order. Columns, as there can be millions. */

/** In `chunks`: this segment is a run of zeros. */
export const ZERO = 0xffffffff;

export class SegmentList {
  #chunks = new Uint32Array(16);
  #offsets = new Uint32Array(16);
  /** Start of each segment in the blob. */
  #starts = new Float64Array(16);
  #count = 0;
  #length = 0;

  get count(): number {
    return this.#count;
  }

  /** Bytes of the blob. */
  get length(): number {
    return this.#length;
  }

  zeros(length: number): void {
    if (length === 0) return;
    if (this.#count === 0 || this.#chunks[this.#count - 1] !== ZERO) this.#push(ZERO, 0);
    this.#length += length;
  }

  data(chunk: number, offset: number, length: number): void {
    if (length === 0) return;
    if (!this.#continues(chunk, offset)) this.#push(chunk, offset);
    this.#length += length;
  }

  #continues(chunk: number, offset: number): boolean {
    const last = this.#count - 1;
    return last >= 0 && this.#chunks[last] === chunk && (this.#offsets[last] ?? 0) + this.#length - this.start(last) === offset;
  }

  #push(chunk: number, offset: number): void {
    if (this.#count === this.#chunks.length) {
      const [chunks, offsets, starts] = [this.#chunks, this.#offsets, this.#starts];
      this.#chunks = new Uint32Array(this.#count * 2);
      this.#chunks.set(chunks);
      this.#offsets = new Uint32Array(this.#count * 2);
      this.#offsets.set(offsets);
      this.#starts = new Float64Array(this.#count * 2);
      this.#starts.set(starts);
    }
    this.#chunks[this.#count] = chunk;
    this.#offsets[this.#count] = offset;
    this.#starts[this.#count] = this.#length;
    this.#count += 1;
  }

  zeroBytes(): number {
    let bytes = 0;
    for (let i = 0; i < this.#count; i += 1) if (this.chunk(i) === ZERO) bytes += this.end(i) - this.start(i);
    return bytes;
  }

  /** The chunk of a segment, or {@link ZERO}. */
  chunk(index: number): number {
    return this.#chunks[index] ?? ZERO;
  }

  chunkOffset(index: number): number {
    return this.#offsets[index] ?? 0;
  }

  start(index: number): number {
    return this.#starts[index] ?? this.#length;
  }

  end(index: number): number {
    return index + 1 < this.#count ? this.start(index + 1) : this.#length;
  }

  /** Replaces every chunk number by `numbers[chunk]`. */
  renumber(numbers: Uint32Array): void {
    for (let i = 0; i < this.#count; i += 1) {
      const chunk = this.chunk(i);
      if (chunk !== ZERO) this.#chunks[i] = numbers[chunk] ?? ZERO;
    }
  }

  /** The segment that holds byte `at` of the blob. */
  find(at: number): number {
    let [low, high] = [0, this.#count - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.start(middle) <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Appends a part of one list to another. Returns how much of it is data. `numbers`: what the chunks are called there, the same unless told. */
export function copySegments(source: SegmentList, offset: number, length: number, target: SegmentList, numbers?: Int32Array): number {
  const end = offset + length;
  let data = 0;
  for (let i = source.find(offset); i < source.count && source.start(i) < end; i += 1) {
    const from = Math.max(offset, source.start(i));
    const size = Math.min(end, source.end(i)) - from;
    const chunk = source.chunk(i);
    if (chunk === ZERO) {
      target.zeros(size);
      continue;
    }
    target.data(numbers === undefined ? chunk : (numbers[chunk] as number), source.chunkOffset(i) + from - source.start(i), size);
    data += size;
  }
  return data;
}
