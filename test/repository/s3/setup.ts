/** Stores on a real S3 server for tests. One server per file of tests: it takes a second to start. */
import { randomBytes } from 'node:crypto';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { systemClock } from '../../../src/core/clock.ts';
import { openS3Store } from '../../../src/repository/store/s3/s3.ts';
import type { S3Options, S3Store } from '../../../src/repository/store/s3/s3.ts';
import { defaultTuning } from '../../../src/repository/store/s3/settings.ts';
import type { S3Tuning } from '../../../src/repository/store/s3/settings.ts';
import { accessKey, secretKey } from '../../support/radosgw.ts';

export const bucket = 'stasis-test';

/** Seconds become tenths: what is waited for minutes in a cluster is waited for a second here. */
export const quick: S3Tuning = {
  ...defaultTuning,
  pace: { stallMs: 800, leastBytesPerSecond: 16 * 1024 * 1024, hedgeLeastMs: 50, hedgeMostMs: 300 },
  connectMs: 1000, firstRetryMs: 20, mostRetryMs: 200,
};

/** The credentials of the default chain. */
export function useTestCredentials(): void {
  process.env['AWS_ACCESS_KEY_ID'] = accessKey;
  process.env['AWS_SECRET_ACCESS_KEY'] = secretKey;
  process.env['AWS_EC2_METADATA_DISABLED'] = 'true';
}

export function s3Options(endpoint: string, more: Partial<S3Options> = {}): S3Options {
  return {
    bucket, prefix: `t-${randomBytes(4).toString('hex')}/deep`, endpoint, region: undefined, pathStyle: true, storageClass: undefined, encryption: { kind: 'bucket' },
    caFile: undefined, parallel: 8, bandwidth: 0, patienceMs: 20_000, clock: systemClock, tuning: quick, ...more,
  };
}

export function testStore(endpoint: string, more: Partial<S3Options> = {}): Promise<S3Store> {
  return openS3Store(s3Options(endpoint, more));
}

/** For what the store itself never does. */
export function rawClient(endpoint: string): S3Client {
  return new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId: accessKey, secretAccessKey: secretKey }, requestChecksumCalculation: 'WHEN_REQUIRED', responseChecksumValidation: 'WHEN_REQUIRED' });
}

export async function createBucket(endpoint: string, name: string = bucket): Promise<void> {
  const client = rawClient(endpoint);
  await client.send(new CreateBucketCommand({ Bucket: name }));
  client.destroy();
}
