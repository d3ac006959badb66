/**
 * Answers of a provider, bounded before the SDK parses them: it takes whatever comes into memory whole, and parses it on the
 * main thread. Bodies of objects are not taken here: download.ts reads as many bytes as it asked for.
 */
import { Readable } from 'node:stream';
import type { S3Client } from '@aws-sdk/client-s3';
import { StasisError } from '../../../core/errors.ts';
import { KiB, MiB } from '../../../core/units.ts';

/** 1000 keys of at most 1024 bytes, some of them written as %XX or &amp;, with what a provider tells of each. */
const LIST_BYTES = 2 * MiB;
/** An error, or what is told of an object. */
const OTHER_BYTES = 64 * KiB;

interface HttpAnswer {
  readonly statusCode: number;
  body: unknown;
}

/** Every answer to this client's requests is read here first, inside of everything that the SDK does with it. */
export function boundAnswers(client: S3Client): S3Client {
  client.middlewareStack.add((next, context) => async (args) => {
    const result = await next(args);
    const answer = result.response as HttpAnswer;
    const command = context.commandName;
    const isError = answer.statusCode >= 300;
    if (answer.body instanceof Readable && (isError || command !== 'GetObjectCommand')) {
      const bytes = await collect(answer.body, isError || command !== 'ListObjectsV2Command' ? OTHER_BYTES : LIST_BYTES, answer.statusCode);
      // A stream again: of other bodies the SDK does not look for an error in the dress of a success.
      answer.body = Readable.from(bytes.length === 0 ? [] : [bytes], { objectMode: false });
    }
    return result;
  }, { step: 'deserialize', priority: 'low', name: 'stasisBoundAnswers' });
  return client;
}

async function collect(body: Readable, most: number, statusCode: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > most) throw tooLong(most, statusCode);
      chunks.push(chunk);
    }
  } finally {
    // The connection is not used again when something is left in it.
    body.destroy();
  }
  const bytes = Buffer.concat(chunks);
  // The SDK's parser skips a document type, but lowers the case of the whole text for each. No provider sends one.
  if (/<!doctype/i.test(bytes.toString('latin1'))) throw unfit('the answer has a document type, which those of S3 never have');
  return bytes;
}

/** What failed is known by the status alone; whether it is worth another try, too. */
function tooLong(most: number, statusCode: number): Error {
  const message = `the answer is longer than ${most} bytes`;
  return statusCode >= 300 ? Object.assign(new Error(message), { $metadata: { httpStatusCode: statusCode } }) : unfit(message);
}

export function unfit(message: string): StasisError {
  return new StasisError('STORE_UNFIT', `the store answers as S3 never does: ${message}`, { hint: 'check repository.s3.endpoint: another server, or a proxy in between, may answer; nothing that such a store holds can be relied on' });
}
