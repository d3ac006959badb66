/** The store that the configuration names. */
import { systemClock } from '../core/clock.ts';
import type { Config } from '../config/schema.ts';
import { openDirectoryProbe, openDirectoryStore, openS3Probe, openS3Store, probeStore } from '../repository/index.ts';
import type { ClosableStore, S3Encryption, S3Options, StoreReport } from '../repository/index.ts';

export function openStore({ directory, s3 }: Config['repository']): Promise<ClosableStore> {
  return s3.bucket === '' ? openDirectoryStore(directory) : openS3Store(s3Options(s3));
}

/** Tries the store with objects of its own. What does not work is in the report, not an error. */
export async function probe({ directory, s3 }: Config['repository'], options: { signal: AbortSignal | undefined }): Promise<StoreReport> {
  await using ground = await (s3.bucket === '' ? openDirectoryProbe(directory) : openS3Probe(s3Options(s3)));
  return await probeStore(ground, systemClock, options);
}

function s3Options(s3: Config['repository']['s3']): S3Options {
  const given = (value: string): string | undefined => (value === '' ? undefined : value);
  return {
    bucket: s3.bucket, prefix: s3.prefix, endpoint: given(s3.endpoint), region: given(s3.region), storageClass: given(s3.storageClass),
    pathStyle: s3.pathStyle === 'yes' || (s3.pathStyle === 'auto' && s3.endpoint !== ''),
    encryption: encryption(s3), caFile: given(s3.caFile), parallel: s3.parallel, bandwidth: s3.bandwidth, patienceMs: s3.patience, clock: systemClock,
  };
}

function encryption(s3: Config['repository']['s3']): S3Encryption {
  switch (s3.encryption) {
    case 'kms':
      return { kind: 'kms', keyId: s3.kmsKeyId === '' ? undefined : s3.kmsKeyId };
    case 'customer':
      return { kind: 'customer', keyFile: s3.customerKeyFile };
    case 'bucket':
    case 's3':
      return { kind: s3.encryption };
  }
}
