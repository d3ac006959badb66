/** The JSON of an exported archive, in the words of podman and checkpointctl: what they need to know of the container. */
import { createHash } from 'node:crypto';
import type { OciSpec } from '../../runtime/types.ts';
import type { PodDescription, SavedContainer } from '../description.ts';

export interface ArchiveDocument {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export function archiveDocuments(description: PodDescription, saved: SavedContainer, image: { readonly name: string; readonly id?: string } | undefined, deleted: readonly string[]): ArchiveDocument[] {
  return [
    json('config.dump', configDump(description, saved, image)),
    json('spec.dump', specDump(saved)),
    json('network.status', {}),
    { name: 'stats-dump', bytes: statsDump(description, saved) },
    ...(deleted.length === 0 ? [] : [json('deleted.files', deleted)]),
  ];
}

function json(name: string, value: unknown): ArchiveDocument {
  return { name, bytes: Buffer.from(JSON.stringify(value, undefined, 1)) };
}

/** podman reads all of its container out of this; what is left out has podman's defaults. */
function configDump(description: PodDescription, saved: SavedContainer, image: { readonly name: string; readonly id?: string } | undefined): object {
  const frozenAt = new Date(description.frozenAtMs).toISOString();
  const network = saved.spec.linux?.namespaces?.find(({ type }) => type === 'network');
  return {
    id: podmanId(saved), name: podmanName(saved.name),
    ...(image === undefined ? {} : { rootfsImageName: image.name, rootfsImage: image.name, ...(image.id === undefined ? {} : { rootfsImageID: image.id, rootfsImageRef: image.id }) }),
    runtime: saved.runtime, createdTime: frozenAt, checkpointedTime: frozenAt, restored: false,
    // A namespace with a path was set up by podman, which does so again.
    ...(network?.path === undefined || network.path === '' ? {} : { createNetNS: true, networks: { podman: { interface_name: 'eth0' } } }),
    command: saved.spec.process?.args ?? [], logDriver: 'k8s-file', stopSignal: 15, stopTimeout: 10, createCommand: [],
  };
}

/** podman's ids are 64 hexadecimal digits. */
function podmanId({ id }: SavedContainer): string {
  return /^[0-9a-f]{64}$/.test(id) ? id : createHash('sha256').update(id).digest('hex');
}

function podmanName(name: string): string {
  const allowed = name.replaceAll(/[^A-Za-z0-9_.-]/g, '-').replace(/^[^A-Za-z0-9]+/, '');
  return allowed === '' ? 'restored' : allowed;
}

/** Files that podman makes for every container and mounts by itself; their sources are gone with the container. */
const managed = new Set(['/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/run/.containerenv', '/run/secrets', '/dev/shm']);

function specDump({ spec, bundle, manager }: SavedContainer): OciSpec {
  const { annotations, mounts = [], ...rest } = spec;
  return {
    ...rest,
    // checkpointctl knows the engine by this, and podman only takes its own.
    annotations: { ...annotations, 'io.container.manager': 'libpod' },
    mounts: mounts.filter(({ destination, source = '' }) => !(managed.has(destination) && (source.includes('/userdata/') || (manager === 'podman' && source.startsWith(`${bundle}/`))))),
  };
}

const STATS_MAGIC = [0x55105940, 0x57093306];

/** CRIU's stats-dump (images/stats.proto) out of what the checkpoint knows; times that it does not know are 0. */
function statsDump({ frozenMs }: PodDescription, { images }: SavedContainer): Uint8Array {
  const entry = [[1, 0], [2, Math.round(frozenMs * 1000)], [3, 0], [4, 0], [5, images.pages], [6, 0], [7, images.pages], [8, 0], [9, images.lazyPages]];
  const dump = entry.flatMap(([field = 0, value = 0]) => [field * 8, ...varint(value)]);
  const message = [0x0a, ...varint(dump.length), ...dump];
  const head = Buffer.alloc(12);
  STATS_MAGIC.forEach((magic, i) => head.writeUInt32LE(magic, i * 4));
  head.writeUInt32LE(message.length, 8);
  return Buffer.concat([head, Buffer.from(message)]);
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return [...bytes, rest];
}
