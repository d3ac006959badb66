/** Puts bytes into an object, in one request or, above a threshold, in parts. One attempt of each; the caller repeats. */
import { AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CreateMultipartUploadCommand, HeadObjectCommand, PutObjectCommand, UploadPartCommand } from '@aws-sdk/client-s3';
import type { CompletedPart, PutObjectCommandInput } from '@aws-sdk/client-s3';
import { StasisError } from '../../../core/errors.ts';
import type { Bandwidth } from '../bandwidth.ts';
import { crc32Base64, requestBody, sha256 } from './body.ts';
import type { S3Access } from './client.ts';
import type { EncryptionParameters } from './encryption.ts';
import type { S3Settings } from './settings.ts';

export interface UploadContext {
  readonly access: S3Access;
  readonly settings: S3Settings;
  readonly encryption: EncryptionParameters;
  readonly limit: Bandwidth | undefined;
  readonly partBytes: number;
  /** Runs one request with retries and a deadline for that many bytes. */
  readonly persist: <T>(bytes: number, signal: AbortSignal | undefined, attempt: (signal: AbortSignal) => Promise<T>) => Promise<T>;
}

export interface Upload {
  readonly key: string;
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Over TLS the content is protected on the way, over plain HTTP its digest is signed; AWS gets a checksum that it keeps. */
function integrity({ access, settings }: UploadContext, bytes: Uint8Array): { digest: string; checksum: { ChecksumCRC32?: string } } {
  return { digest: access.isPrivate ? 'UNSIGNED-PAYLOAD' : sha256(bytes), checksum: settings.endpoint === undefined ? { ChecksumCRC32: crc32Base64(bytes) } : {} };
}

interface AnyCommand {
  readonly middlewareStack: { add(middleware: unknown, options: { step: 'build'; name: string }): void };
}

/** Tells the signer the digest, so that it does not compute one by itself. */
function withDigest<C>(command: C, digest: string): C {
  const add = (next: (args: unknown) => Promise<unknown>) => (args: { request: { headers: Record<string, string> } }) => {
    args.request.headers['x-amz-content-sha256'] = digest;
    return next(args);
  };
  (command as unknown as AnyCommand).middlewareStack.add(add, { step: 'build', name: 'stasisDigest' });
  return command;
}

/** What the object shall be beside its bytes. */
function properties({ settings, encryption }: UploadContext): Partial<PutObjectCommandInput> {
  return { ContentType: 'application/octet-stream', ...(settings.storageClass === undefined ? {} : { StorageClass: settings.storageClass as NonNullable<PutObjectCommandInput['StorageClass']> }), ...encryption.create };
}

/** An answer without an ETag did not come from S3, or is an error in the dress of a success. */
function requireTag(tag: string | undefined, what: string): string {
  if (tag !== undefined && tag !== '') return tag;
  throw new StasisError('STORE_UNAVAILABLE', `cannot ${what}: the answer is not that of a store`, { hint: 'is there a proxy between this node and the endpoint?' });
}

export async function uploadWhole(context: UploadContext, { key, name, bytes }: Upload, signal: AbortSignal | undefined): Promise<void> {
  const { access, limit } = context;
  const { digest, checksum } = integrity(context, bytes);
  const what = `write ${name}`;
  await context.persist(bytes.length, signal, async (attempt) => {
    const input = { Bucket: access.bucket, Key: key, Body: requestBody(bytes, { limit, encrypted: access.isPrivate, signal: attempt }), ContentLength: bytes.length, ...properties(context), ...checksum };
    const answer = await access.send({ what, name, send: (client, abortSignal) => client.send(withDigest(new PutObjectCommand(input), digest), { abortSignal: abortSignal! }) }, attempt);
    requireTag(answer.ETag, what);
  });
}

/** Parts go up three at a time: they are large, and the limit on uploads counts objects. */
const PARTS_AT_ONCE = 3;

export async function uploadInParts(context: UploadContext, upload: Upload, signal: AbortSignal | undefined): Promise<void> {
  const { access, partBytes } = context;
  const { key, name, bytes } = upload;
  const what = `write ${name} in parts`;
  const target = { Bucket: access.bucket, Key: key };
  const crc = context.settings.endpoint === undefined ? { ChecksumAlgorithm: 'CRC32' as const } : {};
  const id = await context.persist(0, signal, async (attempt) => {
    const answer = await access.send({ what, name, send: (client, abortSignal) => client.send(new CreateMultipartUploadCommand({ ...target, ...properties(context), ...crc }), { abortSignal: abortSignal! }) }, attempt);
    return requireTag(answer.UploadId, what);
  });
  try {
    const numbers = Array.from({ length: Math.ceil(bytes.length / partBytes) }, (_, i) => i + 1);
    const parts: CompletedPart[] = [];
    const worker = async (): Promise<void> => {
      for (let number = numbers.shift(); number !== undefined; number = numbers.shift()) parts[number - 1] = await uploadPart(context, upload, id, number, signal);
    };
    const workers = await Promise.allSettled(Array.from({ length: PARTS_AT_ONCE }, async () => worker().catch((error: unknown) => {
      numbers.length = 0;
      throw error;
    })));
    for (const result of workers) if (result.status === 'rejected') throw result.reason;
    await complete(context, upload, id, parts, signal);
  } catch (error) {
    // Parts without an object cost money until the bucket's lifecycle finds them; one try, whatever the signal says.
    await access.send({ what, name, send: (client) => client.send(new AbortMultipartUploadCommand({ ...target, UploadId: id })) }, AbortSignal.timeout(ABORT_MS)).catch(() => undefined);
    throw error;
  }
}

const ABORT_MS = 10_000;

async function uploadPart(context: UploadContext, { key, name, bytes }: Upload, id: string, number: number, signal: AbortSignal | undefined): Promise<CompletedPart> {
  const { access, limit, partBytes, encryption } = context;
  const part = bytes.subarray((number - 1) * partBytes, number * partBytes);
  const { digest, checksum } = integrity(context, part);
  const what = `write part ${number} of ${name}`;
  return context.persist(part.length, signal, async (attempt) => {
    const input = { Bucket: access.bucket, Key: key, UploadId: id, PartNumber: number, Body: requestBody(part, { limit, encrypted: access.isPrivate, signal: attempt }), ContentLength: part.length, ...encryption.access, ...checksum };
    const answer = await access.send({ what, name, send: (client, abortSignal) => client.send(withDigest(new UploadPartCommand(input), digest), { abortSignal: abortSignal! }) }, attempt);
    return { PartNumber: number, ETag: requireTag(answer.ETag, what), ...checksum };
  });
}

/** A reply that was lost makes the upload unknown; then the object tells whether it is there. */
async function complete({ access, persist, encryption }: UploadContext, { key, name, bytes }: Upload, id: string, parts: CompletedPart[], signal: AbortSignal | undefined): Promise<void> {
  const what = `complete ${name}`;
  const target = { Bucket: access.bucket, Key: key };
  await persist(0, signal, async (attempt) => {
    try {
      const answer = await access.send({ what, name, send: (client, abortSignal) => client.send(new CompleteMultipartUploadCommand({ ...target, UploadId: id, MultipartUpload: { Parts: parts }, ...encryption.access }), { abortSignal: abortSignal! }) }, attempt);
      requireTag(answer.ETag, what);
    } catch (error) {
      if ((error as { cause?: { name?: string } }).cause?.name !== 'NoSuchUpload') throw error;
      const there = await access.send({ what, name, send: (client, abortSignal) => client.send(new HeadObjectCommand({ ...target, ...encryption.access }), { abortSignal: abortSignal! }) }, attempt);
      if (there.ContentLength !== bytes.length) throw error;
    }
  });
}
