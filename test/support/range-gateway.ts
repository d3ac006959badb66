/**
 * Stands before a radosgw on its dbstore backend and mends its ranges, which it answers with good headers and the wrong bytes
 * (20.2.4): they are cut out of the whole object here. All else passes unchanged.
 */
import { once } from 'node:events';
import { Agent, createServer, request } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3';
import type { GetObjectCommandOutput, S3ServiceException } from '@aws-sdk/client-s3';

export interface RangeGateway extends AsyncDisposable {
  readonly port: number;
}

export async function startRangeGateway(port: number, upstream: number, credentials: { accessKeyId: string; secretAccessKey: string }): Promise<RangeGateway> {
  const client = new S3Client({ endpoint: `http://127.0.0.1:${upstream}`, region: 'us-east-1', forcePathStyle: true, credentials, responseChecksumValidation: 'WHEN_REQUIRED' });
  const agent = new Agent({ keepAlive: true });
  const sockets = new Set<Socket>();
  const server = createServer((incoming, outgoing) => {
    incoming.on('error', () => outgoing.destroy());
    outgoing.on('error', () => undefined);
    if (incoming.method === 'GET' && incoming.headers.range !== undefined) void ranged(client, incoming, outgoing).catch(() => outgoing.destroy());
    else pass(upstream, agent, incoming, outgoing);
  });
  server.on('connection', (socket: Socket) => {
    sockets.add(socket.once('close', () => sockets.delete(socket)));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      agent.destroy();
      client.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

function pass(port: number, agent: Agent, incoming: IncomingMessage, outgoing: ServerResponse): void {
  const onward = request({ host: '127.0.0.1', port, agent, method: incoming.method, path: incoming.url, headers: incoming.headers }, (answer) => {
    answer.on('error', () => outgoing.destroy());
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(outgoing);
  });
  onward.on('error', () => outgoing.destroy());
  outgoing.once('close', () => onward.destroy());
  incoming.pipe(onward);
}

/** Asks for the whole object, in its own name, and passes on the part that was asked for. */
async function ranged(client: S3Client, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const [, bucket = '', ...path] = (incoming.url ?? '').replace(/\?.*$/, '').split('/').map(decodeURIComponent);
  const [, from = '0', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(incoming.headers.range ?? '') ?? [];
  let answer: GetObjectCommandOutput;
  try {
    answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key: path.join('/') }));
  } catch (error) {
    const { name, message, $metadata } = error as S3ServiceException;
    sayError(outgoing, $metadata.httpStatusCode ?? 500, name, message);
    return;
  }
  const body = answer.Body as Readable;
  outgoing.once('close', () => body.destroy());
  const size = answer.ContentLength ?? 0;
  const first = Number(from);
  const last = Math.min(size - 1, to === '' ? size - 1 : Number(to));
  if (first >= size) {
    body.destroy();
    sayError(outgoing, 416, 'InvalidRange', `the object has ${size} bytes`);
    return;
  }
  outgoing.writeHead(206, { 'content-length': last - first + 1, 'content-range': `bytes ${first}-${last}/${size}`, etag: answer.ETag ?? '', 'content-type': 'application/octet-stream' });
  let at = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    const wanted = chunk.subarray(Math.max(0, first - at), Math.max(0, last + 1 - at));
    at += chunk.length;
    if (wanted.length > 0 && !outgoing.write(wanted) && !outgoing.destroyed) await once(outgoing, 'drain');
    if (at > last) break;
  }
  body.destroy();
  outgoing.end();
}

function sayError(outgoing: ServerResponse, status: number, code: string, message: string): void {
  const text = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  outgoing.writeHead(status, { 'content-type': 'application/xml', 'content-length': Buffer.byteLength(text) }).end(text);
}
