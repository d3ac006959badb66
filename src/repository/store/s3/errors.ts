/** What providers and the SDK say when they cannot, in the codes of the store's contract: STORE_UNAVAILABLE is worth another try. */
import { errnoCode, isStasisError, StasisError } from '../../../core/errors.ts';
import type { ErrorCode } from '../../../core/errors.ts';
import { formatDuration } from '../../../core/units.ts';
import { missing } from '../errors.ts';

export interface FailedRequest {
  /** "read packs/…" */
  readonly what: string;
  /** The object asked for, absent when it was about the bucket. */
  readonly name: string | undefined;
  readonly bucket: string;
  /** Host and port, or the words for AWS. */
  readonly place: string;
  /** Our time when the answer came, milliseconds since 1970. */
  readonly nowMs: number;
}

/** The parts of an SDK error that count. */
interface Answer {
  readonly name?: string;
  readonly message?: string;
  readonly $metadata?: { readonly httpStatusCode?: number; readonly requestId?: string };
  readonly $response?: { readonly headers?: Readonly<Record<string, string>> };
}

interface Verdict {
  readonly code: ErrorCode;
  readonly hint: string;
}

const grants = 'the credentials need s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket there; stasis store probe tells which is missing';
const denied: Verdict = { code: 'PERMISSION_DENIED', hint: grants };
const unknownKey: Verdict = { code: 'PERMISSION_DENIED', hint: 'the provider does not accept these credentials: check the access key, the secret and that they belong to this endpoint' };
const expired: Verdict = { code: 'PERMISSION_DENIED', hint: 'the credentials have expired and no newer ones were found: renew the session, or let the agent use a role that renews itself' };
const noCredentials: Verdict = { code: 'PERMISSION_DENIED', hint: 'give the agent credentials as AWS tools take them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a web identity or the role of the machine' };
const noBucket: Verdict = { code: 'CONFIG_INVALID', hint: 'create the bucket, or correct repository.s3.bucket and repository.s3.endpoint' };
const wrongRegion: Verdict = { code: 'CONFIG_INVALID', hint: 'set repository.s3.region to the region of the bucket' };
const full: Verdict = { code: 'NO_SPACE', hint: 'free space at the provider or raise the quota of the bucket or user' };
const untrusted: Verdict = { code: 'CONFIG_INVALID', hint: 'name the CA that signed the certificate of the endpoint in repository.s3.caFile, and use the name that is in the certificate' };
const busy: Verdict = { code: 'STORE_UNAVAILABLE', hint: 'the provider is overloaded or broken for now; fewer requests at once may help (repository.s3.parallel)' };
const broken: Verdict = { code: 'STORE_UNAVAILABLE', hint: 'check the network between this node and the endpoint' };
const refused: Verdict = { code: 'CONFIG_INVALID', hint: 'the provider does not take such requests: stasis store probe tries what Stasis needs' };

/** By the code in the answer's XML, or the name of an error of the SDK's. */
const byName: Readonly<Record<string, Verdict>> = {
  AccessDenied: denied, AllAccessDisabled: denied, AccountProblem: denied, Forbidden: denied, InvalidObjectState: denied, MethodNotAllowed: denied,
  InvalidAccessKeyId: unknownKey, SignatureDoesNotMatch: unknownKey, InvalidToken: unknownKey, TokenRefreshRequired: expired,
  ExpiredToken: expired, ExpiredTokenException: expired, TokenProviderError: expired,
  CredentialsProviderError: noCredentials,
  NoSuchBucket: noBucket, InvalidBucketName: noBucket,
  PermanentRedirect: wrongRegion, TemporaryRedirect: wrongRegion, AuthorizationHeaderMalformed: wrongRegion, IllegalLocationConstraintException: wrongRegion,
  QuotaExceeded: full, XMinioStorageFull: full, EntityTooLarge: full, InsufficientStorage: full,
  SlowDown: busy, Throttling: busy, TooManyRequests: busy, TooManyRequestsException: busy, RequestLimitExceeded: busy, BandwidthLimitExceeded: busy, ServiceUnavailable: busy, InternalError: busy, OperationAborted: busy,
  RequestTimeout: broken, IncompleteBody: broken, BadDigest: broken, XAmzContentSHA256Mismatch: broken, XAmzContentChecksumMismatch: broken, TimeoutError: broken,
};

const byErrno: Readonly<Record<string, Verdict>> = {
  SELF_SIGNED_CERT_IN_CHAIN: untrusted, DEPTH_ZERO_SELF_SIGNED_CERT: untrusted, UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted, UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted, CERT_HAS_EXPIRED: untrusted, CERT_NOT_YET_VALID: untrusted, ERR_TLS_CERT_ALTNAME_INVALID: untrusted,
};

/** A StasisError for whatever a request was rejected with. One that is one already stays. */
export function s3Error(error: unknown, request: FailedRequest): StasisError {
  if (isStasisError(error)) return error;
  const answer = error as Answer;
  const name = answer.name ?? '';
  const status = answer.$metadata?.httpStatusCode;
  if (name === 'NoSuchKey' || name === 'NotFound') return request.name === undefined ? failed(error, request, noBucket) : missing(request.name);
  if (name === 'RequestTimeTooSkewed') return skewed(error, request);
  return failed(error, request, byName[name] ?? byErrno[errnoCode(error) ?? ''] ?? byStatus(status));
}

function byStatus(status: number | undefined): Verdict {
  // Without an answer it was the connection: reset, refused, unreachable, cut off in the middle.
  if (status === undefined || status < 300) return broken;
  if (status === 301 || status === 307) return wrongRegion;
  if (status === 507) return full;
  if (status >= 500 || status === 408 || status === 425 || status === 429) return busy;
  if (status === 401 || status === 403) return denied;
  return refused;
}

function failed(error: unknown, { what, name, bucket, place }: FailedRequest, { code, hint }: Verdict): StasisError {
  const answer = error as Answer;
  const status = answer.$metadata?.httpStatusCode;
  const words = [answer.name, answer.message].filter((part) => part !== undefined && part !== '' && part !== 'Error' && part !== 'UnknownError').join(': ') || 'no reason given';
  const details = { bucket, ...(name === undefined ? {} : { object: name }), ...(status === undefined ? {} : { status }), ...(answer.$metadata?.requestId === undefined ? {} : { request: answer.$metadata.requestId }) };
  return new StasisError(code, `cannot ${what} in bucket ${bucket} at ${place}: ${words}`, { cause: error, hint, details });
}

function skewed(error: unknown, request: FailedRequest): StasisError {
  const theirs = Date.parse((error as Answer).$response?.headers?.['date'] ?? '');
  const by = Number.isNaN(theirs) ? '' : ` by ${formatDuration(Math.abs(request.nowMs - theirs))}${request.nowMs > theirs ? ', ahead of it' : ', behind it'}`;
  return new StasisError('HOST_UNSUPPORTED', `cannot ${request.what}: the clock of this node differs from that of ${request.place}${by}`, { cause: error, hint: 'set the clock right (chrony, systemd-timesyncd): S3 refuses requests from a wrong time', details: { bucket: request.bucket } });
}

/** Newer credentials may be there by now. */
export function mayHaveNewCredentials(error: unknown): boolean {
  return ['ExpiredToken', 'ExpiredTokenException', 'TokenRefreshRequired', 'InvalidToken'].includes(((error as { cause?: Answer }).cause)?.name ?? '');
}
