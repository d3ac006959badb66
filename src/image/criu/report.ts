/** What a set of images says about the container, for people: kept as JSON in the manifest and shown by `stasis inspect`. */
import type { CriuImageSummary, CriuReport, ReportedProcess } from '../types.ts';
import { listImages, readImage, readMemoryImages } from './directory.ts';
import type { ImageFile, MemoryImage } from './directory.ts';
import { imageEntries, singleEntry } from './framing.ts';
import { decodeCore, decodeCpu, decodeInventory, decodeMappings, decodeTreeEntry } from './records.ts';
import type { Inventory, TreeEntry } from './records.ts';
import { decodeInetSocket } from './sockets.ts';

/** The report is part of the manifest: lists are cut, counts are not. */
const MAX_LISTED = 100;
const MAX_TEXT = 200;
const PAGES_FILE = /^pages-\d+\.img$/;

/** Numbers and report of an image directory that lies on disk. */
export async function summarizeImages(imageDir: string): Promise<CriuImageSummary> {
  const files = await listImages(imageDir);
  return describeImages(imageDir, files, await readMemoryImages(imageDir, files), 4096);
}

/** `memory` are the pagemaps of the directory, or those that came over a page server instead. */
export async function describeImages(imageDir: string, files: readonly ImageFile[], memory: readonly MemoryImage[], pageSize: number): Promise<CriuImageSummary> {
  const sizes = new Map(files.map(({ name, size }) => [name, size]));
  const pages = memory.reduce((sum, image) => sum + image.pages, 0);
  const lazyPages = memory.reduce((sum, image) => sum + image.lazyPages, 0);
  const pagesBytes = pages * pageSize;
  const metadataBytes = files.reduce((sum, { name, size }) => sum + (PAGES_FILE.test(name) ? 0 : size), 0);
  const inventory = await readInventory(imageDir, sizes);
  const tree = await readTree(imageDir, sizes);
  const report: CriuReport = {
    imageVersion: inventory?.version ?? 0,
    lsm: inventory?.lsm ?? 'unknown',
    networkLock: inventory?.networkLock ?? 0,
    processes: await reportProcesses(imageDir, sizes, tree, memory, pageSize),
    memory: {
      privateBytes: memory.filter(({ kind }) => kind === 'task').reduce((sum, image) => sum + image.pages, 0) * pageSize,
      sharedBytes: memory.filter(({ kind }) => kind === 'shmem').reduce((sum, image) => sum + image.pages, 0) * pageSize,
      lazyBytes: lazyPages * pageSize,
    },
    tcp: await reportSockets(imageDir, sizes),
    ghostFiles: reportGhosts(files),
    stdio: await readStdio(imageDir, sizes),
    cpu: await readCpu(imageDir, sizes),
  };
  return {
    files: new Set([...sizes.keys(), ...memory.flatMap((image) => [image.pagemap, `pages-${image.pagesId}.img`])]).size,
    metadataBytes,
    pagesBytes,
    lazyPages,
    pages,
    processes: tree.length,
    plugins: (inventory?.plugins ?? []).slice(0, MAX_LISTED).map(printable),
    tcpClose: inventory?.tcpClose ?? false,
    report,
  };
}

type Sizes = ReadonlyMap<string, number>;

async function readInventory(imageDir: string, sizes: Sizes): Promise<Inventory | undefined> {
  const bytes = await readImage(imageDir, sizes, 'inventory.img');
  return bytes === undefined ? undefined : decodeInventory(singleEntry(bytes, 'inventory', 'inventory.img'));
}

async function readTree(imageDir: string, sizes: Sizes): Promise<TreeEntry[]> {
  const bytes = await readImage(imageDir, sizes, 'pstree.img');
  return bytes === undefined ? [] : [...imageEntries(bytes, 'pstree', 'pstree.img')].map(decodeTreeEntry);
}

/** The largest processes first. */
async function reportProcesses(imageDir: string, sizes: Sizes, tree: readonly TreeEntry[], memory: readonly MemoryImage[], pageSize: number): Promise<ReportedProcess[]> {
  const byPid = new Map(memory.filter(({ kind }) => kind === 'task').map((image) => [image.id, image]));
  const bySize = tree.toSorted((a, b) => (byPid.get(b.pid)?.pages ?? 0) - (byPid.get(a.pid)?.pages ?? 0) || a.pid - b.pid);
  const processes: ReportedProcess[] = [];
  for (const { pid, ppid, threads } of bySize.slice(0, MAX_LISTED)) {
    const core = await readImage(imageDir, sizes, `core-${pid}.img`);
    const mm = await readImage(imageDir, sizes, `mm-${pid}.img`);
    const task = core === undefined ? undefined : decodeCore(singleEntry(core, 'core', `core-${pid}.img`), `core-${pid}.img`);
    const image = byPid.get(pid);
    processes.push({
      pid,
      ppid,
      threads,
      comm: printable(task?.comm ?? ''),
      state: task?.state ?? 'unknown',
      memoryBytes: (image?.pages ?? 0) * pageSize,
      lazyBytes: (image?.lazyPages ?? 0) * pageSize,
      ...(mm === undefined ? {} : { mapped: decodeMappings(singleEntry(mm, 'mm', `mm-${pid}.img`), `mm-${pid}.img`) }),
    });
  }
  return processes;
}

async function reportSockets(imageDir: string, sizes: Sizes): Promise<CriuReport['tcp']> {
  const bytes = await readImage(imageDir, sizes, 'files.img');
  const listening = new Set<string>();
  let established = 0;
  for (const entry of bytes === undefined ? [] : imageEntries(bytes, 'files', 'files.img')) {
    const socket = decodeInetSocket(entry);
    if (socket?.protocol !== 'tcp') continue;
    if (socket.state === 'established') established += 1;
    if (socket.state === 'listening' && listening.size < MAX_LISTED) listening.add(socket.source);
  }
  return { established, listening: [...listening].sort() };
}

function reportGhosts(files: readonly ImageFile[]): CriuReport['ghostFiles'] {
  const ghosts = files.filter(({ name }) => name.startsWith('ghost-file-'));
  return { count: ghosts.length, bytes: ghosts.reduce((sum, { size }) => sum + size, 0) };
}

/** descriptors.json of runc and crun: what the first process had as descriptors 0, 1 and 2. Only shown, so a bad file says nothing. */
async function readStdio(imageDir: string, sizes: Sizes): Promise<string[]> {
  const bytes = await readImage(imageDir, sizes, 'descriptors.json');
  return bytes === undefined ? [] : parseDescriptors(bytes).map(printable);
}

/** Empty when it is not an array of strings. */
export function parseDescriptors(bytes: Uint8Array): string[] {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return Array.isArray(value) ? value.filter((item) => typeof item === 'string').slice(0, 3) : [];
  } catch {
    return [];
  }
}

async function readCpu(imageDir: string, sizes: Sizes): Promise<CriuReport['cpu']> {
  const bytes = await readImage(imageDir, sizes, 'cpuinfo.img');
  return bytes === undefined ? undefined : decodeCpu(singleEntry(bytes, 'cpuinfo', 'cpuinfo.img'));
}

/** Names come from the processes themselves: no control characters reach a terminal. */
function printable(text: string): string {
  return text.slice(0, MAX_TEXT).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}]/gu, '?');
}
