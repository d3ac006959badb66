/**
 * How long requests take here, learnt from those that succeeded: when one is late enough to be asked a second time,
 * and when it is hopeless and has to be cut off.
 */
const SAMPLES = 64;
/** With fewer there is no percentile worth the name. */
const ENOUGH = 8;

export interface PaceLimits {
  /** A request that carries nothing is cut off after this. */
  readonly stallMs: number;
  /** No request is expected to be slower than this, until it was seen: bytes per second. */
  readonly leastBytesPerSecond: number;
  /** Bounds of the delay before a second request. */
  readonly hedgeLeastMs: number;
  readonly hedgeMostMs: number;
}

export class Pace {
  readonly #limits: PaceLimits;
  /** Durations by the size of the request. */
  readonly #samples = new Map<number, number[]>();
  /** Bytes per second of one request, smoothed; of those long enough to tell. */
  #rate: number;

  constructor(limits: PaceLimits) {
    this.#limits = limits;
    this.#rate = limits.leastBytesPerSecond;
  }

  succeeded(bytes: number, ms: number): void {
    const list = this.#of(bytes);
    if (list.length === SAMPLES) list.shift();
    list.push(ms);
    if (bytes >= 256 * 1024) this.#rate += ((bytes * 1000) / Math.max(ms, 1) - this.#rate) / 8;
  }

  /** Deadline of one attempt. Each that was cut off before doubles it: perhaps the network just is that slow. */
  allowedMs(bytes: number, cutOffs: number): number {
    const rate = Math.max(this.#limits.leastBytesPerSecond, this.#rate / 16);
    return (this.#limits.stallMs + (bytes * 1000) / rate) * 2 ** Math.min(cutOffs, 10);
  }

  /** The 95th percentile and half as much again. */
  hedgeMs(bytes: number): number {
    const { hedgeLeastMs, hedgeMostMs } = this.#limits;
    const sorted = [...this.#of(bytes)].sort((a, b) => a - b);
    if (sorted.length < ENOUGH) return hedgeMostMs;
    const p95 = sorted[Math.floor(sorted.length * 0.95)] ?? hedgeMostMs;
    return Math.min(hedgeMostMs, Math.max(hedgeLeastMs, p95 * 1.5));
  }

  #of(bytes: number): number[] {
    const size = Math.max(12, Math.ceil(Math.log2(Math.max(1, bytes))));
    const known = this.#samples.get(size);
    if (known !== undefined) return known;
    const list: number[] = [];
    this.#samples.set(size, list);
    return list;
  }
}
