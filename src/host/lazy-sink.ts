/**
 * Takes the place of criu lazy-pages in a rehearsal: criu restore connects, sends the userfaultfd of each task, and goes on.
 * They are dropped: nobody will ever touch a page of a task that never runs.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';

/** criu's own name for it, looked for in its working directory. */
const SOCKET = 'lazy-pages.socket';

export async function openLazySink(workDirectory: string): Promise<AsyncDisposable> {
  const connections = new Set<Socket>();
  // What read(2) does not ask for (the descriptors beside the bytes) is closed by the kernel.
  const server: Server = createServer((socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket)).on('error', () => undefined).resume();
  });
  // By way of a descriptor: the name of a socket has at most 107 bytes, and a working directory may have more.
  const directory = openSync(workDirectory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    server.listen(`/proc/self/fd/${directory}/${SOCKET}`);
    await once(server, 'listening');
  } catch (error) {
    closeSync(directory);
    throw error;
  }
  return {
    [Symbol.asyncDispose]: async () => {
      for (const socket of connections) socket.destroy();
      const closed = once(server, 'close');
      // Removes the socket by that name, too.
      server.close();
      await closed;
      closeSync(directory);
    },
  };
}
