/** X.509 certificates for tests, written byte by byte (DER): the nodes in a box have no openssl, and Node.js only reads them. */
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Authority {
  readonly name: string;
  readonly key: KeyObject;
  readonly pem: string;
}

export interface Identity {
  readonly cert: string;
  readonly key: string;
}

const HOUR = 3_600_000;

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? Buffer.of(body.length) : body.length < 256 ? Buffer.of(0x81, body.length) : Buffer.of(0x82, body.length >> 8, body.length & 255);
  return Buffer.concat([Buffer.of(tag), length, body]);
}

const sequence = (...parts: readonly Buffer[]): Buffer => der(0x30, ...parts);
const oid = (...bytes: readonly number[]): Buffer => der(0x06, Buffer.from(bytes));
const ecdsaSha256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));

/** commonName 2.5.4.3, organizationalUnitName 2.5.4.11 */
function subject(name: string, units: readonly string[]): Buffer {
  const part = (type: number, text: string): Buffer => der(0x31, sequence(oid(0x55, 0x04, type), der(0x0c, Buffer.from(text))));
  return sequence(part(3, name), ...units.map((unit) => part(11, unit)));
}

function utc(ms: number): Buffer {
  return der(0x17, Buffer.from(`${new Date(ms).toISOString().slice(2, 19).replaceAll(/[-T:]/g, '')}Z`));
}

/** basicConstraints 2.5.29.19, subjectAltName 2.5.29.17 */
function extensions(isAuthority: boolean): Buffer {
  const constraints = sequence(oid(0x55, 0x1d, 0x13), der(0x01, Buffer.of(0xff)), der(0x04, isAuthority ? sequence(der(0x01, Buffer.of(0xff))) : sequence()));
  const names = sequence(oid(0x55, 0x1d, 0x11), der(0x04, sequence(der(0x82, Buffer.from('localhost')), der(0x87, Buffer.of(127, 0, 0, 1)))));
  return der(0xa3, isAuthority ? sequence(constraints) : sequence(constraints, names));
}

function certificate(name: string, units: readonly string[], publicKey: KeyObject, issuer: { name: string; key: KeyObject }, ends: number, isAuthority: boolean): string {
  const body = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    der(0x02, Buffer.concat([Buffer.of(1), randomBytes(15)])),
    ecdsaSha256,
    subject(issuer.name, []),
    sequence(utc(Math.min(Date.now(), ends) - HOUR), utc(ends)),
    subject(name, units),
    publicKey.export({ type: 'spki', format: 'der' }),
    extensions(isAuthority),
  );
  const bytes = sequence(body, ecdsaSha256, der(0x03, Buffer.of(0), sign('sha256', body, issuer.key)));
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64').match(/.{1,64}/g)?.join('\n') ?? ''}\n-----END CERTIFICATE-----\n`;
}

export function authority(name: string): Authority {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { name, key: privateKey, pem: certificate(name, [], publicKey, { name, key: privateKey }, Date.now() + HOUR, true) };
}

export function identity(ca: Authority, name: string, units: readonly string[], ends = Date.now() + HOUR): Identity {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { cert: certificate(name, units, publicKey, ca, ends, false), key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
}

/** Files as the configuration names them. */
export function writeTls(directory: string, own: Identity, ca: Authority): { cert: string; key: string; ca: string } {
  const write = (text: string): string => {
    const path = join(directory, `${createHash('sha256').update(text).digest('hex').slice(0, 16)}.pem`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };
  return { cert: write(own.cert), key: write(own.key), ca: write(ca.pem) };
}
