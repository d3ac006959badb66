/** Who is at the other end of a loopback connection. */
import { readFile } from 'node:fs/promises';

/**
 * The user id of the process that opened a connection from 127.0.0.1:`peerPort` to 127.0.0.1:`port`, out of
 * /proc/net/tcp (proc_net_tcp(5)); undefined when the connection is gone. Only root may write the memory of a
 * checkpoint: what is in it runs again as whatever user the container had.
 */
export async function loopbackPeerUid(peerPort: number, port: number): Promise<number | undefined> {
  const table = await readFile('/proc/net/tcp', 'latin1');
  const end = (number: number): string => `0100007F:${number.toString(16).toUpperCase().padStart(4, '0')}`;
  for (const line of table.split('\n')) {
    const columns = line.trim().split(/\s+/);
    if (columns[1] === end(peerPort) && columns[2] === end(port)) return Number(columns[7]);
  }
  return undefined;
}
