/** The one door to the SDK: a client that neither retries nor checksums by itself, with bounded answers, and every failure as a StasisError. */
import { readFile } from 'node:fs/promises';
import { Agent } from 'node:https';
import { S3Client } from '@aws-sdk/client-s3';
import type { S3ClientConfig } from '@aws-sdk/client-s3';
import type { Clock } from '../../../core/clock.ts';
import { StasisError } from '../../../core/errors.ts';
import { boundAnswers } from './answers.ts';
import { mayHaveNewCredentials, s3Error } from './errors.ts';
import type { S3Settings, S3Tuning } from './settings.ts';

/** A request: what it is called in messages, and how it is made with a client. */
export interface S3Request<T> {
  readonly what: string;
  readonly name: string | undefined;
  readonly send: (client: S3Client, signal: AbortSignal | undefined) => Promise<T>;
}

/** Idle connections, lists and second requests come beside the transfers. */
const MORE_CONNECTIONS = 3;

const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined, trace: () => undefined };

export class S3Access {
  readonly #config: () => S3ClientConfig;
  readonly #clock: Clock;
  readonly bucket: string;
  /** For messages: host and port. */
  readonly place: string;
  /** The connection protects the content against changes on the way. */
  readonly isPrivate: boolean;
  #client: S3Client;

  private constructor(settings: S3Settings, config: () => S3ClientConfig, clock: Clock) {
    this.#config = config;
    this.#clock = clock;
    this.bucket = settings.bucket;
    this.place = settings.endpoint === undefined ? `AWS${settings.region === undefined ? '' : ` ${settings.region}`}` : new URL(settings.endpoint).host;
    this.isPrivate = settings.endpoint === undefined || settings.endpoint.startsWith('https:');
    this.#client = boundAnswers(new S3Client(config()));
  }

  /** Throws CONFIG_INVALID when the CA file cannot be read. Does not ask the provider anything. */
  static async open(settings: S3Settings, tuning: S3Tuning, clock: Clock): Promise<S3Access> {
    const ca = settings.caFile === undefined ? undefined : await readCa(settings.caFile);
    const sockets = { keepAlive: true, maxSockets: settings.parallel * MORE_CONNECTIONS };
    // Never the other scheme's: what is not there cannot be used by accident.
    const handler = { connectionTimeout: tuning.connectMs, requestTimeout: 0, socketAcquisitionWarningTimeout: 2 ** 31 - 1, httpAgent: sockets, httpsAgent: new Agent({ ...sockets, ...(ca === undefined ? {} : { ca }) }) };
    return new S3Access(settings, () => ({
      ...(settings.endpoint === undefined ? {} : { endpoint: settings.endpoint, region: settings.region ?? 'us-east-1' }),
      ...(settings.region === undefined ? {} : { region: settings.region }),
      forcePathStyle: settings.pathStyle,
      maxAttempts: 1,
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      expectContinueHeader: false,
      // A clock that is wrong is told, not worked around in one place only.
      disableClockSkewCorrection: true,
      requestHandler: handler,
      logger: silent,
    }), clock);
  }

  /** Sends once, and once more with fresh credentials when the old ones have expired. */
  async send<T>(request: S3Request<T>, signal: AbortSignal | undefined): Promise<T> {
    const client = this.#client;
    try {
      return await this.#once(client, request, signal);
    } catch (error) {
      if (!mayHaveNewCredentials(error)) throw error;
      // The first to fail makes the new client; the old one ends with its last request.
      if (this.#client === client) this.#client = boundAnswers(new S3Client(this.#config()));
      return await this.#once(this.#client, request, signal);
    }
  }

  close(): void {
    this.#client.destroy();
  }

  async #once<T>(client: S3Client, { what, name, send }: S3Request<T>, signal: AbortSignal | undefined): Promise<T> {
    signal?.throwIfAborted();
    try {
      return await send(client, signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw s3Error(error, { what, name, bucket: this.bucket, place: this.place, nowMs: this.#clock.now() });
    }
  }
}

async function readCa(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `repository.s3.caFile ${path} cannot be read: ${(error as Error).message}`, { cause: error, hint: 'name a readable PEM file' });
  }
}
