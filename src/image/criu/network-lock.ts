/** What CRIU blocks in the network when it saves a container, as its images tell. */
import { StasisError } from '../../core/errors.ts';
import type { TcpConnection } from '../types.ts';
import { listImages, readImage } from './directory.ts';
import { imageEntries, singleEntry } from './framing.ts';
import { decodeInventory } from './records.ts';
import { decodeInetSocket } from './sockets.ts';

export interface NetworkLockOfImages {
  /** Of the run of CRIU that wrote them; the name of its table of nftables. Empty in images of older versions. */
  readonly runId: string;
  /** Connections over TCP that a restore brings back. */
  readonly connections: readonly TcpConnection[];
}

export async function readNetworkLock(imageDir: string): Promise<NetworkLockOfImages> {
  const sizes = new Map((await listImages(imageDir)).map(({ name, size }) => [name, size]));
  const inventory = await readImage(imageDir, sizes, 'inventory.img');
  if (inventory === undefined) throw new StasisError('OBJECT_CORRUPT', 'the images have no inventory.img');
  const { runId } = decodeInventory(singleEntry(inventory, 'inventory', 'inventory.img'));
  const files = await readImage(imageDir, sizes, 'files.img');
  const connections: TcpConnection[] = [];
  for (const entry of files === undefined ? [] : imageEntries(files, 'files', 'files.img')) {
    const socket = decodeInetSocket(entry);
    if (socket?.protocol !== 'tcp' || socket.state !== 'established') continue;
    const [local, remote] = [endpoint(socket.source), endpoint(socket.destination)];
    connections.push({ local: local.address, localPort: local.port, remote: remote.address, remotePort: remote.port });
  }
  return { runId, connections };
}

/** "10.0.0.7:80", "[::1]:80"; packets of an IPv4 connection of an IPv6 socket ("[::ffff:a00:7]:80") are IPv4. */
function endpoint(text: string): { address: string; port: number } {
  const colon = text.lastIndexOf(':');
  const address = text.slice(0, colon).replaceAll(/[[\]]/g, '');
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(address);
  return { address: mapped === null ? address : mapped.slice(1).flatMap(bytes).join('.'), port: Number(text.slice(colon + 1)) };
}

function bytes(group: string): [number, number] {
  const value = Number.parseInt(group, 16);
  return [value >>> 8, value & 255];
}
