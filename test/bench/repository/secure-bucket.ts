/**
 * The bucket that throughput is measured with: over TLS, as buckets are used, and because restic's uploads are refused by this
 * server otherwise. A server of its own, so that nobody finds it fuller than the one before.
 */
import { startBucket } from '../../support/s3-bucket.ts';

export interface SecureBucket extends AsyncDisposable {
  readonly endpoint: string;
  readonly bucket: string;
  readonly caFile: string;
}

export async function openBucket(): Promise<SecureBucket> {
  const bucket = await startBucket('bench', { secure: true });
  if (bucket.secure === undefined) throw new Error('the server has no TLS');
  return { ...bucket.secure, bucket: bucket.name, [Symbol.asyncDispose]: () => bucket[Symbol.asyncDispose]() };
}
