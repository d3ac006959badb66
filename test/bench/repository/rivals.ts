/** Others that bring the same directory, compressed and encrypted, to the same place, durably. */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { promisify } from 'node:util';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { MiB } from '../../../src/core/units.ts';
import { accessKey, secretKey } from '../../support/radosgw.ts';
import { timed } from '../measure.ts';
import type { SecureBucket } from './secure-bucket.ts';

const exec = promisify(execFile);

export interface Brought {
  readonly ms: number;
  readonly stored: number;
}

/** Where rivals keep things between and during runs, on a disk. */
const PLACE = '/srv/bench-rivals';

/**
 * restic into a repository that is new each time. The time is restic's own, without its start and the opening of the
 * repository. It syncs what it writes to a directory.
 */
export async function restic(source: string, compression: string, bucket: SecureBucket | undefined): Promise<Brought> {
  const repository = bucket === undefined ? `${PLACE}/restic` : `s3:${bucket.endpoint}/${bucket.bucket}/restic`;
  const options = { env: { ...process.env, RESTIC_REPOSITORY: repository, RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: `${PLACE}/cache`, ...(bucket === undefined ? {} : { RESTIC_CACERT: bucket.caFile }), AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey }, maxBuffer: 64 * MiB };
  mkdirSync(PLACE, { recursive: true });
  try {
    await exec('restic', ['init', '--quiet'], options);
    execFileSync('sync');
    const { stdout } = await exec('restic', ['--compression', compression, '--json', 'backup', source], options);
    const summary = stdout.trim().split('\n').map((line) => JSON.parse(line) as Summary).find((line) => line.message_type === 'summary');
    if (summary === undefined) throw new Error(`restic gives no summary: ${stdout.slice(-500)}`);
    return { ms: summary.total_duration * 1000, stored: summary.data_added_packed };
  } finally {
    rmSync(PLACE, { recursive: true, force: true });
  }
}

interface Summary {
  readonly message_type: string;
  readonly total_duration: number;
  readonly data_added_packed: number;
}

/** `tar | zstd -1 | age` into a file that is synced, or into a bucket. */
export async function tarZstdAge(source: string, bucket: SecureBucket | undefined): Promise<Brought> {
  mkdirSync(PLACE, { recursive: true });
  try {
    execFileSync('age-keygen', ['--output', `${PLACE}/key`], { stdio: 'ignore' });
    writeFileSync(`${PLACE}/recipient`, /public key: (\S+)/.exec(readFileSync(`${PLACE}/key`, 'utf8'))?.[1] ?? '');
    execFileSync('sync');
    const pipe = `set -o pipefail; tar --create --directory "$0" . | zstd --quiet -1 | age --recipients-file ${PLACE}/recipient`;
    if (bucket !== undefined) return await intoBucket(['-c', pipe, source], bucket);
    const { ms } = await timed(() => exec('bash', ['-c', `${pipe} > ${PLACE}/archive && sync ${PLACE}/archive ${PLACE}`, source]));
    return { ms, stored: statSync(`${PLACE}/archive`).size };
  } finally {
    rmSync(PLACE, { recursive: true, force: true });
  }
}

const PART_BYTES = 16 * MiB;
const PARTS_AT_ONCE = 8;

/** The stream in objects of 16 MiB, several on their way at once: what an upload in parts is. */
async function intoBucket(args: readonly string[], { endpoint, bucket, caFile }: SecureBucket): Promise<Brought> {
  const client = new S3Client({
    endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    requestChecksumCalculation: 'WHEN_REQUIRED', requestHandler: { httpsAgent: new Agent({ keepAlive: true, ca: readFileSync(caFile) }) },
  });
  const from = performance.now();
  const child = spawn('bash', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close') as Promise<[number]>;
  const underWay = new Set<Promise<unknown>>();
  let [parts, bytes, held] = [[] as Buffer[], 0, 0];
  const send = async (): Promise<void> => {
    const put = client.send(new PutObjectCommand({ Bucket: bucket, Key: `tar/${bytes}`, Body: Buffer.concat(parts) })).finally(() => underWay.delete(put));
    underWay.add(put);
    [parts, held] = [[], 0];
    if (underWay.size >= PARTS_AT_ONCE) await Promise.race(underWay);
  };
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
    parts.push(chunk);
    [bytes, held] = [bytes + chunk.length, held + chunk.length];
    if (held >= PART_BYTES) await send();
  }
  if (held > 0) await send();
  await Promise.all(underWay);
  const [status] = await ended;
  client.destroy();
  if (status !== 0) throw new Error(`tar | zstd | age ended with status ${status}`);
  return { ms: performance.now() - from, stored: bytes };
}
