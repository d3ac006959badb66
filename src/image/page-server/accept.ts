/** Whose connection a page server takes. */
import type { Server, Socket } from 'node:net';
import { loopbackPeerUid } from './peer.ts';

/** The first connection that root opened; all others are closed at once. */
export async function acceptOne(server: Server, signal: AbortSignal): Promise<Socket> {
  const first = Promise.withResolvers<Socket>();
  const onAbort = (): void => first.reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  server.on('error', first.reject);
  let taken = false;
  const consider = async (socket: Socket): Promise<void> => {
    socket.on('error', () => {});
    const root = await isRoot(socket);
    if (taken || !root || signal.aborted) {
      socket.destroy();
      return;
    }
    taken = true;
    server.close();
    first.resolve(socket);
  };
  server.on('connection', (socket) => void consider(socket));
  try {
    return await first.promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

async function isRoot({ remotePort, localPort }: Socket): Promise<boolean> {
  if (remotePort === undefined || localPort === undefined) return false;
  return (await loopbackPeerUid(remotePort, localPort).catch(() => undefined)) === 0;
}
