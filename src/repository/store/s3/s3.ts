/**
 * Objects in a bucket of any S3 provider. An attempt is one request with a deadline; attempts are repeated with full jitter
 * while the store is unavailable, late reads are asked a second time. Nothing relies on conditional requests: names are
 * never used for two contents, so a put may be repeated, and one that succeeded without a reply is repeated harmlessly.
 */
import { DeleteObjectCommand, HeadObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import type { ListObjectsV2CommandOutput } from '@aws-sdk/client-s3';
import { LONGEST_TIMER_MS } from '../../../core/clock.ts';
import type { Clock } from '../../../core/clock.ts';
import { isStasisError, StasisError } from '../../../core/errors.ts';
import { Semaphore } from '../../../core/limits.ts';
import { isObjectName, isObjectPrefix } from '../../format/names.ts';
import { Bandwidth } from '../bandwidth.ts';
import { Hedge } from '../hedge.ts';
import { Pace } from '../pace.ts';
import { withRetries } from '../retry.ts';
import type { ObjectInfo, Store } from '../store.ts';
import { S3Access } from './client.ts';
import { download } from './download.ts';
import type { Range } from './download.ts';
import { encryptionParameters } from './encryption.ts';
import type { EncryptionParameters } from './encryption.ts';
import { Listing } from './listing.ts';
import { defaultTuning } from './settings.ts';
import type { S3Settings, S3Tuning } from './settings.ts';
import { uploadInParts, uploadWhole } from './upload.ts';

export interface S3Options extends S3Settings {
  readonly clock: Clock;
  readonly tuning?: Partial<S3Tuning>;
}

interface Signalled {
  readonly signal: AbortSignal | undefined;
}

/** Does not ask the provider anything yet. Throws CONFIG_INVALID when a file that is named cannot be used. */
export async function openS3Store({ clock, tuning = {}, ...settings }: S3Options): Promise<S3Store> {
  const all = { ...defaultTuning, ...tuning };
  const [access, encryption] = await Promise.all([S3Access.open(settings, all, clock), encryptionParameters(settings.encryption)]);
  return new S3Store({ access, encryption, settings, tuning: all, clock });
}

interface Parts {
  readonly access: S3Access;
  readonly encryption: EncryptionParameters;
  readonly settings: S3Settings;
  readonly tuning: S3Tuning;
  readonly clock: Clock;
}

export class S3Store implements Store {
  readonly description: string;
  readonly #parts: Parts;
  readonly #uploads: Semaphore;
  readonly #downloads: Semaphore;
  readonly #uploadLimit: Bandwidth | undefined;
  readonly #downloadLimit: Bandwidth | undefined;
  readonly #uploadPace: Pace;
  readonly #downloadPace: Pace;
  readonly #hedge: Hedge;

  constructor(parts: Parts) {
    const { settings, tuning, clock } = parts;
    this.#parts = parts;
    this.description = `s3:${settings.bucket}${settings.prefix === '' ? '' : `/${settings.prefix}`}`;
    this.#uploads = new Semaphore(settings.parallel);
    this.#downloads = new Semaphore(settings.parallel);
    const limit = (): Bandwidth | undefined => (settings.bandwidth === 0 ? undefined : new Bandwidth(settings.bandwidth, clock));
    this.#uploadLimit = limit();
    this.#downloadLimit = limit();
    this.#uploadPace = new Pace(tuning.pace);
    this.#downloadPace = new Pace(tuning.pace);
    this.#hedge = new Hedge(clock);
  }

  async put(name: string, parts: readonly Uint8Array[], { signal }: Signalled): Promise<void> {
    const key = this.#key(name);
    using _ = await this.#uploads.acquire(1, { signal });
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    const { access, encryption, settings, tuning } = this.#parts;
    const context = {
      access, encryption, settings, limit: this.#uploadLimit, partBytes: tuning.partBytes,
      persist: <T>(size: number, outer: AbortSignal | undefined, attempt: (signal: AbortSignal) => Promise<T>) => this.#persist(`write ${name}`, this.#uploadPace, size, outer, attempt),
    };
    await (bytes.length > tuning.multipartAbove ? uploadInParts : uploadWhole)(context, { key, name, bytes }, signal);
  }

  async get(name: string, range: Range | undefined, { signal, into }: Signalled & { into?: Uint8Array }): Promise<Uint8Array> {
    const key = this.#key(name);
    if (range?.length === 0) return into?.subarray(0, 0) ?? new Uint8Array(0);
    using _ = await this.#downloads.acquire(1, { signal });
    const context = { ...this.#parts, limit: this.#downloadLimit };
    // Without a range it is a manifest, whose size is not known before.
    const bytes = range?.length ?? 0;
    return await this.#persist(`read ${name}`, this.#downloadPace, bytes, signal, (attempt) =>
      // The second request has memory of its own: two must not write to the same place.
      this.#hedge.run(this.#hedgeDelay(bytes), attempt, async (second, either) => {
        const answer = await download(context, key, name, range, second ? undefined : into, either);
        if (!second || into === undefined) return answer;
        return () => {
          into.set(answer);
          return into.subarray(0, answer.length);
        };
      })).then((answer) => (typeof answer === 'function' ? answer() : answer));
  }

  async head(name: string, { signal }: Signalled): Promise<ObjectInfo | undefined> {
    const key = this.#key(name);
    const { access, encryption } = this.#parts;
    try {
      return await this.#persist(`look at ${name}`, this.#downloadPace, 0, signal, async (attempt) => {
        const answer = await access.send({ what: `look at ${name}`, name, send: (client, abortSignal) => client.send(new HeadObjectCommand({ Bucket: access.bucket, Key: key, ...encryption.access }), { abortSignal: abortSignal! }) }, attempt);
        if (answer.ETag === undefined || answer.ContentLength === undefined) throw new StasisError('STORE_UNAVAILABLE', `cannot look at ${name}: the answer has no ETag or no length`);
        return { name, size: answer.ContentLength, modifiedMs: answer.LastModified?.getTime() ?? 0 };
      });
    } catch (error) {
      if (isStasisError(error, 'OBJECT_MISSING')) return undefined;
      signal?.throwIfAborted();
      // An answer to HEAD has no body, so it cannot tell why; the same question by another way can.
      if (!isStasisError(error, 'STORE_UNAVAILABLE')) await this.#page(key, undefined, 1, signal);
      throw error;
    }
  }

  async *list(prefix: string, { signal }: Signalled): AsyncIterable<ObjectInfo> {
    signal?.throwIfAborted();
    if (!isObjectPrefix(prefix)) throw new StasisError('PATH_ESCAPES', `${JSON.stringify(prefix)} is not a prefix of objects`);
    const root = this.#root();
    const { tuning, access } = this.#parts;
    const listing = new Listing(root, `${prefix} in bucket ${access.bucket}`, tuning);
    let token: string | undefined;
    do token = listing.add(await this.#page(root + prefix, token, tuning.pageSize, signal));
    while (token !== undefined);
    yield* listing.objects();
  }

  async delete(name: string, { signal }: Signalled): Promise<void> {
    const key = this.#key(name);
    const { access } = this.#parts;
    const what = `delete ${name}`;
    try {
      await this.#persist(what, this.#downloadPace, 0, signal, async (attempt) => {
        const answer = await access.send({ what, name, send: (client, abortSignal) => client.send(new DeleteObjectCommand({ Bucket: access.bucket, Key: key }), { abortSignal: abortSignal! }) }, attempt);
        // 200 is what an error in the dress of a success has; S3 says 204.
        if (answer.$metadata.httpStatusCode !== 204) throw new StasisError('STORE_UNAVAILABLE', `cannot ${what}: the answer has status ${answer.$metadata.httpStatusCode ?? 0}, not 204`);
      });
    } catch (error) {
      if (!isStasisError(error, 'OBJECT_MISSING')) throw error;
    }
  }

  /** A bucket has no end that can be asked for. */
  freeBytes(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Ends idle connections. */
  close(): Promise<void> {
    this.#parts.access.close();
    return Promise.resolve();
  }

  #page(prefix: string, token: string | undefined, most: number, signal: AbortSignal | undefined): Promise<ListObjectsV2CommandOutput> {
    const { access } = this.#parts;
    const input = { Bucket: access.bucket, Prefix: prefix, MaxKeys: most, ...(token === undefined ? {} : { ContinuationToken: token }) };
    return this.#persist('list objects', this.#downloadPace, 0, signal, async (attempt) => {
      const page = await access.send({ what: 'list objects', name: undefined, send: (client, abortSignal) => client.send(new ListObjectsV2Command(input), { abortSignal: abortSignal! }) }, attempt);
      const isList = page.IsTruncated !== undefined && (!page.IsTruncated || page.NextContinuationToken !== undefined);
      if (!isList) throw new StasisError('STORE_UNAVAILABLE', `cannot list objects in bucket ${access.bucket}: the answer is not a list`);
      return page;
    });
  }

  /** Repeats an attempt while the store is unavailable. Each has its deadline, which grows with the bytes and the failures. */
  async #persist<T>(what: string, pace: Pace, bytes: number, signal: AbortSignal | undefined, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, settings, tuning } = this.#parts;
    const policy = { clock, budgetMs: settings.patienceMs, firstMs: tuning.firstRetryMs, mostMs: tuning.mostRetryMs };
    return withRetries(policy, signal, async (count) => {
      const paced = settings.bandwidth === 0 ? 0 : (bytes * settings.parallel * 1000) / settings.bandwidth;
      const allowedMs = Math.min(2 ** 31 - 1, Math.ceil(pace.allowedMs(bytes, count) + paced));
      const deadline = AbortSignal.timeout(Math.min(allowedMs, LONGEST_TIMER_MS));
      const started = clock.monotonic();
      try {
        const result = await attempt(signal === undefined ? deadline : AbortSignal.any([signal, deadline]));
        pace.succeeded(bytes, clock.monotonic() - started);
        return result;
      } catch (error) {
        signal?.throwIfAborted();
        if (!deadline.aborted) throw error;
        throw new StasisError('STORE_UNAVAILABLE', `cannot ${what} in bucket ${settings.bucket} at ${this.#parts.access.place}: not done within ${allowedMs} ms`, { cause: error, hint: 'check the network between this node and the endpoint' });
      }
    });
  }

  /** A limited bandwidth makes everything late; asking twice would make it worse. */
  #hedgeDelay(bytes: number): number {
    return this.#downloadLimit === undefined ? this.#downloadPace.hedgeMs(bytes) : 2 ** 31 - 1;
  }

  #root(): string {
    const { prefix } = this.#parts.settings;
    return prefix === '' ? '' : `${prefix}/`;
  }

  #key(name: string): string {
    if (!isObjectName(name)) throw new StasisError('PATH_ESCAPES', `${JSON.stringify(name)} is not the name of an object`);
    return this.#root() + name;
  }
}
