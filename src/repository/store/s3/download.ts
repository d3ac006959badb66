/** Reads a range of an object, or all of it. One attempt; every claim of the answer is checked before a byte is believed. */
import type { Readable } from 'node:stream';
import { GetObjectCommand } from '@aws-sdk/client-s3';
import type { GetObjectCommandOutput } from '@aws-sdk/client-s3';
import { StasisError } from '../../../core/errors.ts';
import { MiB } from '../../../core/units.ts';
import type { Bandwidth } from '../bandwidth.ts';
import { tooShort } from '../errors.ts';
import { receive } from './body.ts';
import type { S3Access } from './client.ts';
import type { EncryptionParameters } from './encryption.ts';

export interface Range {
  readonly offset: number;
  readonly length: number;
}

export interface DownloadContext {
  readonly access: S3Access;
  readonly encryption: EncryptionParameters;
  readonly limit: Bandwidth | undefined;
}

/** The most that is read without a range: a manifest. Packs are read by ranges. */
const WHOLE_BYTES = 80 * MiB;

export async function download(context: DownloadContext, key: string, name: string, range: Range | undefined, into: Uint8Array | undefined, signal: AbortSignal): Promise<Uint8Array> {
  const { access, encryption, limit } = context;
  const what = range === undefined ? `read ${name}` : `read ${range.offset}+${range.length} of ${name}`;
  const asked = range === undefined ? {} : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` };
  return access.send({
    what, name,
    send: async (client, abortSignal) => {
      let answer: GetObjectCommandOutput;
      try {
        answer = await client.send(new GetObjectCommand({ Bucket: access.bucket, Key: key, ...asked, ...encryption.access }), { abortSignal: abortSignal! });
      } catch (error) {
        if ((error as Error).name === 'InvalidRange' && range !== undefined) throw tooShort(name, sizeIn(error), range);
        throw error;
      }
      const body = answer.Body as Readable;
      try {
        const length = checkedLength(answer, name, range, what);
        const target = into?.subarray(0, length) ?? Buffer.allocUnsafeSlow(length);
        await receive(body, target, length, { limit, signal, what });
        return target;
      } finally {
        body.destroy();
      }
    },
  }, signal);
}

/** How many bytes follow, if they are those that were asked for. */
function checkedLength(answer: GetObjectCommandOutput, name: string, range: Range | undefined, what: string): number {
  const { ContentLength: length, ContentRange: given, ETag: tag } = answer;
  if (length === undefined || tag === undefined || tag === '') throw strange(what, 'it has no length or no ETag');
  if (range === undefined) {
    if (given !== undefined) throw strange(what, `it is only ${given}`);
    if (length > WHOLE_BYTES) throw new StasisError('LIMIT_EXCEEDED', `${name} has ${length} bytes; at most ${WHOLE_BYTES} are read at once`, { details: { object: name } });
    return length;
  }
  if (given === undefined) {
    // Whoever ignores ranges may still be right about one that is the whole object.
    if (range.offset === 0 && length === range.length) return length;
    throw strange(what, `it is all ${length} bytes`);
  }
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(given);
  if (match === null) throw strange(what, `its range is ${given}`);
  const [first = 0, last = 0, size = 0] = match.slice(1).map(Number);
  if (size < range.offset + range.length) throw tooShort(name, size, range);
  if (first !== range.offset || last !== range.offset + range.length - 1 || length !== range.length) throw strange(what, `it is ${given} and ${length} bytes long`);
  return length;
}

/** Not what was asked for: a proxy or a server in trouble, and worth another try. */
function strange(what: string, how: string): StasisError {
  return new StasisError('STORE_UNAVAILABLE', `cannot ${what}: the answer is not to the question, ${how}`, { hint: 'is there a proxy between this node and the endpoint?' });
}

/** The size that a 416 tells after the slash of its Content-Range; 0 when it does not. */
function sizeIn(error: unknown): number {
  const headers = (error as { $response?: { headers?: Readonly<Record<string, string>> } }).$response?.headers;
  return Number(/\/(\d+)$/.exec(headers?.['content-range'] ?? '')?.[1] ?? 0);
}
