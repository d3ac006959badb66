/** The few messages of CRIU's images that Stasis looks into (images/*.proto of CRIU 4.2). Unknown fields are skipped. */
import { StasisError } from '../../core/errors.ts';
import { WireReader } from './wire.ts';

export interface Inventory {
  /** 1: V1.0, 2: V1.1, 3: compressed pages (CRIU 4.3). */
  readonly version: number;
  readonly lsm: 'none' | 'selinux' | 'apparmor' | 'unknown';
  /** The connections were closed at the dump; a restore must say so too. */
  readonly tcpClose: boolean;
  /** Number of CRIU's enum: 1 iptables, 2 nftables, 3 skip; 0 when not told. */
  readonly networkLock: number;
  readonly plugins: readonly string[];
  /** Of the CRIU that wrote the images; empty before CRIU 4.2. */
  readonly runId: string;
}

export function decodeInventory(message: Uint8Array): Inventory {
  const reader = new WireReader(message, 'inventory.img');
  const lsms = ['none', 'selinux', 'apparmor'] as const;
  let [version, lsm, tcpClose, networkLock, runId] = [0, 0, false, 0, ''];
  let plugins: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) version = reader.uint();
    else if (reader.field === 6) lsm = reader.uint();
    else if (reader.field === 10) tcpClose = reader.bool();
    else if (reader.field === 11) networkLock = reader.uint();
    else if (reader.field === 12) plugins = decodePlugins(reader.bytes());
    else if (reader.field === 13) runId = reader.text();
  }
  return { version, lsm: lsms[lsm] ?? 'unknown', tcpClose, networkLock, plugins, runId };
}

function decodePlugins(message: Uint8Array): string[] {
  const reader = new WireReader(message, 'the plugins of inventory.img');
  const names: string[] = [];
  while (reader.next()) if (reader.field === 12) names.push(reader.text());
  return names;
}

export interface TreeEntry {
  readonly pid: number;
  readonly ppid: number;
  readonly threads: number;
}

export function decodeTreeEntry(message: Uint8Array): TreeEntry {
  const reader = new WireReader(message, 'pstree.img');
  let [pid, ppid, threads] = [0, 0, 0];
  while (reader.next()) {
    if (reader.field === 1) pid = reader.uint();
    else if (reader.field === 2) ppid = reader.uint();
    else if (reader.field === 5) threads += [...reader.uints()].length;
  }
  if (pid === 0) throw new StasisError('OBJECT_CORRUPT', 'pstree.img has a process without a pid');
  return { pid, ppid, threads };
}

export type TaskState = 'alive' | 'dead' | 'stopped' | 'zombie' | 'unknown';

export interface Core {
  readonly machine: string;
  readonly state: TaskState;
  /** Up to 15 bytes that the process chose itself: not to be trusted, only shown. */
  readonly comm: string;
}

const machines = ['unknown', 'x86_64', 'arm', 'aarch64', 'ppc64', 's390', 'mips', 'loongarch64', 'riscv64'];
const taskStates: Readonly<Record<number, TaskState>> = { 1: 'alive', 2: 'dead', 3: 'stopped', 6: 'zombie' };

export function decodeCore(message: Uint8Array, what: string): Core {
  const reader = new WireReader(message, what);
  let machine = 0;
  let task: { state: TaskState; comm: string } = { state: 'unknown', comm: '' };
  while (reader.next()) {
    if (reader.field === 1) machine = reader.uint();
    else if (reader.field === 3) task = decodeTask(reader.bytes(), what);
  }
  return { machine: machines[machine] ?? 'unknown', ...task };
}

function decodeTask(message: Uint8Array, what: string): { state: TaskState; comm: string } {
  const reader = new WireReader(message, what);
  let [state, comm] = [0, ''];
  while (reader.next()) {
    if (reader.field === 1) state = reader.uint();
    else if (reader.field === 6) comm = reader.text();
  }
  return { state: taskStates[state] ?? 'unknown', comm };
}

/** Bytes of address space by kind of mapping. */
export interface MappedBytes {
  anonymous: number;
  filePrivate: number;
  fileShared: number;
  shared: number;
  other: number;
}

export interface Mappings extends MappedBytes {
  count: number;
}

/** Status bits of a vma_entry (criu/include/image.h). */
const VMA_FILE_PRIVATE = 0x40;
const VMA_FILE_SHARED = 0x80;
const VMA_ANON_SHARED = 0x100;
const VMA_ANON_PRIVATE = 0x200;
const VMA_SYSVIPC = 0x400;

export function decodeMappings(message: Uint8Array, what: string): Mappings {
  const mappings: Mappings = { count: 0, anonymous: 0, filePrivate: 0, fileShared: 0, shared: 0, other: 0 };
  const reader = new WireReader(message, what);
  while (reader.next()) {
    if (reader.field !== 14) continue;
    const { bytes, kind } = decodeMapping(reader.bytes(), what);
    mappings[kind] += bytes;
    mappings.count += 1;
  }
  return mappings;
}

/** MAP_LOCKED of Linux: pages of such a mapping are always restored at once. */
const MAP_LOCKED = 0x2000;

/** Begin and end of each mapping that is locked in memory. */
export function lockedRanges(message: Uint8Array, what: string): (readonly [number, number])[] {
  const ranges: (readonly [number, number])[] = [];
  const reader = new WireReader(message, what);
  while (reader.next()) {
    if (reader.field !== 14) continue;
    const mapping = new WireReader(reader.bytes(), what);
    let [start, end, flags] = [0, 0, 0];
    while (mapping.next()) {
      if (mapping.field === 1) start = mapping.address();
      else if (mapping.field === 2) end = mapping.address();
      else if (mapping.field === 6) flags = mapping.uint();
    }
    if ((flags & MAP_LOCKED) !== 0) ranges.push([start, end]);
  }
  return ranges;
}

function decodeMapping(message: Uint8Array, what: string): { bytes: number; kind: keyof MappedBytes } {
  const reader = new WireReader(message, what);
  let [start, end, status] = [0, 0, 0];
  while (reader.next()) {
    if (reader.field === 1) start = reader.address();
    else if (reader.field === 2) end = reader.address();
    else if (reader.field === 7) status = reader.uint();
  }
  if (end < start) throw new StasisError('OBJECT_CORRUPT', `${what} has a mapping that ends before it begins`);
  return { bytes: end - start, kind: mappingKind(status) };
}

function mappingKind(status: number): keyof MappedBytes {
  if ((status & VMA_ANON_PRIVATE) !== 0) return 'anonymous';
  if ((status & VMA_FILE_PRIVATE) !== 0) return 'filePrivate';
  if ((status & VMA_FILE_SHARED) !== 0) return 'fileShared';
  if ((status & (VMA_ANON_SHARED | VMA_SYSVIPC)) !== 0) return 'shared';
  return 'other';
}

export interface CpuRequirements {
  readonly vendor: 'intel' | 'amd' | 'unknown';
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly modelName: string;
  /** XCR0 features in use, as hexadecimal; decides which vector state another CPU must be able to load. */
  readonly xfeatures: string;
}

/** x86 only: other architectures leave nothing that could be compared. */
export function decodeCpu(message: Uint8Array): CpuRequirements | undefined {
  const outer = new WireReader(message, 'cpuinfo.img');
  while (outer.next()) if (outer.field === 1) return decodeX86(outer.bytes());
  return undefined;
}

function decodeX86(message: Uint8Array): CpuRequirements {
  const reader = new WireReader(message, 'cpuinfo.img');
  const vendors = ['unknown', 'intel', 'amd'] as const;
  let [vendor, family, model, stepping, modelName, xfeatures] = [0, 0, 0, 0, '', ''];
  while (reader.next()) {
    if (reader.field === 1) vendor = reader.uint();
    else if (reader.field === 2) family = reader.uint();
    else if (reader.field === 3) model = reader.uint();
    else if (reader.field === 4) stepping = reader.uint();
    else if (reader.field === 7) modelName = reader.text();
    else if (reader.field === 8) xfeatures = reader.uint64().toString(16);
  }
  return { vendor: vendors[vendor] ?? 'unknown', family, model, stepping, modelName, xfeatures };
}
