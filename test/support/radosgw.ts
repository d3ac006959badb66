/**
 * A real S3 server: Ceph's radosgw alone, in a directory and on a port of its own. Users and buckets are in its dbstore
 * backend, objects below the posix filter over it: dbstore by itself answers ranges with the wrong bytes (20.2.4).
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface Radosgw extends AsyncDisposable {
  readonly endpoint: string;
  readonly port: number;
  /** What the SDK's default chain reads. */
  readonly environment: Readonly<Record<string, string>>;
}

export interface RadosgwOptions {
  /** Where its data lie, on a file system with extended attributes. */
  readonly parent?: string;
  /** Serve TLS with this certificate and key (PEM files). */
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly port?: number;
}

export const accessKey = 'stasistestaccesskey0';
export const secretKey = 'stasistestsecretkey0';
/** For SSE-KMS: the only key that its test backend knows. */
export const kmsKeyId = 'stasis-test-key';

export function hasRadosgw(): boolean {
  return existsSync('/usr/bin/radosgw');
}

function configuration(directory: string, port: number, tls: RadosgwOptions['tls']): string {
  const endpoint = tls === undefined ? `endpoint=127.0.0.1:${port}` : `ssl_endpoint=127.0.0.1:${port} ssl_certificate=${tls.cert} ssl_private_key=${tls.key}`;
  return `[global]
auth cluster required = none
auth service required = none
auth client required = none
log to stderr = false
log file = ${directory}/radosgw.log
admin socket =
run dir = ${directory}
[client.rgw.a]
rgw backend store = dbstore
rgw filter = posix
rgw posix base path = ${directory}/objects
rgw posix database root = ${directory}/cache
debug rgw = 0
rgw config store = dbstore
dbstore db dir = ${directory}
dbstore config uri = file:${directory}/config.db
rgw data = ${directory}
rgw frontends = beast ${endpoint}
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = ${kmsKeyId}=${Buffer.alloc(32, 7).toString('base64')}
`;
}

/** Answers when the server takes requests and knows the user. It is killed and its data removed when it is disposed of. */
export async function startRadosgw(options: RadosgwOptions = {}): Promise<Radosgw> {
  const directory = mkdtempSync(join(options.parent ?? '/srv', 'radosgw-'));
  for (const name of ['objects', 'cache']) mkdirSync(join(directory, name));
  const port = options.port ?? (await freePort());
  const file = join(directory, 'ceph.conf');
  writeFileSync(file, configuration(directory, port, options.tls));
  const common = ['--conf', file, '--name', 'client.rgw.a', '--no-mon-config'];
  await makeUser(common);
  const child = spawn('radosgw', [...common, '--foreground'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const said: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => said.push(text));
  const gone = once(child, 'exit');
  const dispose = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await gone;
    }
    rmSync(directory, { recursive: true, force: true });
  };
  const endpoint = `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
  for (let waitedMs = 0; !(await answers(port)); waitedMs += 50) {
    if (child.exitCode !== null || waitedMs > 30_000) {
      await dispose();
      throw new Error(`radosgw does not answer on port ${port}: ${said.join('')}`);
    }
    await delay(50);
  }
  return {
    endpoint, port,
    environment: { AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey },
    [Symbol.asyncDispose]: dispose,
  };
}

/** Its own end sometimes hangs after the work is done, so what it prints counts. */
function makeUser(common: readonly string[]): Promise<void> {
  const args = [...common, 'user', 'create', '--uid=stasis', '--display-name=stasis', `--access-key=${accessKey}`, `--secret-key=${secretKey}`];
  return new Promise((resolve, reject) => {
    const child = execFile('radosgw-admin', args, { timeout: 60_000, killSignal: 'SIGKILL' }, (_error, stdout, stderr) => {
      if (stdout.includes(accessKey)) resolve();
      else reject(new Error(`radosgw-admin made no user: ${stderr}`));
    });
    child.stdin?.end();
    child.stdout?.on('data', () => setTimeout(() => child.kill('SIGKILL'), 2000).unref());
  });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
