/** The S3 server of scripts/demo --s3: starts it, makes a bucket, writes what the agent needs into a file and waits to be ended. */
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { accessKey, secretKey, startRadosgw } from '../support/radosgw.ts';

const bucket = 'checkpoints';
const file = process.argv[2] ?? '/run/demo-s3.env';

await using server = await startRadosgw();
const client = new S3Client({ endpoint: server.endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId: accessKey, secretAccessKey: secretKey } });
await client.send(new CreateBucketCommand({ Bucket: bucket }));
client.destroy();
const variables = {
  STASIS_REPOSITORY_S3_BUCKET: bucket, STASIS_REPOSITORY_S3_PREFIX: 'demo', STASIS_REPOSITORY_S3_ENDPOINT: server.endpoint, ...server.environment,
};
writeFileSync(`${file}.new`, Object.entries(variables).map(([name, value]) => `export ${name}=${value}\n`).join(''));
renameSync(`${file}.new`, file);
await once(process, 'SIGTERM');
