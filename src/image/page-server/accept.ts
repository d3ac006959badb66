/** Whose connection a page server takes: that of criu of one operation, and nobody else's, root or not. */
import type { Server, Socket } from 'node:net';
import { loopbackPeerInode } from '../../host/tcp-peer.ts';

/**
 * Whether the socket of this inode belongs to the criu that is meant. Every root of the network namespace can connect, also
 * that of a container: what goes over the connection is the memory of another one.
 */
export type MayConnect = (inode: number) => boolean;

/** The first connection of the right process. All others are closed before a byte is read or sent, and take nobody's place. */
export async function acceptOne(server: Server, mayConnect: MayConnect, signal: AbortSignal): Promise<Socket> {
  const first = Promise.withResolvers<Socket>();
  const onAbort = (): void => first.reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  server.on('error', first.reject);
  let taken = false;
  server.on('connection', (socket) => {
    socket.on('error', () => {});
    if (taken || signal.aborted || !belongs(socket, mayConnect)) {
      socket.resetAndDestroy();
      return;
    }
    taken = true;
    server.close();
    first.resolve(socket);
  });
  try {
    return await first.promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function belongs({ remotePort, localPort }: Socket, mayConnect: MayConnect): boolean {
  if (remotePort === undefined || localPort === undefined) return false;
  try {
    const inode = loopbackPeerInode(remotePort, localPort);
    return inode !== undefined && mayConnect(inode);
  } catch {
    return false;
  }
}
