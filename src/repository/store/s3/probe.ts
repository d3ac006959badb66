/** The ground for a probe of a bucket: a prefix of its own, and what only S3 has. */
import { randomBytes } from 'node:crypto';
import { HeadBucketCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { StasisError } from '../../../core/errors.ts';
import { formatDuration } from '../../../core/units.ts';
import type { ProbeGround, ProbeStep } from '../probe.ts';
import { S3Access } from './client.ts';
import { encryptionParameters } from './encryption.ts';
import { openS3Store } from './s3.ts';
import type { S3Options } from './s3.ts';
import { defaultTuning } from './settings.ts';

/** A probe tells how things are now. */
const PATIENCE_MS = 10_000;
/** S3 refuses requests from a clock that is off by more than a quarter of an hour; well before that somebody should know. */
const SKEW_MS = 60_000;
/** The smallest part that S3 takes, but for the last. */
const PART_BYTES = 5 * 1024 * 1024;

export async function openS3Probe(options: S3Options): Promise<ProbeGround> {
  const prefix = `${options.prefix === '' ? '' : `${options.prefix}/`}probe-${randomBytes(6).toString('hex')}`;
  const tuning = { ...defaultTuning, ...options.tuning };
  const settings = { ...options, prefix, patienceMs: Math.min(options.patienceMs, PATIENCE_MS) };
  const store = await openS3Store(settings);
  const inParts = await openS3Store({ ...settings, tuning: { ...tuning, multipartAbove: 0, partBytes: PART_BYTES } });
  const access = await S3Access.open(settings, tuning, options.clock);
  const { create } = await encryptionParameters(options.encryption);
  return {
    description: `s3:${options.bucket}${options.prefix === '' ? '' : `/${options.prefix}`}`, store,
    more: [
      // Packs never need it, and manifests of nearly all checkpoints do not.
      { name: 'multipart', required: false, run: async (signalled) => {
        const bytes = randomBytes(PART_BYTES + 1000);
        await inParts.put('packs/probe-parts', [bytes], signalled);
        const back = await store.get('packs/probe-parts', { offset: PART_BYTES - 10, length: 20 }, signalled);
        if (Buffer.compare(back, bytes.subarray(PART_BYTES - 10, PART_BYTES + 10)) !== 0) throw new StasisError('STORE_UNFIT', 'an object that went up in parts is not read back as it was written');
        return 'objects can go up in parts (Stasis does so above 64 MiB)';
      } },
      conditionalPut(access, `${prefix}/packs/probe-conditional`, create),
      clock(access, options),
    ],
    [Symbol.asyncDispose]: async () => {
      const signalled = { signal: AbortSignal.timeout(PATIENCE_MS) };
      try {
        for await (const { name } of store.list('packs/', signalled)) await store.delete(name, signalled);
      } catch {
        // Who may not delete was told so by the check; what is left lies under the probe's prefix.
      }
      await Promise.all([store.close(), inParts.close()]);
      access.close();
    },
  };
}

function conditionalPut(access: S3Access, key: string, create: object): ProbeStep {
  return {
    name: 'conditional put', required: false,
    run: async ({ signal }) => {
      const put = (content: string) => access.send({
        what: 'write on condition', name: undefined,
        send: (client, abortSignal) => client.send(new PutObjectCommand({ Bucket: access.bucket, Key: key, Body: content, IfNoneMatch: '*', ...create }), abortSignal === undefined ? {} : { abortSignal }),
      }, signal);
      await put('first');
      try {
        await put('second');
      } catch (error) {
        if ((error as { cause?: { $metadata?: { httpStatusCode?: number } } }).cause?.$metadata?.httpStatusCode === 412) return 'If-None-Match is obeyed (Stasis does not rely on it)';
        throw error;
      }
      return undefined;
    },
  };
}

function clock(access: S3Access, { clock: ours }: S3Options): ProbeStep {
  return {
    name: 'clock', required: true,
    run: async ({ signal }) => {
      let theirs = Number.NaN;
      const command = new HeadBucketCommand({ Bucket: access.bucket });
      command.middlewareStack.add((next) => async (args) => {
        const result = await next(args);
        theirs = Date.parse((result.response as { headers?: Record<string, string> }).headers?.['date'] ?? '');
        return result;
      }, { step: 'deserialize', name: 'stasisDate' });
      await access.send({ what: 'ask for the time', name: undefined, send: (client, abortSignal) => client.send(command, abortSignal === undefined ? {} : { abortSignal }) }, signal);
      if (Number.isNaN(theirs)) return 'the provider does not tell its time';
      const skewMs = Math.abs(ours.now() - theirs);
      if (skewMs > SKEW_MS) throw new StasisError('STORE_UNFIT', `the clocks of this node and of the provider differ by ${formatDuration(skewMs)}`, { hint: 'set the clock right: S3 refuses requests from a wrong time' });
      // The header has whole seconds.
      return `the clocks differ by ${skewMs < 2000 ? 'less than 2 s' : formatDuration(skewMs)}`;
    },
  };
}
