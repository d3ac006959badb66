/**
 * A real S3 server: Ceph's radosgw alone, in a directory and on a port of its own. Its dbstore backend lists and keeps what it
 * should but is wrong about ranges, which a gateway mends, and about uploads in parts. With its posix filter both are right,
 * but its lists lag and repeat themselves. So tests use the first, and the second for what needs parts.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { startRangeGateway } from './range-gateway.ts';

export interface Radosgw extends AsyncDisposable {
  readonly endpoint: string;
  readonly port: number;
  /** The same server over TLS, where it was asked for, and without the gateway that mends ranges. */
  readonly secure?: { readonly endpoint: string; readonly caFile: string };
  /** What the SDK's default chain reads. */
  readonly environment: Readonly<Record<string, string>>;
}

export interface RadosgwOptions {
  /** Where its data lie, on a file system with extended attributes. */
  readonly parent?: string;
  readonly backend?: 'dbstore' | 'posix';
  /** Of the gateway; any free one unless told. */
  readonly port?: number;
  readonly secure?: boolean;
}

export const accessKey = 'stasistestaccesskey0';
export const secretKey = 'stasistestsecretkey0';
/** For SSE-KMS: the only key that its test backend knows. */
export const kmsKeyId = 'stasis-test-key';

function configuration(directory: string, port: number, backend: 'dbstore' | 'posix', securePort: number | undefined): string {
  const filter = backend === 'dbstore' ? '' : `rgw filter = posix\nrgw posix base path = ${directory}/objects\nrgw posix database root = ${directory}/cache\n`;
  const secure = securePort === undefined ? '' : ` ssl_endpoint=127.0.0.1:${securePort} ssl_certificate=${directory}/tls.crt ssl_private_key=${directory}/tls.key`;
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
debug rgw = 0
${filter}rgw config store = dbstore
dbstore db dir = ${directory}
dbstore config uri = file:${directory}/config.db
rgw data = ${directory}
rgw frontends = beast endpoint=127.0.0.1:${port}${secure}
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = ${kmsKeyId}=${Buffer.alloc(32, 7).toString('base64')}
`;
}

/** Answers when the server takes requests and knows the user. It is killed and its data removed when it is disposed of. */
export async function startRadosgw(options: RadosgwOptions = {}): Promise<Radosgw> {
  const directory = mkdtempSync(join(options.parent ?? '/srv', 'radosgw-'));
  for (const name of ['objects', 'cache']) mkdirSync(join(directory, name));
  const backend = options.backend ?? 'dbstore';
  const port = await freePort();
  const file = join(directory, 'ceph.conf');
  const securePort = options.secure === true ? await freePort() : undefined;
  if (securePort !== undefined) makeCertificate(directory);
  writeFileSync(file, configuration(directory, port, backend, securePort));
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
  for (let waitedMs = 0; !(await answers(port)); waitedMs += 50) {
    if (child.exitCode !== null || waitedMs > 30_000) {
      await dispose();
      throw new Error(`radosgw does not answer on port ${port}: ${said.join('')}`);
    }
    await delay(50);
  }
  const gateway = backend === 'dbstore' ? await startRangeGateway(options.port ?? 0, port, { accessKeyId: accessKey, secretAccessKey: secretKey }) : undefined;
  const front = gateway?.port ?? port;
  return {
    endpoint: `http://127.0.0.1:${front}`, port: front,
    ...(securePort === undefined ? {} : { secure: { endpoint: `https://127.0.0.1:${securePort}`, caFile: join(directory, 'tls.crt') } }),
    environment: { AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey },
    [Symbol.asyncDispose]: async () => {
      await gateway?.[Symbol.asyncDispose]();
      await dispose();
    },
  };
}

function makeCertificate(directory: string): void {
  const files = ['-keyout', join(directory, 'tls.key'), '-out', join(directory, 'tls.crt')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=radosgw', '-addext', 'subjectAltName=IP:127.0.0.1', ...files], { stdio: 'ignore' });
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
