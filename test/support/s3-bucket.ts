/** A bucket on a real S3 server of its own, and how an agent and others are told of it. */
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { accessKey, secretKey, startRadosgw } from './radosgw.ts';
import type { Radosgw, RadosgwOptions } from './radosgw.ts';

export interface TestBucket extends AsyncDisposable {
  readonly endpoint: string;
  /** Over TLS, where it was asked for; ranges are wrong there. */
  readonly secure: Radosgw['secure'];
  readonly name: string;
  /** The environment of an agent whose repository lies below `prefix` in the bucket. */
  agentEnvironment(prefix: string): Record<string, string>;
  /** A client that tests may do with what they want. */
  readonly client: S3Client;
}

export async function startBucket(name: string, options: RadosgwOptions = {}): Promise<TestBucket> {
  const server = await startRadosgw(options);
  const client = new S3Client({
    endpoint: server.endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    requestChecksumCalculation: 'WHEN_REQUIRED', responseChecksumValidation: 'WHEN_REQUIRED',
  });
  await client.send(new CreateBucketCommand({ Bucket: name }));
  return {
    endpoint: server.endpoint, secure: server.secure, name, client,
    agentEnvironment: (prefix) => ({ STASIS_REPOSITORY_S3_BUCKET: name, STASIS_REPOSITORY_S3_PREFIX: prefix, STASIS_REPOSITORY_S3_ENDPOINT: server.endpoint, ...server.environment }),
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      await server[Symbol.asyncDispose]();
    },
  };
}
