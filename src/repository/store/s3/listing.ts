/** The names that a provider lists, page by page. How much of it is believed is bounded: the provider may be hostile, or lost in a circle. */
import { createHash } from 'node:crypto';
import type { ListObjectsV2CommandOutput } from '@aws-sdk/client-s3';
import { StasisError } from '../../../core/errors.ts';
import { isObjectName } from '../../format/names.ts';
import type { ObjectInfo } from '../store.ts';
import { unfit } from './answers.ts';

export interface ListingLimits {
  /** Names that one list has; some 300 bytes of memory each. */
  readonly listedNames: number;
  /** Pages that one list has: more than the names need, for providers whose pages are short, or empty after many deletions. */
  readonly listedPages: number;
}

/** Providers' tokens have some hundred bytes. */
const TOKEN_CHARACTERS = 8192;

export class Listing {
  readonly #root: string;
  readonly #limits: ListingLimits;
  readonly #where: string;
  /** Not every provider lists in order, and some repeat themselves. */
  readonly #found = new Map<string, ObjectInfo>();
  readonly #tokens = new Set<string>();
  #pages = 0;

  /** `root` is what stands before the names of objects in keys; `where` is for messages. */
  constructor(root: string, where: string, limits: ListingLimits) {
    this.#root = root;
    this.#where = where;
    this.#limits = limits;
  }

  /** The token of the page that comes next, if there is one. Throws LIMIT_EXCEEDED, STORE_UNFIT. */
  add(page: ListObjectsV2CommandOutput): string | undefined {
    for (const { Key: key = '', Size: size = 0, LastModified: modified } of page.Contents ?? []) {
      const name = key.slice(this.#root.length);
      if (key.startsWith(this.#root) && isObjectName(name)) this.#found.set(name, { name, size, modifiedMs: modified?.getTime() ?? 0 });
    }
    this.#pages += 1;
    if (this.#found.size > this.#limits.listedNames) throw this.#beyond(`more than ${this.#limits.listedNames} names`);
    if (page.IsTruncated !== true) return undefined;
    if (this.#pages >= this.#limits.listedPages) throw this.#beyond(`more than ${this.#limits.listedPages} pages`);
    return this.#new(page.NextContinuationToken ?? '');
  }

  /** In the order of names. */
  *objects(): Iterable<ObjectInfo> {
    for (const name of [...this.#found.keys()].sort()) yield this.#found.get(name)!;
  }

  #new(token: string): string {
    if (token.length > TOKEN_CHARACTERS) throw unfit(`a page of the list of ${this.#where} is continued by a token of ${token.length} characters`);
    const digest = createHash('sha256').update(token).digest('base64');
    if (this.#tokens.has(digest)) throw unfit(`the list of ${this.#where} comes back to a page that it had already, and would never end`);
    this.#tokens.add(digest);
    return token;
  }

  #beyond(what: string): StasisError {
    return new StasisError('LIMIT_EXCEEDED', `the list of ${this.#where} has ${what}`, { hint: 'stasis repo prune removes what nobody needs; give groups of nodes repositories of their own (repository.s3.prefix). If there are not that many objects, the store cannot be relied on' });
  }
}
