/** Opens an S3 store. The SDK takes a sixth of a second and 30 MiB to load: only who has a bucket pays for it. */
import type { ProbeGround } from '../probe.ts';
import type { ClosableStore } from '../store.ts';
import type { S3Options } from './s3.ts';

export type { S3Options } from './s3.ts';
export type { S3Encryption } from './settings.ts';

/** Does not ask the provider anything yet. Throws CONFIG_INVALID when a file that is named cannot be used. */
export async function openS3Store(options: S3Options): Promise<ClosableStore> {
  const { openS3Store: open } = await import('./s3.ts');
  return open(options);
}

/** A prefix of its own in the bucket, removed when it is disposed of. */
export async function openS3Probe(options: S3Options): Promise<ProbeGround> {
  const { openS3Probe: open } = await import('./probe.ts');
  return open(options);
}
