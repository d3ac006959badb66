/** CRIU's images and archives, which may be a stranger's, and the tree index. */
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { receiveArchive } from '../../src/image/archive/index.ts';
import { decompressed, readTar } from '../../src/image/archive/read.ts';
import { judgeImage } from '../../src/image/criu/admission/admit.ts';
import { imageHeader } from '../../src/image/criu/framing.ts';
import { parseDescriptors, readPrivileges, summarizeImages } from '../../src/image/criu/index.ts';
import { PE_LAZY, PE_PRESENT, PagemapReader } from '../../src/image/criu/pagemap.ts';
import { readFilters } from '../../src/image/criu/seccomp.ts';
import { decodeStats } from '../../src/image/criu/stats.ts';
import { decodeIndex } from '../../src/image/tree/decode.ts';
import { TreeSaver } from '../../src/image/tree/index.ts';
import { parseSpec } from '../../src/runtime/index.ts';
import { archive, member, tar } from '../support/archives.ts';
import { pagemap, writeMetadata } from '../support/criu-images.ts';
import { MemoryCheckpoint } from '../support/memory-checkpoint.ts';
import { MemoryWriter } from '../support/memory-repository.ts';
import { encode, makeImage, text, type Field } from '../support/wire-edit.ts';
import { fuzz } from './fuzz.ts';

const damaged = ['OBJECT_CORRUPT', 'LIMIT_EXCEEDED'];
const ofArchives = ['ARCHIVE_INVALID', 'PATH_ESCAPES', 'LIMIT_EXCEEDED', 'FORMAT_UNSUPPORTED'];
const head = (kind: Parameters<typeof imageHeader>[0]): Buffer => Buffer.from(imageHeader(kind));
const base = mkdtempSync('/tmp/fuzz-');
after(() => rmSync(base, { recursive: true }));

/** Instructions. */
const program = Buffer.from('2000000004000000150001003e0000c00600000000000000200000000000000015000101a50000002000000010000000540000000f00000015000001010000000600000000000500060000000000ff7f', 'hex');
const credentials: Field[] = [[1, 0n], [2, 0n], [3, 0n], [4, 0n], [5, 0n], [6, 0n], [7, 0n], [8, 0n], [9, 0n], [10, 5n], [11, 5n], [12, 7n], [13, 0n], [14, 3n], [15, text('label')], [19, 0n]];
const namespaces: Field[] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map((field) => [field, 77n]);
const core = makeImage(head('core'), [[1, 1n], [3, encode([[1, 1n], [2, 0n], [6, text('sh')], [8, encode([[1, encode([[1, 1n], [2, 2n]])]])], [14, 0n]])], [5, encode([[1, 0n], [3, 0n], [10, encode(credentials)], [11, 2n], [12, 0n]])]]);
/** As much of a container as tells its privileges. */
const privileged: Readonly<Record<string, Buffer>> = {
  'inventory.img': makeImage(head('inventory'), [[1, 2n], [3, encode(namespaces.map(([field]) => [field, 1n]))]]),
  'pstree.img': makeImage(head('pstree'), [[1, 1n], [2, 0n], [3, 1n], [4, 1n], [5, 1n]]),
  'core-1.img': core, 'ids-1.img': makeImage(head('ids'), namespaces),
  'mountpoints-9.img': makeImage(head('mounts'), [[1, 5n], [2, 7n], [4, 6n], [5, 1n], [6, text('/')], [7, text('/dev')], [8, text('tmpfs')], [9, text('')], [17, 0n], [18, text('/dev')]]),
  'seccomp.img': makeImage(head('seccomp'), [[1, encode([[1, program], [3, 1n]])]]),
  'userns-9.img': makeImage(head('userns'), [[1, encode([[1, 0n], [2, 0n], [3, 1n]])]]),
  'ghost-file-1.img': Buffer.concat([makeImage(head('ghost'), [[1, 0n], [2, 0n], [3, 0o100644n], [6, 0n]]), Buffer.alloc(20, 'content')]),
  'tmpfs-dev-5.tar.gz.img': gzipSync(tar(member({ name: './null', type: '3', device: [1, 3] }), member({ name: './way', type: '2', link: 'null' }), member({ name: './twin', type: '1', link: './null' }))),
};

function directoryOf(files: Readonly<Record<string, Buffer>>, name: string): string {
  const directory = join(base, name);
  mkdirSync(directory);
  for (const [file, bytes] of Object.entries(files)) writeFileSync(join(directory, file), bytes);
  return directory;
}

/** One file of a directory is changed; another one each time. */
function inDirectory(files: Readonly<Record<string, Buffer>>, name: string, use: (directory: string) => Promise<unknown>) {
  const directory = directoryOf(files, name);
  return async (bytes: Buffer, file: string): Promise<void> => {
    writeFileSync(join(directory, file), bytes);
    try {
      await use(directory);
    } finally {
      writeFileSync(join(directory, file), files[file] ?? '');
    }
  };
}

async function drain(bytes: Buffer): Promise<void> {
  async function* parts(): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
  }
  const { bytes: plain } = await decompressed(parts(), 'x');
  for await (const { content } of readTar(plain, { signal: undefined, what: 'x' })) for await (const _ of content);
}

async function receive(bytes: Buffer): Promise<void> {
  const imageDir = mkdtempSync(join(base, 'received-'));
  try {
    await receiveArchive((async function* () { yield bytes; })(), { writer: new MemoryWriter(), imageDir, rootfs: 'r/', shm: 's/', reserve: async () => {}, onBytes: () => {}, signal: undefined });
  } finally {
    rmSync(imageDir, { recursive: true });
  }
}

const someTar = tar(member({ name: 'd/', type: '5', mode: 0o755 }), member({ name: 'd/f', body: 'x'.repeat(700), pax: { mtime: '1.5', 'SCHILY.xattr.user.a': 'b' } }), member({ name: 'l', type: '2', link: 'd' }), member({ name: 'h', type: '1', link: 'd/f' }), member({ name: 'n', type: '3', device: [1, 3] }));
const someArchive = archive({}, member({ name: 'rootfs-diff.tar', body: someTar }), member({ name: 'deleted.files', body: '["/a","/b/c"]' }));
const metadata = directoryOf({}, 'metadata');
writeMetadata(metadata);

void describe('images and archives', () => {
  fuzz('pagemap', { good: [pagemap(3, [{ address: 0x10000, pages: 2, flags: PE_PRESENT }, { address: 0x40000, pages: 9, flags: PE_PRESENT | PE_LAZY }])], codes: damaged, parse: (bytes) => { const reader = new PagemapReader('x'); for (const _ of reader.push(bytes)); reader.end(); } });
  for (const [file, good] of Object.entries(privileged)) {
    const parse = inDirectory(privileged, `privileged-${file}`, readPrivileges);
    fuzz(`privileges: ${file}`, { good: [good], codes: file.startsWith('tmpfs') ? [...ofArchives, ...damaged] : damaged, parse: (bytes) => parse(bytes, file) });
  }
  const admitted: Readonly<Record<string, Buffer>> = {
    'netdev-9.img': makeImage(head('netdev'), [[1, 1n], [2, 1n], [3, 1n], [4, 1n], [5, text('lo')]]), 'ghost-file-1.img': privileged['ghost-file-1.img'] ?? Buffer.alloc(0), 'ids-1.img': privileged['ids-1.img'] ?? Buffer.alloc(0),
    'userns-9.img': privileged['userns-9.img'] ?? Buffer.alloc(0), 'seccomp.img': privileged['seccomp.img'] ?? Buffer.alloc(0), 'mountpoints-9.img': makeImage(head('mounts'), [[1, 5n], [2, 7n], [3, 1n], [4, 6n], [5, 1n], [6, text('/')], [7, text('/dev')], [8, text('tmpfs')], [9, text('')], [17, 0n]]),
    'pagemap-1.img': pagemap(3, [{ address: 0x10000, pages: 2, flags: PE_PRESENT }]),
  };
  for (const [file, good] of Object.entries(admitted)) {
    const parse = inDirectory(admitted, `admitted-${file}`, async (directory) => judgeImage(directory, { name: file, size: statSync(join(directory, file)).size }));
    fuzz(`admission: ${file}`, { good: [good], codes: damaged, parse: (bytes) => parse(bytes, file) });
  }
  const summaries = Object.fromEntries(readdirSync(metadata).map((file) => [file, readFileSync(join(metadata, file))]));
  for (const file of ['inventory.img', 'pstree.img', 'core-1.img', 'mm-1.img', 'files.img']) {
    const parse = inDirectory(summaries, `summary-${file}`, summarizeImages);
    fuzz(`report: ${file}`, { good: [summaries[file] ?? Buffer.alloc(0)], codes: [...damaged, 'DUMP_FAILED'], parse: (bytes) => parse(bytes, file) });
  }
  fuzz('seccomp.img', { good: [privileged['seccomp.img'] ?? Buffer.alloc(0)], codes: damaged, parse: readFilters });
  fuzz('statistics', { good: [makeImage(head('stats'), [[1, encode([[1, 5n], [2, 6n], [9, 7n]])]])], codes: damaged, parse: (bytes) => decodeStats(bytes, 1) });
  fuzz('descriptors.json', { good: [Buffer.from('["/dev/null","pipe:[1]","pipe:[2]"]')], codes: [], parse: parseDescriptors });
  fuzz('tar', { good: [someTar], codes: ofArchives, parse: drain });
  fuzz('compressed tar', { good: [gzipSync(someTar), zstdCompressSync(someTar)], codes: ofArchives, parse: drain });
  fuzz('archive', { good: [someArchive], codes: ofArchives, parse: receive });
  fuzz('config.json', { good: [Buffer.from('{"ociVersion":"1.2.0","root":{"path":"r"},"process":{"args":["sh"],"cwd":"/"},"mounts":[{"destination":"/a","options":["ro"]}],"linux":{"namespaces":[{"type":"pid"}]},"annotations":{"a":"b"}}')], codes: [], parse: specOf });
  fuzz('index of a tree', {
    good: async () => {
      const root = join(base, 'tree');
      mkdirSync(join(root, 'd'), { recursive: true });
      for (let i = 0; i < 10; i++) writeFileSync(join(root, 'd', `file-${i}`), `x${i}`);
      const checkpoint = new MemoryCheckpoint();
      await using saver = new TreeSaver({ writer: checkpoint, prefix: '', root, kind: 'plain' });
      await saver.delta({ signal: undefined });
      await saver.finish({ signal: undefined });
      return [checkpoint.blob('index')];
    },
    codes: ['OBJECT_CORRUPT', 'PATH_ESCAPES', 'LIMIT_EXCEEDED', 'FORMAT_UNSUPPORTED'], parse: (bytes) => decodeIndex(bytes, 20),
  });
});

/** The parser tells what is wrong in plain errors; who calls it says of what. */
function specOf(bytes: Buffer): void {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    return;
  }
  try {
    parseSpec(value);
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw error;
  }
}
