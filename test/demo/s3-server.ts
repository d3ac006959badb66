/** The S3 server of scripts/demo --s3: starts it, makes a bucket, writes what the agent needs into a file and waits to be ended. */
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { startBucket } from '../support/s3-bucket.ts';

const file = process.argv[2] ?? '/run/demo-s3.env';

await using bucket = await startBucket('checkpoints');
writeFileSync(`${file}.new`, Object.entries(bucket.agentEnvironment('demo')).map(([name, value]) => `export ${name}=${value}\n`).join(''));
renameSync(`${file}.new`, file);
await once(process, 'SIGTERM');
