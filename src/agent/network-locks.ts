/**
 * What a stopped container leaves in a network namespace that outlives it (docs/adr/0031-network-locks.md). criu blocks the whole
 * namespace while it saves a container, and leaves it so until the restore. Others may be in there: so from the death of the
 * container on only its own connections are blocked, and nothing where it had none.
 *
 * A file for each checkpoint, written before the container dies or criu rebuilds one, says what may be left and where.
 */
import { join } from 'node:path';
import { parseCheckpointId, type CheckpointId } from '../core/ids.ts';
import { listDirectory, makePrivateDirectory, readJsonFile, removeTree, replaceFile } from '../host/files.ts';
import { blockConnections, findNetwork, hasTable, networkAt, networkOf, removeTable, type BlockedConnection } from '../host/packet-filter.ts';
import { bootId } from '../host/proc.ts';
import type { NetworkLockOfImages } from '../image/criu/index.ts';
import type { OciSpec } from '../runtime/types.ts';
import type { AgentContext } from './context.ts';

/** criu's own packets have this mark (SOCCR_MARK) when it rebuilds a connection. */
const CRIU_MARK = 0xc114;
/** criu has a buffer of 32 bytes for "inet CRIU-" and the number of its run. */
const TABLE_NAME_BYTES = 26;

interface NetworkLock {
  /** Namespaces have other numbers after a reboot, and no tables. */
  readonly boot: string;
  readonly table: string;
  readonly networks: readonly { readonly network: string; readonly connections: readonly BlockedConnection[] }[];
}

/** Notes that a table of this name may be left in a network namespace; without connections it is to be taken away, else to be narrowed to them. */
export function expectLock(agent: AgentContext, checkpoint: CheckpointId, network: string | undefined, { runId, connections }: NetworkLockOfImages): void {
  if (network === undefined || runId === '') return;
  const known = read(agent, checkpoint)?.networks ?? [];
  if (known.some((one) => one.network === network)) return;
  write(agent, checkpoint, { boot: bootId(), table: tableName(runId), networks: [...known, { network, connections }] });
}

/** The network namespace that a container of this spec joins; undefined where it gets one of its own. */
export function joinedNetwork(spec: OciSpec): string | undefined {
  const namespace = spec.linux?.namespaces?.find(({ type }) => type === 'network');
  if (namespace === undefined) return networkOf('self');
  return namespace.path === undefined || namespace.path === '' ? undefined : networkAt(namespace.path);
}

/**
 * The container of this checkpoint is dead, or could not be restored: its tables are narrowed or taken away. `again` blocks connections also where
 * no table is: criu takes it away before the tasks run. Else a missing one means that the container was restored. Never throws.
 */
export async function settleLock(agent: AgentContext, checkpoint: CheckpointId, { again = false } = {}): Promise<void> {
  await logged(agent, checkpoint, async (lock) => {
    const left: NetworkLock['networks'][number][] = [];
    for (const one of lock.networks) {
      const path = findNetwork(one.network);
      if (path === undefined) continue;
      if (one.connections.length === 0) {
        await removeTable(path, lock.table);
      } else if (again || (await hasTable(path, lock.table))) {
        await blockConnections(path, lock.table, one.connections, CRIU_MARK);
        left.push(one);
      }
      await removeTable(path, heldName(lock.table));
    }
    write(agent, checkpoint, { ...lock, networks: left });
  });
}

/** The checkpoint is restored, or is gone. Never throws. */
export async function releaseLock(agent: AgentContext, checkpoint: CheckpointId): Promise<void> {
  await logged(agent, checkpoint, async (lock) => {
    for (const { network } of lock.networks) {
      const path = findNetwork(network);
      if (path === undefined) continue;
      await removeTable(path, lock.table);
      await removeTable(path, heldName(lock.table));
    }
    write(agent, checkpoint, { ...lock, networks: [] });
  });
}

/**
 * From before criu unlocks the network until nothing can go wrong any more: what a rebuilt connection received, and confirmed to its
 * peer, is lost when the restore is refused after all, and the next one would wait for it for ever.
 */
export async function holdConnections(pid: number, lock: NetworkLockOfImages | undefined): Promise<void> {
  if (lock === undefined || lock.runId === '' || lock.connections.length === 0) return;
  await blockConnections(`/proc/${pid}/ns/net`, heldName(tableName(lock.runId)), lock.connections, CRIU_MARK);
}

export async function letConnections(pid: number, lock: NetworkLockOfImages | undefined): Promise<void> {
  if (lock === undefined || lock.runId === '' || lock.connections.length === 0) return;
  await removeTable(`/proc/${pid}/ns/net`, heldName(tableName(lock.runId)));
}

function tableName(runId: string): string {
  return `CRIU-${runId}`.slice(0, TABLE_NAME_BYTES);
}

function heldName(table: string): string {
  return table.replace('CRIU', 'STASIS');
}

/** Of a dead agent, from local files alone; restores that were going on are left to their recovery. */
export async function settleLocks(agent: AgentContext): Promise<void> {
  const restoring = new Set(agent.journal.records().flatMap((record) => (record.kind === 'restore' ? [record.checkpoint] : [])));
  for (const checkpoint of checkpoints(agent)) if (!restoring.has(checkpoint)) await settleLock(agent, checkpoint);
}

/** Of checkpoints that another node has removed. */
export async function sweepLocks(agent: AgentContext, { signal }: { signal: AbortSignal }): Promise<void> {
  for (const checkpoint of checkpoints(agent)) {
    await logged(agent, checkpoint, async () => {
      if (!(await agent.repository.exists(checkpoint, { signal }))) await releaseLock(agent, checkpoint);
    });
  }
}

async function logged(agent: AgentContext, checkpoint: CheckpointId, body: (lock: NetworkLock) => Promise<void>): Promise<void> {
  try {
    const lock = read(agent, checkpoint);
    if (lock !== undefined) await body(lock);
  } catch (error) {
    agent.log.event('network.locked', { checkpoint_id: checkpoint, err: error });
  }
}

function directoryOf(agent: AgentContext): string {
  return join(agent.settings.stateDirectory, 'network-locks');
}

function checkpoints(agent: AgentContext): CheckpointId[] {
  return listDirectory(directoryOf(agent)).filter((name) => name.endsWith('.json')).map((name) => parseCheckpointId(name.slice(0, -'.json'.length)));
}

/** Undefined where nothing is known, or only of before a reboot. */
function read(agent: AgentContext, checkpoint: CheckpointId): NetworkLock | undefined {
  const path = join(directoryOf(agent), `${checkpoint}.json`);
  const lock = readJsonFile(path);
  if (isLock(lock) && lock.boot === bootId()) return lock;
  removeTree(path);
  return undefined;
}

function write(agent: AgentContext, checkpoint: CheckpointId, lock: NetworkLock): void {
  const path = join(directoryOf(agent), `${checkpoint}.json`);
  if (lock.networks.length === 0) {
    removeTree(path);
    return;
  }
  makePrivateDirectory(directoryOf(agent));
  replaceFile(path, JSON.stringify(lock));
}

function isLock(value: unknown): value is NetworkLock {
  const { boot, table, networks } = (value ?? {}) as Partial<Record<string, unknown>>;
  return typeof boot === 'string' && typeof table === 'string' && /^CRIU-[0-9a-f-]+$/.test(table) && Array.isArray(networks) &&
    networks.every((one: { network?: unknown; connections?: unknown } | null) => typeof one?.network === 'string' && Array.isArray(one.connections));
}
