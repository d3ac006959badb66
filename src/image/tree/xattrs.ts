/** Sets of extended attributes: most entries of a tree have none, and the others share few. */
import { StasisError } from '../../core/errors.ts';
import { MAX_XATTR_BYTES, MAX_XATTRS } from './limits.ts';

export interface Xattr {
  readonly name: Buffer;
  readonly value: Buffer;
}

export class XattrSets {
  /** Set 0 is the empty one. */
  readonly #sets: (readonly Xattr[])[] = [[]];
  readonly #known = new Map<string, number>();
  #bytes = 0;

  get count(): number {
    return this.#sets.length;
  }

  get(set: number): readonly Xattr[] {
    return this.#sets[set] ?? [];
  }

  /** The number of a set with these attributes; the same one for the same set. */
  intern(attributes: readonly Xattr[]): number {
    if (attributes.length === 0) return 0;
    if (attributes.length > MAX_XATTRS) throw new StasisError('LIMIT_EXCEEDED', `a file has ${attributes.length} extended attributes, at most ${MAX_XATTRS} are kept`);
    const sorted = attributes.toSorted((x, y) => Buffer.compare(x.name, y.name));
    const key = sorted.map((x) => `${x.name.toString('latin1')}\0${x.value.toString('latin1')}`).join('\0\0');
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    this.#bytes += key.length;
    if (this.#bytes > MAX_XATTR_BYTES) throw new StasisError('LIMIT_EXCEEDED', `the extended attributes of this tree take more than ${MAX_XATTR_BYTES} bytes`);
    this.#sets.push(sorted.map((x) => ({ name: own(x.name), value: own(x.value) })));
    this.#known.set(key, this.#sets.length - 1);
    return this.#sets.length - 1;
  }
}

/** A copy with memory of its own: a view would keep all that it is a view of, and small buffers share pools of 8 KiB. */
function own(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}
