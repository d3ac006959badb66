/**
 * Archives that were made to do harm, after advisories against podman, CRI-O, containerd, runc and moby and after the classes
 * of tricks with tar files.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import type { PodDescription } from '../../src/agent/description.ts';
import { PE_PRESENT } from '../../src/image/criu/pagemap.ts';
import { archive, goodMembers, member, records, tar } from './archives.ts';
import { pagemap } from './criu-images.ts';

export const json = (name: string, value: unknown): Buffer => member({ name, body: JSON.stringify(value) });
const config = (more: object): Buffer => json('config.dump', { id: 'ab'.repeat(32), name: 'web', ...more });
const spec = (more: object): Buffer => json('spec.dump', { process: { args: ['sh'], cwd: '/' }, annotations: { 'io.container.manager': 'libpod' }, ...more });
const deleted = (value: unknown): Buffer => archive({}, json('deleted.files', value));
export const diff = (...members: readonly Buffer[]): Buffer => archive({}, member({ name: 'rootfs-diff.tar', body: tar(...members) }));
const layer = (...members: readonly Buffer[]): Buffer => archive({}, member({ name: 'rootfs-diff.tar', body: gzipSync(tar(...members)) }));
const image = (name: string, body: Uint8Array | string): Record<string, Buffer> => ({ [`checkpoint/${name}`]: member({ name: `checkpoint/${name}`, body }) });
export const directory = (name: string): Buffer => member({ name, type: '5', mode: 0o755 });
/** A number in base 256, as GNU tar writes large ones. */
export const base256 = (head: number, ...rest: readonly number[]): Buffer => Buffer.from([head, ...Array.from({ length: 11 - rest.length }, () => (head === 0xff ? 0xff : 0)), ...rest]);

export interface HostileCase {
  readonly bytes: () => Buffer | AsyncIterable<Buffer>;
  /** The code of the refusal; "restore CODE" when the import takes it and the loader of the tree does not; "accepted". */
  readonly expect: string;
  /** Words of the message: a refusal for another reason proves nothing. */
  readonly because?: string;
  readonly check?: (description: PodDescription, root: string) => void;
}

const absent = (words: string) => (description: PodDescription): void => assert.ok(!JSON.stringify(description).includes(words), `${words} is in the description`);

export const hostileCases: Readonly<Record<string, HostileCase>> = {
  'CVE-2024-8676: mounts of the host in spec.dump': { bytes: () => archive({ 'spec.dump': spec({ mounts: [{ destination: '/host', type: 'bind', source: '/very/secret', options: ['rbind', 'rw'] }] }) }), expect: 'accepted', check: absent('/very/secret') },
  'CVE-2026-53492: CDI annotations that ask for devices': { bytes: () => archive({ 'spec.dump': spec({ annotations: { 'cdi.k8s.io/x': 'vendor.com/device=all', 'io.container.manager': 'libpod' } }) }), expect: 'accepted', check: absent('vendor.com') },
  'CVE-2026-53489: container.log is a symlink': { bytes: () => archive({}, member({ name: 'container.log', type: '2', link: '/etc/shadow' })), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "container.log"' },
  'CVE-2026-53489: ctr.log is a hard link': { bytes: () => archive({}, member({ name: 'ctr.log', type: '1', link: '/etc/shadow' })), expect: 'PATH_ESCAPES', because: 'a member that is a link, not a file: "ctr.log"' },
  'CVE-2026-50195: the name of another image, with control characters': { bytes: () => archive({ 'config.dump': config({ rootfsImageName: 'evil\u001b[2J\u202e', rootfsImageRef: 'evil.example/x' }) }), expect: 'accepted', check: absent('\\u001b') },
  'CVE-2026-53488: labels that become commands': { bytes: () => archive({ 'config.dump': config({ labels: { 'run-on-host': 'rm' } }) }), expect: 'accepted', check: absent('run-on-host') },
  'CVE-2024-8676: hooks, devices, capabilities and namespaces in spec.dump': { bytes: () => archive({ 'spec.dump': spec({ hooks: { prestart: [{ path: '/bin/pwned' }] }, linux: { devices: [{ path: '/dev/pwned' }], namespaces: [{ type: 'pid', path: '/proc/1/ns/pwned' }] } }) }), expect: 'accepted', check: absent('pwned') },
  'org.criu.config in the annotations': { bytes: () => archive({ 'spec.dump': spec({ annotations: { 'org.criu.config': '/tmp/criu.conf' } }) }), expect: 'accepted', check: absent('criu.conf') },
  'CVE-2026-55686: a working directory that leads out': { bytes: () => archive({ 'spec.dump': spec({ process: { cwd: '/../../x', args: [] } }) }), expect: 'accepted' },
  'runc CVE-2024-21626: a working directory in a leaked descriptor': { bytes: () => archive({ 'spec.dump': spec({ process: { cwd: '/proc/self/fd/8', args: [] } }) }), expect: 'accepted' },
  'moby 28769: a name that is a path': { bytes: () => archive({ 'config.dump': config({ name: '../../escaped' }) }), expect: 'accepted' },
  'moby 28769: an id that is a path': { bytes: () => archive({ 'config.dump': config({ id: '../../../escaped' }) }), expect: 'accepted', check: ({ containers }) => assert.match(containers[0]?.id ?? '', /^imported-/) },
  'podman 27977: deleted.files leads out': { bytes: () => deleted(['../../../outside/precious']), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../../../outside/precious"' },
  'podman 27977: deleted.files leads out in its middle': { bytes: () => deleted(['/etc/../../outside/precious']), expect: 'PATH_ESCAPES', because: 'a name that leads out: "/etc/../../outside/precious"' },
  'podman 27977: deleted.files deletes the root': { bytes: () => deleted(['/']), expect: 'PATH_ESCAPES', because: 'the deletion of the root: "/"' },
  'podman 27977: deleted.files deletes through a symlink of the archive': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', body: tar(member({ name: 'way', type: '2', link: '../outside' })) }), json('deleted.files', ['/way/precious'])), expect: 'PATH_ESCAPES', because: 'a path through what is no directory: "way/precious"' },
  'podman 27977: deleted.files deletes through a symlink of the image': { bytes: () => deleted(['/evil/precious']), expect: 'restore RESTORE_FAILED', because: '"evil" is no directory here, and the archive has files below' },
  'deleted.files deletes the symlink of the image itself': { bytes: () => deleted(['/evil']), expect: 'accepted' },
  'deleted.files is no list': { bytes: () => deleted({ '/x': 1 }), expect: 'ARCHIVE_INVALID', because: 'deleted.files of the archive is no list of paths' },
  'deleted.files has numbers': { bytes: () => deleted([1, 2]), expect: 'ARCHIVE_INVALID', because: 'deleted.files of the archive is no list of paths' },
  'deleted.files has a NUL': { bytes: () => deleted(['/a\0/../b']), expect: 'PATH_ESCAPES', because: 'a name with a NUL: "/a\\u0000/../b"' },
  'deleted.files deletes what the archive has': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', body: tar(member({ name: 'a' })) }), json('deleted.files', ['/a'])), expect: 'ARCHIVE_INVALID', because: '"/a", and says that it was deleted' },
  'containerd 13947: an image file above its directory': { bytes: () => archive({}, member({ name: 'checkpoint/../../x' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "checkpoint/../../x"' },
  'an image file deeper than its directory': { bytes: () => archive({}, member({ name: 'checkpoint/sub/x.img' })), expect: 'PATH_ESCAPES', because: 'an image file that is not in the directory of images: "check' },
  'an image file that is hidden': { bytes: () => archive({}, member({ name: 'checkpoint/.x' })), expect: 'PATH_ESCAPES', because: '".x" is not the name of an image file' },
  'an image file with the mark of right-to-left': { bytes: () => archive({}, member({ name: 'checkpoint/a\u202eb' })), expect: 'PATH_ESCAPES', because: 'an image file of an impossible name: "a' },
  'an image file that is a symlink': { bytes: () => archive({ 'checkpoint/pages-1.img': member({ name: 'checkpoint/pages-1.img', type: '2', link: '/dev/sda' }) }), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "checkpoint/pages-1.' },
  'CVE-2026-53489: a link to parent images': { bytes: () => archive({}, member({ name: 'checkpoint/parent', type: '2', link: '../../..' })), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "checkpoint/parent"' },
  'ai-dynamo 61: the directory of images is a symlink': { bytes: () => tar(member({ name: 'checkpoint', type: '2', link: '/outside' }), ...goodMembers().values()), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "checkpoint"' },
  'determined-ai 10269: a symlink and a file through it': { bytes: () => tar(member({ name: 'artifacts', type: '2', link: '/outside' }), member({ name: 'artifacts/x', body: 'x' })), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "artifacts"' },
  'an absolute name': { bytes: () => archive({}, member({ name: '/outside/x' })), expect: 'PATH_ESCAPES', because: 'an absolute name: "/outside/x"' },
  'a name that is the parent': { bytes: () => archive({}, member({ name: '..' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: ".."' },
  'a name that leads out after a dot': { bytes: () => archive({}, member({ name: './../x' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "./../x"' },
  'config.dump is a symlink': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', type: '2', link: '/etc/passwd' }) }), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "config.dump"' },
  'config.dump is a device': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', type: '3', device: [1, 5] }) }), expect: 'PATH_ESCAPES', because: 'a member that is a character-device, not a file: "config.dum' },
  'spec.dump is a fifo': { bytes: () => archive({ 'spec.dump': member({ name: 'spec.dump', type: '6' }) }), expect: 'PATH_ESCAPES', because: 'a member that is a fifo, not a file: "spec.dump"' },
  'pages are a block device': { bytes: () => archive({ 'checkpoint/pages-1.img': member({ name: 'checkpoint/pages-1.img', type: '4', device: [8, 0] }) }), expect: 'PATH_ESCAPES', because: 'a member that is a block-device, not a file: "checkpoint/pag' },
  'config.dump is a directory': { bytes: () => archive({ 'config.dump': directory('config.dump') }), expect: 'ARCHIVE_INVALID', because: 'no config.dump' },
  'config.dump twice': { bytes: () => archive({}, config({})), expect: 'ARCHIVE_INVALID', because: '"config.dump" twice' },
  'config.dump twice, once with a dot': { bytes: () => archive({}, json('./config.dump', {})), expect: 'ARCHIVE_INVALID', because: '"config.dump" twice' },
  'an image twice': { bytes: () => archive({}, member({ name: 'checkpoint/inventory.img' })), expect: 'ARCHIVE_INVALID', because: '"checkpoint/inventory.img" twice' },
  'config.dump is not JSON': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: '{' }) }), expect: 'ARCHIVE_INVALID', because: 'config.dump of the archive is not JSON: Expected property na' },
  'config.dump is a list': { bytes: () => archive({ 'config.dump': json('config.dump', []) }), expect: 'ARCHIVE_INVALID', because: 'config.dump of the archive is no JSON object' },
  'config.dump is huge': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: Buffer.alloc(9 * 1024 ** 2, ' ') }) }), expect: 'LIMIT_EXCEEDED', because: 'config.dump of the archive has 9437184 bytes, at most 838860' },
  'config.dump says that it has 2^62 bytes': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', size: base256(0x80, 0x40, 0, 0, 0, 0, 0, 0, 0) }) }), expect: 'LIMIT_EXCEEDED', because: '"config.dump" of the archive has 4611686018427388000 bytes' },
  'config.dump is deep': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: '['.repeat(100_000) }) }), expect: 'LIMIT_EXCEEDED', because: 'config.dump of the archive is nested more than 64 levels dee' },
  'config.dump sets a prototype': { bytes: () => archive({ 'config.dump': member({ name: 'config.dump', body: '{"__proto__":{"polluted":1},"id":{"x":1},"name":7}' }) }), expect: 'accepted', check: () => assert.equal(({} as { polluted?: number }).polluted, undefined) },
  'spec.dump has mounts that are none': { bytes: () => archive({ 'spec.dump': spec({ mounts: { destination: 1 } }) }), expect: 'ARCHIVE_INVALID', because: 'spec.dump of the archive mounts has the wrong type' },
  'spec.dump is a text': { bytes: () => archive({ 'spec.dump': json('spec.dump', 'text') }), expect: 'ARCHIVE_INVALID', because: 'spec.dump of the archive is not a JSON object' },
  'no config.dump': { bytes: () => archive({ 'config.dump': undefined }), expect: 'ARCHIVE_INVALID', because: 'no config.dump' },
  'no spec.dump': { bytes: () => archive({ 'spec.dump': undefined }), expect: 'ARCHIVE_INVALID', because: 'no spec.dump' },
  'no inventory': { bytes: () => archive({ 'checkpoint/inventory.img': undefined }), expect: 'ARCHIVE_INVALID', because: 'no checkpoint/inventory.img' },
  'an inventory with a wrong magic': { bytes: () => archive(image('inventory.img', Buffer.alloc(64, 7))), expect: 'ARCHIVE_INVALID', because: 'inventory.img is not a CRIU inventory image: magic 0x7070707' },
  'an inventory that is empty': { bytes: () => archive(image('inventory.img', '')), expect: 'ARCHIVE_INVALID', because: 'inventory.img is shorter than the header of a CRIU image' },
  'no process': { bytes: () => archive({ 'checkpoint/pstree.img': undefined }), expect: 'ARCHIVE_INVALID', because: 'the images in the archive hold no process' },
  'more pages in the pagemap than there are': { bytes: () => archive(image('pages-1.img', Buffer.alloc(4096))), expect: 'ARCHIVE_INVALID', because: 'pages-1.img has 4096 bytes, pagemap-1.img speaks of 2 pages:' },
  'a pagemap that stops in the middle': { bytes: () => archive(image('pagemap-1.img', pagemap(1, [{ address: 0x10000, pages: 2, flags: PE_PRESENT }]).subarray(0, -1))), expect: 'ARCHIVE_INVALID', because: 'pagemap-1.img ends in the middle of a message' },
  'a pagemap with a message of 4 GiB': { bytes: () => archive(image('pagemap-1.img', Buffer.from('1943565425400856ffffffff', 'hex'))), expect: 'LIMIT_EXCEEDED', because: 'pagemap-1.img has a message of 4294967295 bytes; at most 671' },
  'cut off in a body': { bytes: () => archive().subarray(0, 2000), expect: 'ARCHIVE_INVALID', because: 'Unexpected end of data' },
  'cut off in a header': { bytes: () => archive().subarray(0, 1300), expect: 'ARCHIVE_INVALID', because: 'Unexpected end of data' },
  'nothing at all': { bytes: () => Buffer.alloc(0), expect: 'ARCHIVE_INVALID', because: 'the archive is empty' },
  'only zeros': { bytes: () => Buffer.alloc(10_240), expect: 'ARCHIVE_INVALID', because: 'no config.dump' },
  'not a tar file': { bytes: () => Buffer.alloc(10_240, 'no'), expect: 'ARCHIVE_INVALID', because: 'Invalid tar header. Maybe the tar is corrupted or it needs t' },
  'gzip that is cut off': { bytes: () => gzipSync(archive()).subarray(0, 700), expect: 'ARCHIVE_INVALID', because: 'the archive is compressed, and damaged: unexpected end of fi' },
  'gzip with a wrong checksum': { bytes: () => Buffer.concat([gzipSync(archive()).subarray(0, -8), Buffer.alloc(8)]), expect: 'ARCHIVE_INVALID', because: 'the archive is compressed, and damaged: incorrect data check' },
  'zstd that is cut off': { bytes: () => zstdCompressSync(archive()).subarray(0, 700), expect: 'ARCHIVE_INVALID', because: 'the archive is compressed, and damaged: unexpected end of fi' },
  'CVE-2025-0426: a gzip bomb as a document': { bytes: () => gzipSync(tar(member({ name: 'config.dump', body: Buffer.alloc(256 * 1024 ** 2) }))), expect: 'LIMIT_EXCEEDED', because: 'config.dump of the archive has 268435456 bytes, at most 8388' },
  'CVE-2025-0426: a zstd bomb as pages': { bytes: () => zstdCompressSync(Buffer.concat([member({ name: 'checkpoint/pages-9.img', size: 2 ** 32 }), Buffer.alloc(1024 ** 2)])), expect: 'NO_SPACE', because: 'the staging area is full' },
  'CVE-2025-0426: a bomb within a bomb': { bytes: () => gzipSync(archive({}, member({ name: 'rootfs-diff.tar', body: gzipSync(tar(member({ name: 'zeros', body: Buffer.alloc(64 * 1024 ** 2) }))) }))), expect: 'accepted' },
  'an image instead of an archive': { bytes: () => tar(json('oci-layout', { imageLayoutVersion: '1.0.0' }), json('index.json', {})), expect: 'FORMAT_UNSUPPORTED', because: 'this is an image, not an archive' },
  'compressed with xz': { bytes: () => Buffer.from('fd377a585a000004', 'hex'), expect: 'FORMAT_UNSUPPORTED', because: 'the archive is compressed with bzip2 or xz' },
  'a negative size': { bytes: () => archive({}, member({ name: 'x', size: base256(0xff, 0) })), expect: 'ARCHIVE_INVALID', because: 'Invalid header' },
  'a size that is no number': { bytes: () => archive({}, member({ name: 'x', pax: { size: 'many' } })), expect: 'ARCHIVE_INVALID', because: 'Invalid header' },
  'a size of three hundred digits': { bytes: () => archive({}, member({ name: 'x', pax: { size: '9'.repeat(300) } })), expect: 'LIMIT_EXCEEDED', because: '"x" of the archive has 1e+300 bytes' },
  'a pax header of 5 MiB': { bytes: () => archive({}, member({ name: 'x', pax: { comment: 'x'.repeat(5 * 1024 ** 2) } })), expect: 'ARCHIVE_INVALID', because: 'Header exceeds max size' },
  'a pax path that leads out': { bytes: () => archive({}, member({ name: 'config', pax: { path: '../../outside/x' } })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../../outside/x"' },
  'a pax path with a NUL': { bytes: () => archive({}, member({ name: 'x', pax: { path: 'a\0b' } })), expect: 'PATH_ESCAPES', because: 'a name with a NUL: "a\\u0000b"' },
  'a pax path that is not UTF-8': { bytes: () => archive({}, member({ name: 'x', pax: { path: Buffer.from([0x61, 0xff]) } })), expect: 'FORMAT_UNSUPPORTED', because: 'a name that is not UTF-8: "a' },
  'a global pax path that leads out': { bytes: () => archive({}, member({ name: 'g', type: 'g', body: records({ path: '../x' }) }), member({ name: 'y', pax: { mtime: '1' } })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../x"' },
  'a long name of GNU that leads out': { bytes: () => archive({}, member({ name: '././@LongLink', type: 'L', body: `${'../'.repeat(60)}x\0` }), member({ name: 'x' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../../../../../../../../../../../../' },
  'a sparse file of GNU': { bytes: () => archive({}, member({ name: 'x', type: 'S' })), expect: 'PATH_ESCAPES', because: 'a member that is a thing of an unknown kind, not a file: "x"' },
  'a sparse file of pax under another name': { bytes: () => archive({ 'config.dump': member({ name: 'GNUSparseFile.0/config.dump', pax: { 'GNU.sparse.major': '1', 'GNU.sparse.name': 'config.dump' } }) }), expect: 'ARCHIVE_INVALID', because: 'no config.dump' },
  'a wrong checksum of a header': { bytes: () => archive({}, member({ name: 'x', checksum: 1 })), expect: 'ARCHIVE_INVALID', because: 'Invalid tar header. Maybe the tar is corrupted or it needs t' },
  'a header of no known format': { bytes: () => archive({}, member({ name: 'x', magic: 'hello000' })), expect: 'ARCHIVE_INVALID', because: 'Invalid tar header: unknown format.' },
  'a name of 5,000 bytes': { bytes: () => archive({}, member({ name: 'x', pax: { path: 'a/'.repeat(2500) } })), expect: 'LIMIT_EXCEEDED', because: 'a name in the archive has 5000 bytes, at most 4096 are possi' },
  'a component of 300 bytes': { bytes: () => archive({}, member({ name: 'x', pax: { path: 'a'.repeat(300) } })), expect: 'LIMIT_EXCEEDED', because: 'a name in the archive is longer than 255 bytes: "aaaaaaaaaaa' },

  'rootfs: a name that leads out': { bytes: () => diff(member({ name: '../outside/x' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../outside/x"' },
  'rootfs: an absolute name': { bytes: () => diff(member({ name: '/outside/x' })), expect: 'PATH_ESCAPES', because: 'an absolute name: "/outside/x"' },
  'determined-ai 10269: rootfs: a symlink, then a file through it': { bytes: () => diff(member({ name: 'way', type: '2', link: '../outside' }), member({ name: 'way/x', body: 'x' })), expect: 'PATH_ESCAPES', because: 'a path through what is no directory: "way/x"' },
  'determined-ai 10269: rootfs: a symlink, then a directory of its name': { bytes: () => diff(member({ name: 'way', type: '2', link: '../outside' }), directory('way/')), expect: 'ARCHIVE_INVALID', because: '"way" twice' },
  'determined-ai 10269: rootfs: a file through a symlink of the image': { bytes: () => diff(member({ name: 'evil/x', body: 'x' })), expect: 'restore RESTORE_FAILED', because: '"evil" is no directory here, and the archive has files below' },
  'rootfs: a directory in the place of a symlink of the image': { bytes: () => diff(directory('evil/'), member({ name: 'evil/x', body: 'x' })), expect: 'accepted' },
  'rootfs: a symlink out, which nobody follows': { bytes: () => diff(member({ name: 'way', type: '2', link: '/outside/precious' })), expect: 'accepted' },
  'podman 27977: rootfs: a hard link out': { bytes: () => diff(member({ name: 'a', type: '1', link: '../outside/precious' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../outside/precious"' },
  'rootfs: a hard link to an absolute path': { bytes: () => diff(member({ name: 'a', type: '1', link: '/outside/precious' })), expect: 'PATH_ESCAPES', because: 'an absolute name: "/outside/precious"' },
  'rootfs: a hard link to what is not in the archive': { bytes: () => diff(member({ name: 'a', type: '1', link: 'evil/precious' })), expect: 'PATH_ESCAPES', because: 'a hard link to what it does not hold: "a -> evil/precious"' },
  'rootfs: a hard link to a directory': { bytes: () => diff(directory('d/'), member({ name: 'a', type: '1', link: 'd' })), expect: 'PATH_ESCAPES', because: 'a hard link to what it does not hold: "a -> d"' },
  'rootfs: a hard link through a symlink': { bytes: () => diff(member({ name: 'way', type: '2', link: '../outside' }), member({ name: 'a', type: '1', link: 'way/precious' })), expect: 'PATH_ESCAPES', because: 'a hard link to what it does not hold: "a -> way/precious"' },
  'rootfs: devices are left out': { bytes: () => diff(member({ name: 'disk', type: '4', device: [8, 0] }), member({ name: 'mem', type: '3', device: [1, 1] })), expect: 'accepted', check: (_, root) => assert.ok(!readdirSync(root).some((name) => name === 'disk' || name === 'mem')) },
  'rootfs: the device 0:0, which deletes': { bytes: () => diff(member({ name: 'a', type: '3', device: [0, 0] })), expect: 'ARCHIVE_INVALID', because: 'the device 0:0, which an overlay would take for a deletion' },
  'rootfs: a file twice': { bytes: () => diff(member({ name: 'a' }), member({ name: './a' })), expect: 'ARCHIVE_INVALID', because: '"a" twice' },
  'rootfs: marks of overlayfs and of ours': { bytes: () => diff(member({ name: 'a/', type: '5', pax: { 'SCHILY.xattr.trusted.overlay.redirect': '/outside', 'SCHILY.xattr.trusted.stasis.implicit': 'y', 'SCHILY.xattr.user.kept': 'y' } })), expect: 'accepted', check: absent('/outside') },
  'rootfs: the owner -1': { bytes: () => diff(member({ name: 'a', pax: { uid: '4294967295' } })), expect: 'ARCHIVE_INVALID', because: 'an owner that is no id: "4294967295"' },
  'rootfs: a time that is none': { bytes: () => diff(member({ name: 'a', mtime: base256(0x80, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) })), expect: 'ARCHIVE_INVALID', because: 'a file with an impossible time' },
  'rootfs: a sparse file': { bytes: () => diff(member({ name: 'a', type: 'S' })), expect: 'FORMAT_UNSUPPORTED', because: '"a", of a kind that is not known (sparse files are not read)' },
  'rootfs: the root is a symlink': { bytes: () => diff(member({ name: './', type: '2', link: '/outside' })), expect: 'ARCHIVE_INVALID', because: 'the root of a tar file is no directory' },
  'rootfs: a whiteout of the parent': { bytes: () => layer(member({ name: '.wh...' })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "/.."' },
  'rootfs: a whiteout through a symlink of the image': { bytes: () => layer(member({ name: 'evil/.wh.precious' })), expect: 'restore RESTORE_FAILED', because: '"evil" is no directory here, and the archive has files below' },
  'rootfs: an opaque mark through a symlink of the image': { bytes: () => layer(member({ name: 'evil/.wh..wh..opq' })), expect: 'restore RESTORE_FAILED', because: '"evil" is no directory here, and the archive has files below' },
  'rootfs: cut off': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', body: tar(member({ name: 'a', body: 'x'.repeat(5000) })).subarray(0, 3000) })), expect: 'ARCHIVE_INVALID', because: 'rootfs-diff.tar is no tar file, or is damaged: Unexpected en' },
  'rootfs: is a symlink': { bytes: () => archive({}, member({ name: 'rootfs-diff.tar', type: '2', link: '/outside' })), expect: 'PATH_ESCAPES', because: 'a member that is a symlink, not a file: "rootfs-diff.tar"' },
  'rootfs: deeper than any path': { bytes: () => diff(member({ name: 'x', pax: { path: `${'a/'.repeat(2047)}b` } })), expect: 'accepted' },
  'shared memory: a name that leads out': { bytes: () => archive({}, member({ name: 'devshm-checkpoint.tar', body: tar(member({ name: '../x' })) })), expect: 'PATH_ESCAPES', because: 'a name that leads out: "../x"' },
  'volumes are not taken over': { bytes: () => archive({}, member({ name: 'volumes/data.tar', body: tar(member({ name: '../../x' })) })), expect: 'accepted', check: ({ notSaved }) => assert.ok(notSaved.some((text) => text.includes('volumes/data.tar'))) },
};
