/**
 * The TCP side of the API: mutual TLS in front of the gRPC server. Certificates are read again when their files change: new
 * connections are made with the new ones, and those that only a removed CA vouched for are closed. The number of connections is
 * bounded, and whoever does not finish the handshake makes room for others.
 */
import { constants, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFile, stat } from 'node:fs/promises';
import type { AddressInfo, Socket } from 'node:net';
import { createSecureContext, createServer } from 'node:tls';
import type { DetailedPeerCertificate, Server, TLSSocket } from 'node:tls';
import { StasisError } from '../core/errors.ts';
import type { ServerLog } from './ports.ts';

export interface TlsFiles {
  /** Paths of PEM files: the own certificate chain, its private key, and the CA of the other side. */
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** What nobody needs to configure, but tests scale down. */
export interface TlsTuning {
  /** Connections at the same time: a coordinator needs one, a command line one while it runs. */
  readonly connections: number;
  /** Of these, before the end of the handshake; one more ends the oldest. */
  readonly handshakes: number;
  readonly handshakeMs: number;
  /** How often the files are looked at. */
  readonly lookMs: number;
}

export const defaultTlsTuning: TlsTuning = { connections: 512, handshakes: 64, handshakeMs: 10_000, lookMs: 1000 };

export interface TlsListenerOptions {
  readonly address: string;
  readonly tls: TlsFiles;
  readonly logger: ServerLog;
  readonly tuning: TlsTuning;
  /** Takes a connection whose certificate is good. */
  readonly accept: (socket: TLSSocket) => void;
}

interface Pem {
  readonly ca: Buffer;
  readonly key: Buffer;
  readonly cert: Buffer;
}

/** Throws CONFIG_INVALID when the address or the files cannot be used. */
export async function listenTls(options: TlsListenerOptions): Promise<TlsListener> {
  const { address, tls } = options;
  try {
    const seen = await look(tls);
    const listener = new TlsListener(options, seen, await readAll(tls));
    await listener.listen();
    return listener;
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `the API cannot listen on ${address}: ${(error as Error).message}`, { cause: error, hint: 'check listen.address, and that listen.tls.cert, key and ca are PEM files that fit together' });
  }
}

export class TlsListener implements AsyncDisposable {
  readonly #options: TlsListenerOptions;
  readonly #server: Server;
  readonly #timer: NodeJS.Timeout;
  /** Before the end of the handshake, oldest first. */
  readonly #shaking = new Map<string, Socket>();
  /** With the certificate that vouches for the peer's chain. */
  readonly #open = new Map<TLSSocket, X509Certificate>();
  #seen: string;
  #looking = false;

  constructor(options: TlsListenerOptions, seen: string, pem: Pem) {
    this.#options = options;
    this.#seen = seen;
    const { handshakeMs, connections, lookMs } = options.tuning;
    this.#server = createServer({
      ...pem, requestCert: true, rejectUnauthorized: true, ALPNProtocols: ['h2'], handshakeTimeout: handshakeMs,
      // A session that is taken up again shows no chain, and is as good as the CA of its day.
      secureOptions: constants.SSL_OP_NO_TICKET,
    });
    this.#server.maxConnections = connections;
    this.#server.on('connection', (socket: Socket) => this.#begun(socket));
    this.#server.on('secureConnection', (socket) => this.#secured(socket));
    // Neither a failure nor the end of its time disconnects who is in the handshake.
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
    // Without a free descriptor it takes no connection; when there is one again, it does.
    this.#server.on('error', () => undefined);
    this.#timer = setInterval(() => void this.#look(), lookMs).unref();
  }

  /** With the port that was really taken. */
  get address(): string {
    return this.#options.address.replace(/:0$/, `:${(this.#server.address() as AddressInfo).port}`);
  }

  async listen(): Promise<void> {
    const match = /^(.*):(\d+)$/.exec(this.#options.address);
    const [host = '', port = ''] = match?.slice(1) ?? [];
    if (match === null) throw new Error('it is not host:port');
    this.#server.listen({ host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) });
    try {
      await once(this.#server, 'listening');
    } catch (error) {
      clearInterval(this.#timer);
      throw error;
    }
  }

  /** Takes no more connections. Those that are open stay. */
  [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const socket of this.#shaking.values()) socket.destroy();
    this.#server.close();
    return Promise.resolve();
  }

  #begun(socket: Socket): void {
    const name = peerName(socket);
    this.#shaking.set(name, socket);
    socket.once('close', () => this.#shaking.delete(name));
    const [oldest] = this.#shaking.values();
    if (this.#shaking.size > this.#options.tuning.handshakes) oldest?.destroy();
  }

  #secured(socket: TLSSocket): void {
    this.#shaking.delete(peerName(socket));
    socket.on('error', () => undefined);
    const anchor = anchorOf(socket);
    if (socket.alpnProtocol !== 'h2' || anchor === undefined) {
      socket.destroy();
      return;
    }
    this.#open.set(socket, anchor);
    socket.once('close', () => this.#open.delete(socket));
    this.#options.accept(socket);
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const { tls, logger } = this.#options;
    const seen = await look(tls).catch((error: unknown) => (error as Error).message);
    try {
      if (seen === this.#seen) return;
      // Once for each change: the files are replaced one after the other, and fit together again with the last.
      this.#seen = seen;
      const pem = await readAll(tls);
      createSecureContext(pem);
      this.#server.setSecureContext({ ...pem, secureOptions: constants.SSL_OP_NO_TICKET });
      logger.event('rpc.reloaded', { closed: this.#closeUnvouched(certificatesIn(pem.ca)) });
    } catch (error) {
      logger.event('rpc.stale', { err: error });
    } finally {
      this.#looking = false;
    }
  }

  #closeUnvouched(authorities: readonly X509Certificate[]): number {
    let closed = 0;
    for (const [socket, anchor] of this.#open) {
      // The same key under a renewed certificate vouches for the same.
      if (authorities.some((ca) => ca.fingerprint256 === anchor.fingerprint256 || (anchor.checkIssued(ca) && anchor.verify(ca.publicKey)))) continue;
      socket.destroy();
      closed += 1;
    }
    return closed;
  }
}

function peerName(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** The last of the chain that was verified; undefined when the peer has gone already. */
function anchorOf(socket: TLSSocket): X509Certificate | undefined {
  let last = socket.getPeerCertificate(true) as Partial<DetailedPeerCertificate> | null;
  while (last?.issuerCertificate !== undefined && last.issuerCertificate.fingerprint256 !== last.fingerprint256) last = last.issuerCertificate;
  return last?.raw === undefined ? undefined : new X509Certificate(last.raw);
}

function certificatesIn(pem: Buffer): X509Certificate[] {
  return (pem.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map((text) => new X509Certificate(text));
}

/** Changes with the files, also where a link leads to others (as a mounted Secret does). */
async function look(tls: TlsFiles): Promise<string> {
  const all = await Promise.all([tls.ca, tls.key, tls.cert].map((path) => stat(path, { bigint: true })));
  return all.map(({ dev, ino, size, mtimeNs, ctimeNs }) => [dev, ino, size, mtimeNs, ctimeNs].join(' ')).join('\n');
}

async function readAll(tls: TlsFiles): Promise<Pem> {
  const [ca, key, cert] = await Promise.all([tls.ca, tls.key, tls.cert].map((path) => readFile(path)));
  return { ca: ca!, key: key!, cert: cert! };
}
