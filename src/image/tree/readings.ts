/**
 * What has been read of which file, by inode, so that a rename or a second name of a file costs no second reading.
 *
 * When is a reading still the file's content at the frozen instant? When inode, size, mtime and ctime were the same
 * (a) before it was read, (b) after it was read and (c) while frozen, and nobody could have written without a
 * change of these times. Two things can: a write within the same tick of the kernel's clock, and a write through
 * a shared mapping to a page that was dirty already. Both need a change at or after the start of the walk, or a
 * mapping that existed at its start: the first are `racy`, the second are named by the caller (distrust).
 */
import type { StatBuffer } from '../../host/tree-calls.ts';
import { Columns } from './columns.ts';
import { Extents } from './extents.ts';
import { CLOCK_TICK_MS, COARSE_CLOCK_TICK_MS, MAX_CONTENTS } from './limits.ts';

export type InodeKey = number | string;

/** Inode numbers of one file system fit a number; what does not, or lies on another device (a subvolume), gets a string. */
export function inodeKey(stat: StatBuffer, home: { major: number; minor: number }): InodeKey {
  if (stat.inodeHigh < 2 ** 20 && stat.onMajor === home.major && stat.onMinor === home.minor) return stat.inodeLow + stat.inodeHigh * 2 ** 32;
  return `${stat.onMajor}:${stat.onMinor}:${stat.inodeHigh}:${stat.inodeLow}`;
}

const READING = 0;
const GOOD = 1;
const STALE = 2;

export class Readings {
  readonly extents = new Extents();
  readonly #byInode = new Map<InodeKey, number>();
  /** Files that were ever mapped shared and writable while they were looked at. */
  readonly #distrusted = new Set<InodeKey>();
  readonly #rows = new Columns(MAX_CONTENTS, 'contents of files');
  readonly #state = this.#rows.u8();
  readonly #waiting = this.#rows.u32();
  readonly #racy = this.#rows.u8();
  readonly #round = this.#rows.u16();
  readonly #xattrs = this.#rows.u32();
  readonly #inodeLow = this.#rows.u32();
  readonly #inodeHigh = this.#rows.u32();
  readonly #mtimeSeconds = this.#rows.f64();
  readonly #mtimeNanoseconds = this.#rows.u32();
  readonly #ctimeSeconds = this.#rows.f64();
  readonly #ctimeNanoseconds = this.#rows.u32();
  #currentRound = 0;
  #startedMs = 0;
  /** Bytes of data that were read, and of those the ones that nothing refers to any more. */
  readBytes = 0;
  supersededBytes = 0;
  /** Files that were read in this round. */
  roundFiles = 0;
  roundBytes = 0;

  /** Another walk begins. What is read in it counts as of one moment; `nowMs` is the clock that the file system uses. */
  beginRound(nowMs: number): void {
    this.#currentRound += 1;
    this.#startedMs = nowMs;
    this.roundFiles = 0;
    this.roundBytes = 0;
  }

  /** The content that may stand for this file, or -1 when it must be read (again). */
  find(key: InodeKey, stat: StatBuffer): number {
    const content = this.#byInode.get(key);
    if (content === undefined || !this.#same(content, stat)) return -1;
    if (this.#round[content] === this.#currentRound) return this.#state[content] === STALE ? -1 : content;
    return this.#state[content] === GOOD && this.#racy[content] === 0 ? content : -1;
  }

  /** A new content for this file; its extents and readings follow. */
  begin(key: InodeKey, stat: StatBuffer, xattrs: number): number {
    const old = this.#byInode.get(key);
    if (old !== undefined) this.supersededBytes += this.extents.bytes(old);
    const content = this.extents.begin(stat.size);
    this.#rows.reach(content);
    this.#byInode.set(key, content);
    this.#state[content] = GOOD;
    this.#waiting[content] = 0;
    this.#racy[content] = this.#isRacy(stat) ? 1 : 0;
    this.#round[content] = this.#currentRound;
    this.#xattrs[content] = xattrs;
    this.#inodeLow[content] = stat.inodeLow;
    this.#inodeHigh[content] = stat.inodeHigh;
    this.#mtimeSeconds[content] = stat.mtimeSeconds;
    this.#mtimeNanoseconds[content] = stat.mtimeNanoseconds;
    this.#ctimeSeconds[content] = stat.ctimeSeconds;
    this.#ctimeNanoseconds[content] = stat.ctimeNanoseconds;
    this.roundFiles += 1;
    return content;
  }

  /** One slice of this content is being read. */
  expect(content: number, bytes: number): void {
    this.#waiting[content] = (this.#waiting[content] as number) + 1;
    if (this.#state[content] === GOOD) this.#state[content] = READING;
    this.readBytes += bytes;
    this.roundBytes += bytes;
  }

  /** A slice has been read; the numbers are what the file looked like afterwards. */
  received(content: number, torn: boolean, inode: bigint, size: bigint, mtimeNs: bigint, ctimeNs: bigint): void {
    this.#waiting[content] = (this.#waiting[content] as number) - 1;
    const low = this.#inodeLow[content] as number;
    const high = this.#inodeHigh[content] as number;
    const same =
      !torn &&
      inode === (BigInt(high) << 32n) + BigInt(low) &&
      size === BigInt(this.extents.size[content] as number) &&
      mtimeNs === nanoseconds(this.#mtimeSeconds[content] as number, this.#mtimeNanoseconds[content] as number) &&
      ctimeNs === nanoseconds(this.#ctimeSeconds[content] as number, this.#ctimeNanoseconds[content] as number);
    if (!same) this.#state[content] = STALE;
    else if (this.#waiting[content] === 0 && this.#state[content] === READING) this.#state[content] = GOOD;
  }

  good(content: number): boolean {
    return this.#state[content] === GOOD;
  }

  xattrs(content: number): number {
    return this.#xattrs[content] as number;
  }

  /** What is worth remembering for the next checkpoint (CONTENT_COLUMNS of memory.ts): undefined when the file may have been, or be, written without a trace. */
  lasting(content: number): readonly number[] | undefined {
    const key = (this.#inodeLow[content] as number) + (this.#inodeHigh[content] as number) * 2 ** 32;
    const coarse = this.#mtimeNanoseconds[content] === 0 && this.#ctimeNanoseconds[content] === 0;
    // An inode of a subvolume, or one that another content stands for by now, is not found under its number.
    if (this.#byInode.get(key) !== content || this.#state[content] !== GOOD || this.#racy[content] === 1 || coarse || this.#distrusted.has(key)) return undefined;
    return [
      key, this.extents.size[content] as number, this.#mtimeSeconds[content] as number, this.#mtimeNanoseconds[content] as number,
      this.#ctimeSeconds[content] as number, this.#ctimeNanoseconds[content] as number, this.#xattrs[content] as number, this.extents.extents[content] as number,
    ];
  }

  /** What was lasting() at the last checkpoint. `extents`: rows of place in the file, length, place in the data. */
  recall(row: Float64Array, extents: Float64Array, sets: readonly number[]): void {
    const [key = 0, size = 0, mtimeSeconds = 0, mtimeNanoseconds = 0, ctimeSeconds = 0, ctimeNanoseconds = 0, xattrs = 0] = row;
    const content = this.extents.begin(size);
    this.#rows.reach(content);
    for (let i = 0; i < extents.length; i += 3) this.extents.add(extents[i] as number, extents[i + 1] as number, extents[i + 2] as number);
    this.#byInode.set(key, content);
    this.#state[content] = GOOD;
    this.#waiting[content] = 0;
    this.#racy[content] = 0;
    this.#round[content] = 0;
    this.#xattrs[content] = sets[xattrs] ?? 0;
    this.#inodeLow[content] = key % 2 ** 32;
    this.#inodeHigh[content] = Math.floor(key / 2 ** 32);
    this.#mtimeSeconds[content] = mtimeSeconds;
    this.#mtimeNanoseconds[content] = mtimeNanoseconds;
    this.#ctimeSeconds[content] = ctimeSeconds;
    this.#ctimeNanoseconds[content] = ctimeNanoseconds;
  }

  /** The caller knows that this file can be written without a trace. */
  distrust(key: InodeKey): void {
    this.#distrusted.add(key);
    const content = this.#byInode.get(key);
    if (content !== undefined) this.#state[content] = STALE;
  }

  #same(content: number, stat: StatBuffer): boolean {
    return (
      this.#ctimeNanoseconds[content] === stat.ctimeNanoseconds &&
      this.#mtimeNanoseconds[content] === stat.mtimeNanoseconds &&
      this.extents.size[content] === stat.size &&
      this.#ctimeSeconds[content] === stat.ctimeSeconds &&
      this.#mtimeSeconds[content] === stat.mtimeSeconds
    );
  }

  #isRacy(stat: StatBuffer): boolean {
    const coarse = stat.mtimeNanoseconds === 0 && stat.ctimeNanoseconds === 0;
    const changedMs = Math.max(stat.mtimeSeconds * 1000 + stat.mtimeNanoseconds / 1e6, stat.ctimeSeconds * 1000 + stat.ctimeNanoseconds / 1e6);
    return changedMs >= this.#startedMs - (coarse ? COARSE_CLOCK_TICK_MS : CLOCK_TICK_MS);
  }
}

function nanoseconds(seconds: number, rest: number): bigint {
  return BigInt(seconds) * 1_000_000_000n + BigInt(rest);
}
