/**
 * Archives that were made to do harm, after advisories against podman, CRI-O, containerd and moby and after the classes
 * of tricks with tar files. Each is imported, and restored where the import takes it, into a root file system that leads out by a
 * symlink; the tree around it must be the same afterwards.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import type { AgentContext } from '../../src/agent/context.ts';
import { podDescription, type PodDescription } from '../../src/agent/description.ts';
import { importCheckpoint, IMPORT_STEPS } from '../../src/agent/import/import.ts';
import { Journal } from '../../src/agent/journal.ts';
import { Operation } from '../../src/agent/operation.ts';
import { systemClock } from '../../src/core/clock.ts';
import { isStasisError, StasisError } from '../../src/core/errors.ts';
import { noFailpoints } from '../../src/core/failpoint.ts';
import { newCheckpointId, newOperationId } from '../../src/core/ids.ts';
import { loadImages } from '../../src/image/criu/index.ts';
import { loadTree, loadTreeMerged } from '../../src/image/tree/index.ts';
import { fileKeyProvider, openDirectoryStore, openRepository } from '../../src/repository/index.ts';
import type { CheckpointReader, DirectoryStore, Repository } from '../../src/repository/index.ts';
import { archive, goodMembers, member, records, tar } from '../support/archives.ts';
import { snapshot } from '../support/tree-snapshot.ts';

const signal = undefined;
const json = (name: string, value: unknown): Buffer => member({ name, body: JSON.stringify(value) });
const config = (more: object): Buffer => json('config.dump', { id: 'ab'.repeat(32), name: 'web', ...more });
const spec = (more: object): Buffer => json('spec.dump', { process: { args: ['sh'], cwd: '/' }, annotations: { 'io.container.manager': 'libpod' }, ...more });
const deleted = (value: unknown): Buffer => archive({}, json('deleted.files', value));
const diff = (...members: readonly Buffer[]): Buffer => archive({}, member({ name: 'rootfs-diff.tar', body: tar(...members) }));
const layer = (...members: readonly Buffer[]): Buffer => archive({}, member({ name: 'rootfs-diff.tar', body: gzipSync(tar(...members)) }));
const image = (name: string, body: Uint8Array | string): Record<string, Buffer> => ({ [`checkpoint/${name}`]: member({ name: `checkpoint/${name}`, body }) });
const directory = (name: string): Buffer => member({ name, type: '5', mode: 0o755 });
/** A number in base 256, as GNU tar writes large ones. */
const base256 = (head: number, ...rest: readonly number[]): Buffer => Buffer.from([head, ...Array.from({ length: 11 - rest.length }, () => (head === 0xff ? 0xff : 0)), ...rest]);

interface Case {
  readonly bytes: () => Buffer | AsyncIterable<Buffer>;
  /** The code of the refusal; "restore CODE" when the import takes it and the loader of the tree does not; "accepted". */
  readonly expect: string;
  readonly check?: (description: PodDescription, root: string) => void;
}

const absent = (words: string) => (description: PodDescription): void => assert.ok(!JSON.stringify(description).includes(words), `${words} is in the description`);

const cases: Record<string, Case> = {
  'CVE-2024-8676: mounts of the host in spec.dump': { bytes: () => archive({ 'spec.dump': spec({ mounts: [{ destination: '/host', type: 'bind', source: '/very/secret', options: ['rbind', 'rw'] }] }) }), expect: 'accepted', check: absent('/very/secret') },
  'CVE-2026-53492: CDI annotations that ask for devices': { bytes: () => archive({ 'spec.dump': spec({ annotations: { 'cdi.k8s.io/x': 'vendor.com/device=all', 'io.container.manager': 'libpod' } }) }), expect: 'accepted', check: absent('vendor.com') },
  'CVE-2026-53489: container.log is a symlink': { bytes: () => archive({}, member({ name: 'container.log', type: '2', link: '/etc/shadow' })), expect: 'PATH_ESCAPES' },
  'CVE-2026-53489: ctr.log is a hard link': { bytes: () => archive({}, member({ name: 'ctr.log', type: '1', link: '/etc/shadow' })), expect: 'PATH_ESCAPES' },
  'CVE-2026-50195: the name of another image, with control characters': { bytes: () => archive({ 'config.dump': config({ rootfsImageName: 'evil\u001b[2J\u202e', rootfsImageRef: 'docker.io/x' }) }), expect: 'accepted', check: absent('\\u001b') },
  'CVE-2026-53488: labels that become commands': { bytes: () => archive({ 'config.dump': config({ labels: { 'run-on-host': 'rm' } }) }), expect: 'accepted', check: absent('run-on-host') },
  'hooks, devices, capabilities and namespaces in spec.dump': { bytes: () => archive({ 'spec.dump': spec({ hooks: { prestart: [{ path: '/bin/pwned' }] }, linux: { devices: [{ path: '/dev/pwned' }], namespaces: [{ type: 'pid', path: '/proc/1/ns/pwned' }] } }) }), expect: 'accepted', check: absent('pwned') },
  'org.criu.config in the annotations': { bytes: () => archive({ 'spec.dump': spec({ annotations: { 'org.criu.config': '/tmp/criu.conf' } }) }), expect: 'accepted', check: absent('criu.conf') },
  'CVE-2026-55686: a working directory that leads out': { bytes: () => archive({ 'spec.dump': spec({ process: { cwd: '/../../x', args: [] } }) }), expect: 'accepted' },
  'moby 28769: an id that is a path': { bytes: () => archive({ 'config.dump': config({ id: '../../../escaped' }) }), expect: 'accepted', check: ({ containers }) => assert.match(containers[0]?.id ?? '', /^imported-/) },
  'podman 27977: deleted.files leads out': { bytes: () => deleted(['../../../outside/precious']), expect: 'PATH_ESCAPES' },
  'podman 27977: deleted.files leads out in its middle': { bytes: () => deleted(['/etc/../../outside/precious']), expect: 'PATH_ESCAPES' },
  'deleted.files deletes the root': { bytes: () => deleted(['/']), expect: 'PATH_ESCAPES' },
  'deleted.files deletes through a symlink of the archive': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', body: tar(member({ name: 'way', type: '2', link: '../outside' })) }), json('deleted.files', ['/way/precious'])), expect: 'PATH_ESCAPES' },
  'deleted.files deletes through a symlink of the image': { bytes: () => deleted(['/evil/precious']), expect: 'restore RESTORE_FAILED' },
  'deleted.files deletes the symlink of the image itself': { bytes: () => deleted(['/evil']), expect: 'accepted' },
  'deleted.files is no list': { bytes: () => deleted({ '/x': 1 }), expect: 'ARCHIVE_INVALID' },
  'deleted.files has numbers': { bytes: () => deleted([1, 2]), expect: 'ARCHIVE_INVALID' },
  'deleted.files has a NUL': { bytes: () => deleted(['/a\0/../b']), expect: 'PATH_ESCAPES' },
  'deleted.files deletes what the archive has': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', body: tar(member({ name: 'a' })) }), json('deleted.files', ['/a'])), expect: 'ARCHIVE_INVALID' },
  'an image file above its directory (containerd 13947)': { bytes: () => archive({}, member({ name: 'checkpoint/../../x' })), expect: 'PATH_ESCAPES' },
  'an image file deeper than its directory': { bytes: () => archive({}, member({ name: 'checkpoint/sub/x.img' })), expect: 'PATH_ESCAPES' },
  'an image file that is hidden': { bytes: () => archive({}, member({ name: 'checkpoint/.x' })), expect: 'PATH_ESCAPES' },
  'an image file with the mark of right-to-left': { bytes: () => archive({}, member({ name: 'checkpoint/a\u202eb' })), expect: 'PATH_ESCAPES' },
  'an image file that is a symlink': { bytes: () => archive({ 'checkpoint/pages-1.img': member({ name: 'checkpoint/pages-1.img', type: '2', link: '/dev/sda' }) }), expect: 'PATH_ESCAPES' },
  'a link to parent images': { bytes: () => archive({}, member({ name: 'checkpoint/parent', type: '2', link: '../../..' })), expect: 'PATH_ESCAPES' },
  'the directory of images is a symlink': { bytes: () => tar(member({ name: 'checkpoint', type: '2', link: '/outside' }), ...goodMembers().values()), expect: 'PATH_ESCAPES' },
  'determined-ai 10269: a symlink and a file through it': { bytes: () => tar(member({ name: 'artifacts', type: '2', link: '/outside' }), member({ name: 'artifacts/x', body: 'x' })), expect: 'PATH_ESCAPES' },
  'an absolute name': { bytes: () => archive({}, member({ name: '/outside/x' })), expect: 'PATH_ESCAPES' },
  'a name that is the parent': { bytes: () => archive({}, member({ name: '..' })), expect: 'PATH_ESCAPES' },
  'a name that leads out after a dot': { bytes: () => archive({}, member({ name: './../x' })), expect: 'PATH_ESCAPES' },
  'config.dump is a symlink': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', type: '2', link: '/etc/passwd' }) }), expect: 'PATH_ESCAPES' },
  'config.dump is a device': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', type: '3', device: [1, 5] }) }), expect: 'PATH_ESCAPES' },
  'spec.dump is a fifo': { bytes: () => archive({ 'spec.dump': member({ name: 'spec.dump', type: '6' }) }), expect: 'PATH_ESCAPES' },
  'pages are a block device': { bytes: () => archive({ 'checkpoint/pages-1.img': member({ name: 'checkpoint/pages-1.img', type: '4', device: [8, 0] }) }), expect: 'PATH_ESCAPES' },
  'config.dump is a directory': { bytes: () => archive({ 'config.dump': directory('config.dump') }), expect: 'ARCHIVE_INVALID' },
  'config.dump twice': { bytes: () => archive({}, config({})), expect: 'ARCHIVE_INVALID' },
  'config.dump twice, once with a dot': { bytes: () => archive({}, json('./config.dump', {})), expect: 'ARCHIVE_INVALID' },
  'an image twice': { bytes: () => archive({}, member({ name: 'checkpoint/inventory.img' })), expect: 'ARCHIVE_INVALID' },
  'config.dump is not JSON': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: '{' }) }), expect: 'ARCHIVE_INVALID' },
  'config.dump is a list': { bytes: () => archive({ 'config.dump': json('config.dump', []) }), expect: 'ARCHIVE_INVALID' },
  'config.dump is huge': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: Buffer.alloc(9 * 1024 ** 2, ' ') }) }), expect: 'LIMIT_EXCEEDED' },
  'config.dump says that it has 2^62 bytes': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', size: base256(0x80, 0x40, 0, 0, 0, 0, 0, 0, 0) }) }), expect: 'LIMIT_EXCEEDED' },
  'config.dump is deep': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: '['.repeat(100_000) }) }), expect: 'LIMIT_EXCEEDED' },
  'config.dump sets a prototype': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: '{"__proto__":{"polluted":1},"id":{"x":1},"name":7}' }) }), expect: 'accepted', check: () => assert.equal(({} as { polluted?: number }).polluted, undefined) },
  'spec.dump has mounts that are none': { bytes: () => archive({ 'spec.dump': spec({ mounts: { destination: 1 } }) }), expect: 'ARCHIVE_INVALID' },
  'spec.dump is a text': { bytes: () => archive({ 'spec.dump': json('spec.dump', 'text') }), expect: 'ARCHIVE_INVALID' },
  'no config.dump': { bytes: () => archive({ 'config.dump': undefined }), expect: 'ARCHIVE_INVALID' },
  'no spec.dump': { bytes: () => archive({ 'spec.dump': undefined }), expect: 'ARCHIVE_INVALID' },
  'no inventory': { bytes: () => archive({ 'checkpoint/inventory.img': undefined }), expect: 'ARCHIVE_INVALID' },
  'an inventory with a wrong magic': { bytes: () => archive(image('inventory.img', Buffer.alloc(64, 7))), expect: 'ARCHIVE_INVALID' },
  'an inventory that is empty': { bytes: () => archive(image('inventory.img', '')), expect: 'ARCHIVE_INVALID' },
  'no process': { bytes: () => archive({ 'checkpoint/pstree.img': undefined }), expect: 'ARCHIVE_INVALID' },
  'more pages in the pagemap than there are': { bytes: () => archive(image('pages-1.img', Buffer.alloc(4096))), expect: 'ARCHIVE_INVALID' },
  'a pagemap that stops in the middle': { bytes: () => archive(image('pagemap-1.img', goodMembers().get('checkpoint/pagemap-1.img')?.subarray(512, 540) ?? '')), expect: 'ARCHIVE_INVALID' },
  'a pagemap with a message of 4 GiB': { bytes: () => archive(image('pagemap-1.img', Buffer.from('1943565425400856ffffffff', 'hex'))), expect: 'LIMIT_EXCEEDED' },
  'cut off in a body': { bytes: () => archive().subarray(0, 2000), expect: 'ARCHIVE_INVALID' },
  'cut off in a header': { bytes: () => archive().subarray(0, 1300), expect: 'ARCHIVE_INVALID' },
  'nothing at all': { bytes: () => Buffer.alloc(0), expect: 'ARCHIVE_INVALID' },
  'only zeros': { bytes: () => Buffer.alloc(10_240), expect: 'ARCHIVE_INVALID' },
  'not a tar file': { bytes: () => Buffer.alloc(10_240, 'no'), expect: 'ARCHIVE_INVALID' },
  'gzip that is cut off': { bytes: () => gzipSync(archive()).subarray(0, 700), expect: 'ARCHIVE_INVALID' },
  'gzip with a wrong checksum': { bytes: () => Buffer.concat([gzipSync(archive()).subarray(0, -8), Buffer.alloc(8)]), expect: 'ARCHIVE_INVALID' },
  'zstd that is cut off': { bytes: () => zstdCompressSync(archive()).subarray(0, 700), expect: 'ARCHIVE_INVALID' },
  'a gzip bomb as a document': { bytes: () => gzipSync(tar(member({ name: 'config.dump', body: Buffer.alloc(256 * 1024 ** 2) }))), expect: 'LIMIT_EXCEEDED' },
  'a zstd bomb as pages': { bytes: () => zstdCompressSync(Buffer.concat([member({ name: 'checkpoint/pages-9.img', size: 2 ** 32 }), Buffer.alloc(1024 ** 2)])), expect: 'NO_SPACE' },
  'a bomb within a bomb': { bytes: () => gzipSync(archive({}, member({ name: 'rootfs-diff.tar', body: gzipSync(tar(member({ name: 'zeros', body: Buffer.alloc(64 * 1024 ** 2) }))) }))), expect: 'accepted' },
  'compressed with xz': { bytes: () => Buffer.from('fd377a585a000004', 'hex'), expect: 'FORMAT_UNSUPPORTED' },
  'a negative size': { bytes: () => archive({}, member({ name: 'x', size: base256(0xff, 0) })), expect: 'ARCHIVE_INVALID' },
  'a size that is no number': { bytes: () => archive({}, member({ name: 'x', pax: { size: 'many' } })), expect: 'ARCHIVE_INVALID' },
  'a size of three hundred digits': { bytes: () => archive({}, member({ name: 'x', pax: { size: '9'.repeat(300) } })), expect: 'LIMIT_EXCEEDED' },
  'a pax header of 5 MiB': { bytes: () => archive({}, member({ name: 'x', pax: { comment: 'x'.repeat(5 * 1024 ** 2) } })), expect: 'ARCHIVE_INVALID' },
  'a pax path that leads out': { bytes: () => archive({}, member({ name: 'config', pax: { path: '../../outside/x' } })), expect: 'PATH_ESCAPES' },
  'a pax path with a NUL': { bytes: () => archive({}, member({ name: 'x', pax: { path: 'a\0b' } })), expect: 'PATH_ESCAPES' },
  'a pax path that is not UTF-8': { bytes: () => archive({}, member({ name: 'x', pax: { path: Buffer.from([0x61, 0xff]) } })), expect: 'FORMAT_UNSUPPORTED' },
  'a global pax path that leads out': { bytes: () => archive({}, member({ name: 'g', type: 'g', body: records({ path: '../x' }) }), member({ name: 'y', pax: { mtime: '1' } })), expect: 'PATH_ESCAPES' },
  'a long name of GNU that leads out': { bytes: () => archive({}, member({ name: '././@LongLink', type: 'L', body: `${'../'.repeat(60)}x\0` }), member({ name: 'x' })), expect: 'PATH_ESCAPES' },
  'a sparse file of GNU': { bytes: () => archive({}, member({ name: 'x', type: 'S' })), expect: 'PATH_ESCAPES' },
  'a sparse file of pax under another name': { bytes: () => archive({ 'config.dump': member({ name: 'GNUSparseFile.0/config.dump', pax: { 'GNU.sparse.major': '1', 'GNU.sparse.name': 'config.dump' } }) }), expect: 'ARCHIVE_INVALID' },
  'a wrong checksum of a header': { bytes: () => archive({}, member({ name: 'x', checksum: 1 })), expect: 'ARCHIVE_INVALID' },
  'a header of no known format': { bytes: () => archive({}, member({ name: 'x', magic: 'hello000' })), expect: 'ARCHIVE_INVALID' },
  'a name of 5,000 bytes': { bytes: () => archive({}, member({ name: 'x', pax: { path: 'a/'.repeat(2500) } })), expect: 'LIMIT_EXCEEDED' },
  'a component of 300 bytes': { bytes: () => archive({}, member({ name: 'x', pax: { path: 'a'.repeat(300) } })), expect: 'LIMIT_EXCEEDED' },

  'rootfs: a name that leads out': { bytes: () => diff(member({ name: '../outside/x' })), expect: 'PATH_ESCAPES' },
  'rootfs: an absolute name': { bytes: () => diff(member({ name: '/outside/x' })), expect: 'PATH_ESCAPES' },
  'rootfs: a symlink, then a file through it': { bytes: () => diff(member({ name: 'way', type: '2', link: '../outside' }), member({ name: 'way/x', body: 'x' })), expect: 'PATH_ESCAPES' },
  'rootfs: a symlink, then a directory of its name': { bytes: () => diff(member({ name: 'way', type: '2', link: '../outside' }), directory('way/')), expect: 'ARCHIVE_INVALID' },
  'rootfs: a file through a symlink of the image': { bytes: () => diff(member({ name: 'evil/x', body: 'x' })), expect: 'restore RESTORE_FAILED' },
  'rootfs: a directory in the place of a symlink of the image': { bytes: () => diff(directory('evil/'), member({ name: 'evil/x', body: 'x' })), expect: 'accepted' },
  'rootfs: a symlink out, which nobody follows': { bytes: () => diff(member({ name: 'way', type: '2', link: '/outside/precious' })), expect: 'accepted' },
  'rootfs: a hard link out': { bytes: () => diff(member({ name: 'a', type: '1', link: '../outside/precious' })), expect: 'PATH_ESCAPES' },
  'rootfs: a hard link to an absolute path': { bytes: () => diff(member({ name: 'a', type: '1', link: '/outside/precious' })), expect: 'PATH_ESCAPES' },
  'rootfs: a hard link to what is not in the archive': { bytes: () => diff(member({ name: 'a', type: '1', link: 'evil/precious' })), expect: 'PATH_ESCAPES' },
  'rootfs: a hard link to a directory': { bytes: () => diff(directory('d/'), member({ name: 'a', type: '1', link: 'd' })), expect: 'PATH_ESCAPES' },
  'rootfs: a hard link through a symlink': { bytes: () => diff(member({ name: 'way', type: '2', link: '../outside' }), member({ name: 'a', type: '1', link: 'way/precious' })), expect: 'PATH_ESCAPES' },
  'rootfs: devices are left out': { bytes: () => diff(member({ name: 'disk', type: '4', device: [8, 0] }), member({ name: 'mem', type: '3', device: [1, 1] })), expect: 'accepted', check: (_, root) => assert.ok(!readdirSync(root).some((name) => name === 'disk' || name === 'mem')) },
  'rootfs: the device 0:0, which deletes': { bytes: () => diff(member({ name: 'a', type: '3', device: [0, 0] })), expect: 'ARCHIVE_INVALID' },
  'rootfs: a file twice': { bytes: () => diff(member({ name: 'a' }), member({ name: './a' })), expect: 'ARCHIVE_INVALID' },
  'rootfs: marks of overlayfs and of ours': { bytes: () => diff(member({ name: 'a/', type: '5', pax: { 'SCHILY.xattr.trusted.overlay.redirect': '/outside', 'SCHILY.xattr.trusted.stasis.implicit': 'y', 'SCHILY.xattr.user.kept': 'y' } })), expect: 'accepted', check: absent('/outside') },
  'rootfs: the owner -1': { bytes: () => diff(member({ name: 'a', pax: { uid: '4294967295' } })), expect: 'ARCHIVE_INVALID' },
  'rootfs: a time that is none': { bytes: () => diff(member({ name: 'a', mtime: base256(0x80, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) })), expect: 'ARCHIVE_INVALID' },
  'rootfs: a sparse file': { bytes: () => diff(member({ name: 'a', type: 'S' })), expect: 'FORMAT_UNSUPPORTED' },
  'rootfs: the root is a symlink': { bytes: () => diff(member({ name: './', type: '2', link: '/outside' })), expect: 'ARCHIVE_INVALID' },
  'rootfs: a whiteout of the parent': { bytes: () => layer(member({ name: '.wh...' })), expect: 'PATH_ESCAPES' },
  'rootfs: a whiteout through a symlink of the image': { bytes: () => layer(member({ name: 'evil/.wh.precious' })), expect: 'restore RESTORE_FAILED' },
  'rootfs: an opaque mark through a symlink of the image': { bytes: () => layer(member({ name: 'evil/.wh..wh..opq' })), expect: 'restore RESTORE_FAILED' },
  'rootfs: cut off': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', body: tar(member({ name: 'a', body: 'x'.repeat(5000) })).subarray(0, 3000) })), expect: 'ARCHIVE_INVALID' },
  'rootfs: is a symlink': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', type: '2', link: '/outside' })), expect: 'PATH_ESCAPES' },
  'rootfs: deeper than any path': { bytes: () => diff(member({ name: 'x', pax: { path: `${'a/'.repeat(2047)}b` } })), expect: 'accepted' },
  'shared memory: a name that leads out': { bytes: () => archive({}, member({ name: 'devshm-checkpoint.tar', body: tar(member({ name: '../x' })) })), expect: 'PATH_ESCAPES' },
  'volumes are not taken over': { bytes: () => archive({}, member({ name: 'volumes/data.tar', body: tar(member({ name: '../../x' })) })), expect: 'accepted', check: ({ notSaved }) => assert.ok(notSaved.some((text) => text.includes('volumes/data.tar'))) },
};

let base: string;
let store: DirectoryStore;
let repository: Repository;
let agent: AgentContext;

before(async () => {
  base = mkdtempSync('/srv/hostile-archives-');
  for (const name of ['outside', 'state', 'staging']) mkdirSync(join(base, name));
  writeFileSync(join(base, 'outside/precious'), 'precious');
  store = await openDirectoryStore(join(base, 'state/repository'));
  repository = await openRepository({ store, keys: await fileKeyProvider(join(base, 'state/key'), { create: true }), clock: systemClock, workers: 2 });
  agent = {
    settings: { nodeName: 'test', version: '0', cipher: 'xchacha20-poly1305' }, clock: systemClock, repository, journal: new Journal(join(base, 'state/journal')),
    staging: { open: async () => area() },
  } as unknown as AgentContext;
});

after(async () => {
  await repository.close();
  await store.close();
  rmSync(base, { recursive: true });
});

/** As the staging area, with room for 64 MiB. */
function area() {
  const path = mkdtempSync(join(base, 'staging/'));
  let left = 64 * 1024 ** 2;
  const require = async (bytes: number): Promise<void> => {
    left -= bytes;
    if (left < 0) throw new StasisError('NO_SPACE', 'the staging area is full');
  };
  return { directory: path, require, [Symbol.asyncDispose]: async () => rmSync(path, { recursive: true }) };
}

async function take(bytes: Buffer | AsyncIterable<Buffer>): Promise<CheckpointReader> {
  async function* parts(whole: Buffer): AsyncGenerator<Buffer> {
    for (let at = 0; at < whole.length; at += 100_000) yield whole.subarray(at, at + 100_000);
  }
  const id = newCheckpointId(Date.now());
  const operation = new Operation({
    id: newOperationId(), kind: 'import', target: id, principal: 'test', reason: '', steps: IMPORT_STEPS, deadlineMs: 60_000, clock: systemClock, failpoints: noFailpoints, changed: () => {},
  });
  await operation.run(() => importCheckpoint(agent, { checkpoint: id, source: '../x.tar', by: 'test', reason: '' }, Buffer.isBuffer(bytes) ? parts(bytes) : bytes, operation));
  return repository.open(id, { signal });
}

/** What an operator would restore into: an image that has a symlink leading out. */
async function bringBack(reader: CheckpointReader): Promise<string> {
  const description = podDescription(reader.summary);
  const saved = description.containers[0]!;
  const root = mkdtempSync(join(base, 'state/root-'));
  symlinkSync('../../outside', join(root, 'evil'));
  await loadImages(reader, saved.images.prefix, join(root, 'images'), { signal });
  if (saved.rootfs.saved) await loadTreeMerged(reader, saved.rootfs.prefix, root, { signal });
  for (const volume of saved.volumes) await loadTree(reader, volume.prefix, mkdtempSync(join(base, 'state/volume-')), { signal });
  return root;
}

/** All around the repository: this directory without what a restore may write, and the configuration of the machine. */
function around(): Map<string, string>[] {
  return [snapshot(join(base, 'outside')), snapshot('/etc'), new Map(readdirSync(base).map((name) => [name, ''])), new Map(readdirSync(join(base, 'staging')).map((name) => [name, ''])), new Map(readdirSync(join(base, 'state/journal')).map((name) => [name, '']))];
}

async function attempt(bytes: Buffer | AsyncIterable<Buffer>): Promise<{ outcome: string; error?: unknown; reader?: CheckpointReader; root?: string }> {
  const code = (error: unknown): string => (isStasisError(error) ? error.code : `${String(error)} ${(error as Error).stack ?? ''}`);
  let reader: CheckpointReader;
  try {
    reader = await take(bytes);
  } catch (error) {
    return { outcome: code(error), error };
  }
  try {
    return { outcome: 'accepted', reader, root: await bringBack(reader) };
  } catch (error) {
    return { outcome: `restore ${code(error)}`, error };
  }
}

void describe('a hostile archive', () => {
  void it('the good one that all others are made from is taken', async () => {
    for (const bytes of [archive(), gzipSync(archive()), zstdCompressSync(archive()), diff(directory('new/'), member({ name: 'new/file', body: 'new', mode: 0o4755 }), member({ name: 'new/link', type: '1', link: 'new/file' }))]) {
      const { outcome, error, reader } = await attempt(bytes);
      assert.equal(outcome, 'accepted', String((error as Error | undefined)?.message));
      const { containers, imported } = podDescription(reader!.summary);
      assert.deepEqual([containers[0]?.name, imported?.engine, imported?.source, imported?.archiveBytes], ['web', 'podman', 'x.tar', bytes.length]);
    }
  });

  for (const [name, { bytes, expect, check }] of Object.entries(cases)) {
    void it(`${name}: ${expect}`, async () => {
      const before = around();
      const { outcome, reader, root, error } = await attempt(bytes());
      assert.equal(outcome, expect, (error as Error | undefined)?.message);
      assert.deepEqual(around(), before);
      if (reader !== undefined) check?.(podDescription(reader.summary), root ?? '');
    });
  }

  void it('10^6 tiny files: refused, in bounded memory', async () => {
    const before = around();
    const entries = 1_000_001;
    async function* flood(): AsyncGenerator<Buffer> {
      const names = Array.from({ length: 500 }, (_, i) => member({ name: `d/${String(i).padStart(20, '0')}`, type: '6' }));
      yield* [...goodMembers().values(), member({ name: 'rootfs-diff.tar', size: base256(0x80, ...[24, 16, 8, 0].map((shift) => ((entries * 512 + 1024) >> shift) & 255)) })];
      for (let i = 0; i < entries; i += names.length) {
        // Each block needs a name and a checksum of its own.
        for (const [j, block] of names.entries()) {
          block.write(String(i + j).padStart(20, '0'), 2, 'latin1');
          block.fill(' ', 148, 156);
          let sum = 0;
          for (const byte of block) sum += byte;
          block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
        }
        yield Buffer.concat(names);
      }
    }
    const { outcome } = await attempt(flood());
    assert.equal(outcome, 'LIMIT_EXCEEDED');
    assert.deepEqual(around(), before);
  });

  void it('whatever is changed in a good archive, it is taken or refused with a reason, and nothing else happens', async () => {
    const before = around();
    const good = archive({}, member({ name: 'rootfs-diff.tar', body: tar(directory('a/'), member({ name: 'a/b', body: 'x', pax: { mtime: '1.5' } }), member({ name: 'a/c', type: '1', link: 'a/b' })) }), json('deleted.files', ['/x/y']));
    await fc.assert(fc.asyncProperty(fc.array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 12 }), fc.nat(good.length), fc.boolean(), async (flips, length, cut) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of flips) bytes[at] = (bytes[at] ?? 0) ^ value;
      const { outcome } = await attempt(cut ? bytes.subarray(0, length) : bytes);
      assert.match(outcome, /^(accepted|(restore )?(ARCHIVE_INVALID|PATH_ESCAPES|LIMIT_EXCEEDED|FORMAT_UNSUPPORTED|NO_SPACE|RESTORE_FAILED))$/);
    }), { numRuns: 150, verbose: true });
    assert.deepEqual(around(), before);
  });
});
