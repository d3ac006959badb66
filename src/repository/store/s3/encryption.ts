/** The parameters of requests that ask the provider to encrypt at rest. What it stores is sealed by us already. */
import { readFile } from 'node:fs/promises';
import { StasisError } from '../../../core/errors.ts';
import type { S3Encryption } from './settings.ts';

interface CustomerKey {
  readonly SSECustomerAlgorithm?: 'AES256';
  readonly SSECustomerKey?: string;
}

export interface EncryptionParameters {
  /** Of the request that creates an object. */
  readonly create: CustomerKey & { readonly ServerSideEncryption?: 'AES256' | 'aws:kms'; readonly SSEKMSKeyId?: string };
  /** Of every request about an existing object or upload. */
  readonly access: CustomerKey;
}

/** Throws CONFIG_INVALID when the key file is not one. */
export async function encryptionParameters(encryption: S3Encryption): Promise<EncryptionParameters> {
  switch (encryption.kind) {
    case 'bucket':
      return { create: {}, access: {} };
    case 's3':
      return { create: { ServerSideEncryption: 'AES256' }, access: {} };
    case 'kms':
      return { create: { ServerSideEncryption: 'aws:kms', ...(encryption.keyId === undefined ? {} : { SSEKMSKeyId: encryption.keyId }) }, access: {} };
    case 'customer': {
      const access = { SSECustomerAlgorithm: 'AES256', SSECustomerKey: await readKey(encryption.keyFile) } as const;
      return { create: access, access };
    }
  }
}

async function readKey(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `the key file ${path} cannot be read: ${(error as Error).message}`, { cause: error, hint: 'check repository.s3.customerKeyFile' });
  }
  const key = bytes.length === 32 ? bytes : Buffer.from(bytes.toString('latin1').trim(), 'base64');
  if (key.length !== 32) throw new StasisError('CONFIG_INVALID', `the key file ${path} does not hold a key`, { hint: 'it must hold 32 bytes, raw or in base64 (openssl rand -base64 32)' });
  return key.toString('base64');
}
