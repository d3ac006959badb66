/** What the S3 store is told: where, how, and how patient it is. */
import type { PaceLimits } from '../pace.ts';
import type { ListingLimits } from './listing.ts';
import { KiB, MiB } from '../../../core/units.ts';

export type S3Encryption =
  /** What the bucket does by itself. */
  | { readonly kind: 'bucket' }
  /** With the provider's keys (SSE-S3). */
  | { readonly kind: 's3' }
  /** With a key of the provider's KMS; its default one when no id is given. */
  | { readonly kind: 'kms'; readonly keyId: string | undefined }
  /** With 32 bytes that only we keep (SSE-C), raw or in base64. */
  | { readonly kind: 'customer'; readonly keyFile: string };

export interface S3Settings {
  readonly bucket: string;
  /** "a/b" without slashes at the ends; empty for the whole bucket. */
  readonly prefix: string;
  /** "https://s3.example.net"; absent: AWS. */
  readonly endpoint: string | undefined;
  /** Absent: as the AWS configuration of this machine says. */
  readonly region: string | undefined;
  /** endpoint/bucket/key instead of bucket.endpoint/key. */
  readonly pathStyle: boolean;
  readonly storageClass: string | undefined;
  readonly encryption: S3Encryption;
  /** CA certificates (PEM) to trust instead of the system's. */
  readonly caFile: string | undefined;
  /** Uploads, and downloads, at the same time. */
  readonly parallel: number;
  /** Bytes per second, of each direction; 0: no limit. */
  readonly bandwidth: number;
  /** How long a request is repeated while the store is unavailable, milliseconds. */
  readonly patienceMs: number;
}

/** What nobody needs to configure, but tests scale down. */
export interface S3Tuning extends ListingLimits {
  readonly pace: PaceLimits;
  readonly connectMs: number;
  readonly firstRetryMs: number;
  readonly mostRetryMs: number;
  /** Objects above this go up in parts. Larger than any pack: one request is simpler and as fast. */
  readonly multipartAbove: number;
  readonly partBytes: number;
  /** Objects that one answer to a list request names. */
  readonly pageSize: number;
}

export const defaultTuning: S3Tuning = {
  pace: { stallMs: 15_000, leastBytesPerSecond: 256 * KiB, hedgeLeastMs: 50, hedgeMostMs: 3000 },
  connectMs: 5000,
  firstRetryMs: 200,
  mostRetryMs: 10_000,
  multipartAbove: 64 * MiB,
  partBytes: 16 * MiB,
  pageSize: 1000,
  listedNames: 1_000_000,
  listedPages: 10_000,
};
