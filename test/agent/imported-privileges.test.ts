/**
 * Images of a real container with one thing changed, imported and restored into a bundle that grants what the container
 * had: whatever is more than that is refused before the runtime is asked, and for that reason.
 */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { isStasisError } from '../../src/core/errors.ts';
import { imageHeader } from '../../src/image/criu/framing.ts';
import { assertClean, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { member, tar } from '../support/archives.ts';
import { archiveOf, IMAGE_DIRECTORY, imported, makeBundle, makeImage as makePodmanImage, pidOf, removeImage, run, start, withSpec, type Json } from '../support/podman.ts';
import { snapshot } from '../support/tree-snapshot.ts';
import { decode, editImage, encode, makeImage, set, text, within, type Field } from '../support/wire-edit.ts';

const NAME = 'of-a-stranger';
const BASE = '/srv/stranger';
let home: AgentHome;
let agent: TestAgent;
let bundle: { directory: string; remove: () => void };
/** The archive as podman wrote it, unpacked. */
let genuine: string;

before(async () => {
  mkdirSync(join(BASE, 'outside'), { recursive: true });
  writeFileSync(join(BASE, 'outside/precious'), 'precious');
  home = makeHome();
  agent = await startAgent(home);
  makePodmanImage();
  // Says so as soon as it cannot make directories any more.
  const id = start(NAME, 'i=0; while :; do i=$((i+1)); mkdir /d$i && rm -d /d$i || : > /tmp-denied; sleep 0.2; done');
  for (let tries = 0; tries < 100 && pidOf(NAME) === 0; tries++) run('sleep', '0.05');
  bundle = makeBundle(id, join(BASE, 'bundle'));
  archiveOf(NAME, join(BASE, 'genuine.tar'), 'none');
  genuine = join(BASE, 'genuine');
  mkdirSync(genuine);
  run('tar', '--extract', '--directory', genuine, '--file', join(BASE, 'genuine.tar'));
});

after(async () => {
  await removeImage();
  await agent?.stop();
  bundle?.remove();
  await removeHome(home);
  rmSync(BASE, { recursive: true, force: true });
});

interface Attack {
  /** Changes files in the directory of an unpacked archive; the second argument is its directory of images. */
  readonly change: (archive: string, images: string) => void;
  readonly code?: string;
  readonly reason: RegExp;
  readonly bundle?: (spec: Json) => void;
}

const first = (images: string, pattern: RegExp): string => join(images, readdirSync(images).find((name) => pattern.test(name)) ?? 'missing');
const core = (images: string, change: (thread: Field[], message: Field[]) => void): void => editImage(join(images, 'core-1.img'), ([message = []]) => within(message, 5, (thread) => change(thread, message)));
const credentials = (change: (creds: Field[]) => void) => (_: string, images: string): void => core(images, (thread) => within(thread, 10, change));
const task = (change: (fields: Field[]) => void) => (_: string, images: string): void => editImage(join(images, 'core-1.img'), ([message = []]) => within(message, 3, change));
const mounts = (change: (messages: Field[][], at: (mountpoint: string) => Field[]) => void) => (_: string, images: string): void => editImage(first(images, /^mountpoints-/), (messages) => change(messages, (mountpoint) => {
  const found = messages.find((message) => message.some(([field, value]) => field === 7 && value.toString() === mountpoint));
  assert.ok(found, `${mountpoint} is mounted`);
  return found;
}));
const value = (message: readonly Field[], field: number): bigint => message.find(([number]) => number === field)?.[1] as bigint;
/** A namespace of the first process is the one of CRIU. */
const sharing = (field: number) => (_: string, images: string): void => {
  let outer = 0n;
  editImage(join(images, 'inventory.img'), ([message = []]) => { outer = value(decode(message.find(([number]) => number === 3)?.[1] as Buffer), field); });
  editImage(join(images, 'ids-1.img'), ([message = []]) => set(message, field, outer));
};
/** A filter of these instructions instead of the one of the first process. */
const filter = (...instructions: readonly (readonly [code: number, yes: number, no: number, k: number])[]) => (_: string, images: string): void => {
  const program = Buffer.alloc(8 * instructions.length);
  instructions.forEach(([code, yes, no, k], i) => {
    program.writeUInt16LE(code, i * 8);
    program.set([yes, no], i * 8 + 2);
    program.writeUInt32LE(k, i * 8 + 4);
  });
  editImage(join(images, 'seccomp.img'), ([message = []]) => message.forEach(([, old], i) => {
    const fields = decode(old as Buffer);
    set(fields, 1, program);
    message[i] = [1, encode(fields)];
  }));
};
const ALLOW = 0x7fff0000;
const unpacked = (...members: readonly Buffer[]) => (_: string, images: string): void => writeFileSync(join(images, 'tmpfs-dev-999.tar.gz.img'), gzipSync(tar(...members)));
const nodes = (...members: readonly Buffer[]) => (archive: string): void => writeFileSync(join(archive, 'rootfs-diff.tar'), tar(...members));
const add = (name: string, bytes: Buffer) => (_: string, images: string): void => writeFileSync(join(images, name), bytes);
const fown = encode([[1, 0n], [2, 0n], [3, 0n], [4, 0n], [5, 0n]]);
/** An open file more, as descriptor 9 of the first process. */
const file = (type: bigint, field: number, description: readonly Field[]) => (_: string, images: string): void => {
  editImage(join(images, 'files.img'), (messages) => messages.push([[1, type], [2, 0x77n], [field, encode(description)]]));
  const [first_ = ''] = readdirSync(images).filter((name) => name.startsWith('fdinfo-')).toSorted();
  editImage(join(images, first_), (messages) => messages.push([[1, 0x77n], [2, 0n], [3, type], [4, 9n]]));
};
const regular = (name: string, flags = 0n, mountpoint = '/') => (archive: string, images: string): void => {
  let mount = 0n;
  mounts((_, at) => { mount = value(at(mountpoint), 2); })(archive, images);
  file(1n, 3, [[1, 0x77n], [2, flags], [3, 0n], [5, fown], [6, text(name)], [7, mount * 2n]])(archive, images);
};
const packet = encode([[1, 212_992n], [2, 212_992n], [3, 0n], [4, 0n], [5, 0n], [6, 0n]]);

const user = (spec: Json): void => {
  spec['process'].user = { uid: 1000, gid: 1000 };
  for (const set_ of Object.keys(spec['process'].capabilities)) spec['process'].capabilities[set_] = spec['process'].capabilities[set_].filter((name: string) => !/SET[UG]ID/.test(name));
};

const attacks: Record<string, Attack> = {
  'CVE-2024-8676: a capability that the bundle does not give': { change: credentials((creds) => set(creds, 11, 1n << 21n, 0n)), reason: /core-1\.img has CAP_SYS_ADMIN/ },
  'a capability without a name': { change: credentials((creds) => set(creds, 19, 0n, 1n << 31n)), reason: /capabilities without a name/ },
  'a bounding set without bounds': { change: credentials((creds) => set(creds, 12, 0xffffffffn, 0x1ffn)), reason: /core-1\.img has CAP_/ },
  'credentials twice, the second without capabilities': { change: (_, images) => core(images, (thread) => thread.push([10, encode([[1, 0n], [2, 0n], [3, 0n], [4, 0n], [5, 0n], [6, 0n], [7, 0n], [8, 0n], [13, 0n]])])), code: 'ARCHIVE_INVALID', reason: /core-1\.img has field 10 twice/ },
  'a thread twice': { change: (_, images) => editImage(join(images, 'core-1.img'), ([message = []]) => message.push([5, Buffer.alloc(0)])), code: 'ARCHIVE_INVALID', reason: /field 5 twice/ },
  'a second message behind the first': { change: (_, images) => editImage(join(images, 'core-1.img'), (messages) => messages.push(messages[0] ?? [])), code: 'ARCHIVE_INVALID', reason: /core-1\.img has 2 messages instead of one/ },
  'root, where the bundle has a user': { change: () => {}, bundle: user, reason: /is user 0, the bundle's is 1000/ },
  'the group of root, where the bundle has a user': { change: credentials((creds) => { for (const field of [1, 3, 5, 7]) set(creds, field, 1000n); }), bundle: user, reason: /is in group 0/ },
  'no profile, where the bundle has one': { change: () => {}, bundle: ({ process: program }) => { program.apparmorProfile = 'strict'; }, reason: /runs as "", the bundle says "strict"/ },
  'another label than the bundle\'s': { change: credentials((creds) => set(creds, 15, text('unconfined_u:unconfined_r:spc_t:s0'))), bundle: ({ process: program }) => { program.selinuxLabel = 'system_u:system_r:container_t:s0:c1,c2'; }, reason: /runs as "unconfined_u/ },
  'a profile that CRIU would load': { change: add('apparmor.img', Buffer.alloc(8)), code: 'ARCHIVE_INVALID', reason: /apparmor\.img is an image that containers do not need/ },
  'a privilege that can be gained': { change: () => {}, bundle: ({ process: program }) => { program.noNewPrivileges = true; }, reason: /core-1\.img may gain privileges/ },
  'new privileges forbidden with a number of more than 32 bits': { change: credentials((creds) => set(creds, 18, 1n << 32n)), bundle: ({ process: program }) => { program.noNewPrivileges = true; }, code: 'ARCHIVE_INVALID', reason: /field 18 with more than 32 bits/ },
  'no seccomp filter': { change: (_, images) => core(images, (thread) => set(thread, 11, 0n)), reason: /core-1\.img has no seccomp filter/ },
  'a seccomp filter that is not there': { change: (_, images) => core(images, (thread) => set(thread, 12, 77n)), code: 'OBJECT_CORRUPT', reason: /no filter 77/ },
  'a limit that is higher': { change: task((fields) => within(fields, 8, (limits) => { limits[7] = [1, encode([[1, 2n ** 64n - 1n], [2, 2n ** 64n - 1n]])]; })), reason: /has a RLIMIT_NOFILE of unlimited/ },
  'a process that is never killed for want of memory': { change: task((fields) => set(fields, 14, 2n ** 64n - 1000n)), bundle: ({ process: program }) => { program.oomScoreAdj = 0; }, reason: /OOM score of -1000/ },
  'a real-time scheduler': { change: (_, images) => core(images, (thread) => { set(thread, 4, 1n); set(thread, 5, 99n); }), reason: /a real-time scheduler/ },
  'a nice value below zero': { change: (_, images) => core(images, (thread) => set(thread, 3, 39n)), reason: /nice -20/ },

  'runc CVE-2024-21626: the processes of the node': { change: sharing(5), reason: /no pid namespace/ },
  'the files of the node': { change: (archive, images) => {
    const old = String(value(decode(readFileSync(join(images, 'ids-1.img')).subarray(12)), 9));
    sharing(9)(archive, images);
    const outer = String(value(decode(readFileSync(join(images, 'ids-1.img')).subarray(12)), 9));
    // Other processes are still in the old one.
    cpSync(join(images, `mountpoints-${old}.img`), join(images, `mountpoints-${outer}.img`));
  }, reason: /no mount namespace/ },
  'a mount namespace without mounts': { change: (_, images) => rmSync(first(images, /^mountpoints-/)), code: 'OBJECT_CORRUPT', reason: /is in mount \d+, which is not in the images/ },
  'the network of the node': { change: sharing(6), reason: /no network namespace/ },
  'shared memory of the node': { change: sharing(7), reason: /no ipc namespace/ },
  'the name of the node': { change: sharing(8), reason: /no uts namespace/ },
  'no namespaces at all: the file is missing': { change: (_, images) => rmSync(join(images, 'ids-1.img')), code: 'OBJECT_CORRUPT', reason: /no ids-1\.img/ },
  'no namespaces at all: the file has another name': { change: (_, images) => renameSync(join(images, 'ids-1.img'), join(images, 'ids-999.img')), code: 'OBJECT_CORRUPT', reason: /no ids-1\.img/ },
  'namespaces twice': { change: (_, images) => editImage(join(images, 'ids-1.img'), (messages) => messages.push(messages[0] ?? [])), code: 'ARCHIVE_INVALID', reason: /more than one message/ },
  'a namespace with a number of more than 32 bits': { change: (_, images) => editImage(join(images, 'ids-1.img'), ([message = []]) => set(message, 5, (1n << 32n) + 1n)), code: 'ARCHIVE_INVALID', reason: /more than 32 bits/ },
  'an inventory without the namespaces of CRIU': { change: (_, images) => editImage(join(images, 'inventory.img'), ([message = []]) => set(message, 3)), code: 'OBJECT_CORRUPT', reason: /inventory\.img has no root_ids/ },
  'a thread without credentials': { change: (_, images) => editImage(join(images, 'pstree.img'), ([message = []]) => message.push([5, 77n])), code: 'OBJECT_CORRUPT', reason: /no core-77\.img/ },
  'a process whose first thread is another': { change: (_, images) => editImage(join(images, 'pstree.img'), ([message = []]) => set(message, 5, 8n)), code: 'OBJECT_CORRUPT', reason: /first thread is 8/ },
  'a user namespace that the bundle does not have': { change: (archive, images) => { editImage(join(images, 'ids-1.img'), ([message = []]) => set(message, 10, 77n)); for (const name of readdirSync(images).filter((file) => /^ids-(?!1\.)/.test(file))) editImage(join(images, name), ([message = []]) => set(message, 10, 77n)); add('userns-77.img', makeImage(Buffer.from(imageHeader('userns')), [[1, encode([[1, 0n], [2, 0n], [3, 2n ** 32n - 1n]])]]))(archive, images); }, reason: /a user namespace of their own/ },
  'root of the node in a user namespace': { change: add('userns-77.img', makeImage(Buffer.from(imageHeader('userns')), [[1, encode([[1, 0n], [2, 0n], [3, 65_536n]])]])), bundle: ({ linux }) => { linux.uidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }]; }, reason: /maps 65536 ids from 0 to 0 of the node/ },
  'a network device': { change: add('netdev-10.img', makeImage(Buffer.from(imageHeader('netdev')), [[1, 2n], [2, 7n], [3, 1500n], [4, 0n], [5, text('eth7')]])), reason: /network device "eth7"/ },

  'CVE-2024-8676: a mount of a disk': { change: mounts((messages, at) => messages.push([[1, 16n], [2, 999n], [3, 5n], [4, value(at('/'), 2)], [5, 0n], [6, text('/')], [7, text('/disk')], [8, text('/dev/vda')], [9, text('')], [14, text('ext4')]])), code: 'ARCHIVE_INVALID', reason: /has field 14 in mount, which no container needs/ },
  'a mount by a plugin': { change: mounts((_, at) => set(at('/dev'), 12, 1n)), code: 'OBJECT_CORRUPT', reason: /"\/dev" is mounted by a plugin/ },
  'runc CVE-2025-31133: a masked file that is not masked': { change: mounts((_, at) => { const keys = at('/proc/keys'); set(keys, 1, 1n); set(keys, 6, text('/keys')); set(keys, 18); }), reason: /\/proc\/keys is not masked/ },
  'a masked file that is missing': { change: mounts((messages, at) => void messages.splice(messages.indexOf(at('/proc/keys')), 1)), reason: /\/proc\/keys is not masked/ },
  'a mask below what it shall mask': { change: mounts((_, at) => set(at('/proc/keys'), 4, value(at('/'), 2))), reason: /"\/proc\/keys" is not mounted in "\/proc"/ },
  'a second /proc over the first': { change: mounts((messages, at) => { const again = at('/proc').map(([number, old]): Field => [number, old]); set(again, 2, 998n); set(again, 4, value(at('/proc'), 2)); messages.push(again); }), reason: /mounts twice at "\/proc"/ },
  'runc CVE-2025-52881: a writable /proc/sys': { change: mounts((_, at) => set(at('/proc/sys'), 5, value(at('/proc/sys'), 5) & ~1n)), reason: /\/proc\/sys is not read-only/ },
  'another part of /proc in the place of /proc/sys': { change: mounts((_, at) => set(at('/proc/sys'), 6, text('/1'))), reason: /mounts proc at "\/proc\/sys"/ },
  'a writable /sys': { change: mounts((_, at) => { set(at('/sys'), 5, value(at('/sys'), 5) & ~1n); set(at('/sys'), 17, 0n); }), reason: /"\/sys" is not read-only/ },
  'a volume that was read-only': { change: () => {}, bundle: ({ mounts: list }) => { (list as Json[]).find(({ destination }) => destination === '/etc/hosts')?.['options'].push('ro'); }, reason: /"\/etc\/hosts" is not read-only/ },
  'a volume in another place': { change: mounts((_, at) => set(at('/etc/hosts'), 18, text('/dev/shm'))), reason: /what the bundle has for "\/dev\/shm" at "\/etc\/hosts"/ },
  'devices that work in a volume without devices': { change: mounts((_, at) => set(at('/dev/mqueue'), 5, value(at('/dev/mqueue'), 5) & ~4n)), reason: /"\/dev\/mqueue" is not nodev/ },
  'an overlay whose directories the images name': { change: mounts((_, at) => { set(at('/dev/mqueue'), 1, 17n); set(at('/dev/mqueue'), 9, text('lowerdir=/:/etc')); }), bundle: ({ mounts: list }) => { (list as Json[]).find(({ destination }) => destination === '/dev/mqueue')!['type'] = 'overlay'; }, reason: /mounts overlay at "\/dev\/mqueue"/ },

  'a fanotify descriptor for the file system behind /etc/hosts': { change: (archive, images) => {
    let [mount, device] = [0n, 0n];
    mounts((_, at) => { [mount, device] = [value(at('/etc/hosts'), 2), value(at('/etc/hosts'), 3)]; })(archive, images);
    const handle: Field[] = [[1, 8n], [2, 1n], ...Array.from({ length: 16 }, (): Field => [3, 0n]), [4, text('/etc/hosts')], [5, mount]];
    const mark = encode([[1, 0x77n], [2, 1n], [3, 0x100n], [4, 0x21n], [5, 0n], [6, device], [7, encode([[1, 1n], [2, encode(handle)]])]]);
    file(12n, 14, [[1, 0x77n], [2, 0o4000n], [3, fown], [4, 0n], [5, 2n], [6, mark]])(archive, images);
  }, code: 'ARCHIVE_INVALID', reason: /has field 14 in file, which no container needs/ },
  'a packet socket without CAP_NET_RAW': { change: file(10n, 6, [[1, 0x78n], [2, 3n], [3, 0x300n], [4, 2n], [5, 0n], [6, fown], [7, packet], ...[8, 9, 10, 11, 12, 13, 14, 15].map((field): Field => [field, 0n])]), code: 'ARCHIVE_INVALID', reason: /has field 6 in file, which no container needs/ },
  'a file of the type of another': { change: file(12n, 3, [[1, 0x77n], [2, 0n], [3, 0n], [5, fown], [6, text('/etc/hosts')]]), code: 'OBJECT_CORRUPT', reason: /descriptor of type 12/ },
  'a file through a descriptor of CRIU\'s own': { change: regular('/proc/self/fd/1020/../../etc/shadow'), code: 'OBJECT_CORRUPT', reason: /no plain path/ },
  'a file below a directory that CRIU has open': { change: regular('/proc/self/fd/1020/core-1.img'), code: 'OBJECT_CORRUPT', reason: /a way out of the container/ },
  'a file below a directory that CRIU has open, by way of /dev': { change: regular('/dev/fd/1020/core-1.img', 0n, '/dev'), code: 'OBJECT_CORRUPT', reason: /a way out of the container/ },
  'CVE-2019-5736: the program is the one of CRIU': { change: (archive, images) => { regular('/proc/self/exe')(archive, images); editImage(first(images, /^mm-1\.img$/), ([message = []]) => set(message, 12, 0x77n)); }, code: 'OBJECT_CORRUPT', reason: /a way out of the container/ },
  'a file that is made by opening it': { change: regular('/etc/hosts', 0o102n), code: 'OBJECT_CORRUPT', reason: /opens a file with the flags 0102/ },
  'a directory that leads out': { change: regular('/../../srv'), code: 'OBJECT_CORRUPT', reason: /no plain path/ },
  'seccomp switched off by a field of old versions': { change: task((fields) => set(fields, 11, 0n)), code: 'ARCHIVE_INVALID', reason: /has field 11 in task/ },
  'another filter by a field of old versions': { change: task((fields) => set(fields, 12, 1n)), code: 'ARCHIVE_INVALID', reason: /has field 12 in task/ },
  'namespaces in a field of old versions': { change: (_, images) => editImage(join(images, 'core-1.img'), ([message = []]) => message.push([4, encode([[1, 1n], [2, 1n], [3, 1n], [4, 1n]])])), code: 'ARCHIVE_INVALID', reason: /has field 4 in core/ },
  'a volume that is read-only as a file system only': { change: mounts((_, at) => set(at('/etc/hosts'), 17, 1n)), bundle: ({ mounts: list }) => { (list as Json[]).find(({ destination }) => destination === '/etc/hosts')?.['options'].push('ro'); }, reason: /"\/etc\/hosts" is not read-only/ },
  'cgroups that are writable': { change: mounts((messages) => { for (const message of messages) if (String(message.find(([number]) => number === 7)?.[1]).startsWith('/sys/fs/cgroup/')) set(message, 5, value(message, 5) & ~1n); }), reason: /"\/sys\/fs\/cgroup\/\w+" is not read-only/ },
  'cgroups of the node': { change: mounts((messages) => { for (const message of messages) if (String(message.find(([number]) => number === 7)?.[1]).startsWith('/sys/fs/cgroup/')) { set(message, 18); set(message, 6, text('/')); } }), reason: /shows all cgroups of the node/ },
  'a program that the node runs when a cgroup is empty': { change: mounts((_, at) => { set(at('/sys/fs/cgroup/pids'), 18); set(at('/sys/fs/cgroup/pids'), 6, text('/')); set(at('/sys/fs/cgroup/pids'), 9, text('pids,release_agent=/x')); }), reason: /mounted with "release_agent=\/x"/ },
  'a mount over /etc by way of the cgroups': { change: mounts((_, at) => set(at('/dev/mqueue'), 7, text('/sys/fs/cgroup/../../../etc'))), code: 'OBJECT_CORRUPT', reason: /no plain path/ },
  'a mount that others pass on': { change: mounts((_, at) => set(at('/etc/hosts'), 11, 7n)), reason: /"\/etc\/hosts" passes mounts on/ },
  'a memory file system without bounds': { change: mounts((_, at) => set(at('/dev'), 9, text('mode=755'))), reason: /"\/dev" is larger than the 64.0 MiB of the bundle/ },
  'terminals of the node': { change: mounts((_, at) => set(at('/dev/pts'), 9, text('mode=620'))), reason: /shows the terminals of the node/ },
  'images of a kind that no container needs': { change: add('binfmt-misc.img', makeImage(Buffer.from([0x19, 0x43, 0x56, 0x54, 0x23, 0x33, 0x34, 0x67]))), code: 'ARCHIVE_INVALID', reason: /binfmt-misc\.img is an image that containers do not need/ },
  'open files in the place where old versions had them': { change: add('reg-files.img', Buffer.alloc(8)), code: 'ARCHIVE_INVALID', reason: /reg-files\.img is an image/ },
  'descriptors of the runtime': { change: (_, images) => writeFileSync(join(images, 'descriptors.json'), '["/dev/null","pipe:[1]","pipe:[2]","pipe:[3]","pipe:[4]"]'), code: 'OBJECT_CORRUPT', reason: /descriptors\.json is more than the names of three streams/ },
  'a command for nft in the name of a table': { change: (_, images) => editImage(join(images, 'inventory.img'), ([message = []]) => set(message, 13, text('x; flush ruleset'))), code: 'OBJECT_CORRUPT', reason: /run id/ },
  'plugins of CRIU': { change: (_, images) => editImage(join(images, 'inventory.img'), ([message = []]) => set(message, 12, encode([[12, text('amdgpu')]]))), code: 'OBJECT_CORRUPT', reason: /plugins of CRIU/ },
  'a file of a volume that is deleted as a left-over of CRIU': { change: (archive, images) => { regular('/etc/hosts', 0n, '/etc/hosts')(archive, images); add('remap-fpath.img', makeImage(Buffer.from([0x19, 0x43, 0x56, 0x54, 0x54, 0x39, 0x13, 0x59]), [[1, 0x77n], [2, 0x77n], [3, 0n]]))(archive, images); }, code: 'OBJECT_CORRUPT', reason: /takes "\/etc\/hosts" for a link that CRIU made/ },
  'more shared memory segments than the bundle allows': { change: (_, images) => editImage(first(images, /^ipcns-var-/), ([message = []]) => set(message, 8, 1n << 20n)), reason: /kernel\.shmmni is 1048576/ },

  'CVE-2026-53492: a disk among the files of /dev': { change: unpacked(member({ name: './vda', type: '4', device: [254, 0] })), reason: /tmpfs-dev-999\.tar\.gz\.img has the device b 254:0/ },
  'the memory of the node among the files of /dev': { change: unpacked(member({ name: './mem', type: '3', device: [1, 1] })), reason: /has the device c 1:1/ },
  'a disk among the files of the root file system': { change: nodes(member({ name: 'srv/', type: '5', mode: 0o755 }), member({ name: 'srv/vda', type: '4', device: [254, 0] }), member({ name: 'srv/null', type: '3', device: [1, 3] })), bundle: ({ linux }) => { linux.resources.devices = [{ allow: true, access: 'rwm' }]; }, reason: /device nodes that the bundle does not grant: \/srv\/vda \(b 254:0\)$/ },
  'a deleted file that is a disk': { change: add('ghost-file-1.img', makeImage(Buffer.from(imageHeader('ghost')), [[1, 0n], [2, 0n], [3, 0o60600n], [6, BigInt(254 << 8)]])), reason: /ghost-file-1\.img has the device b 254:0/ },
  'containerd 13947: a file of /dev that leads out': { change: unpacked(member({ name: '../../outside/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /leads out/ },
  'determined-ai 10269: a file of /dev through a symlink': { change: unpacked(member({ name: './way', type: '2', link: '../../..' }), member({ name: './way/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /a path through a symlink/ },
  'a file of /dev through an absolute symlink': { change: unpacked(member({ name: './way', type: '2', link: '/srv/stranger/outside' }), member({ name: './way/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /a path through a symlink/ },
  'a file of /dev through a symlink with another spelling': { change: unpacked(member({ name: './sub', type: '5' }), member({ name: 'sub//./way/', type: '2', link: '/srv/stranger/outside' }), member({ name: './/sub/way/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /a path through a symlink/ },
  'a file of /dev through a hard link to a symlink': { change: unpacked(member({ name: './way', type: '2', link: '/srv/stranger/outside' }), member({ name: './other', type: '1', link: 'way' }), member({ name: './other/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /a path through a symlink/ },
  'a hard link of /dev that leads out': { change: unpacked(member({ name: './x', type: '1', link: '../../../etc/shadow' })), code: 'PATH_ESCAPES', reason: /leads out/ },
  'a name for CRIU\'s tar only': { change: unpacked(member({ name: './x', pax: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': '../../x' } })), code: 'ARCHIVE_INVALID', reason: /a sparse file/ },
};

/** Imports the archive with something changed; returns the id of the checkpoint. */
async function importOf(change: Attack['change']): Promise<string> {
  const directory = mkdtempSync(join(BASE, 'attack-'));
  cpSync(genuine, directory, { recursive: true });
  change(directory, join(directory, 'checkpoint'));
  run('tar', '--create', '--directory', directory, '--file', `${directory}.tar`, ...readdirSync(directory));
  rmSync(directory, { recursive: true });
  try {
    return (await imported(agent, `${directory}.tar`)).checkpoint;
  } finally {
    rmSync(`${directory}.tar`);
  }
}

const upper = (): string[] => readdirSync(join(bundle.directory, 'upper'));

void describe('imported images that ask for more than the bundle grants', () => {
  void it('unchanged ones are restored', async () => {
    const checkpoint = await importOf(() => {});
    const { pid } = await restore(agent, checkpoint, { container: NAME, bundle: bundle.directory });
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /Seccomp:\t2/);
    run('runc', 'delete', '--force', NAME);
  });

  void it('whatever filter the images have, the one of the bundle is before it', async () => {
    const checkpoint = await importOf(filter([6, 0, 0, ALLOW]));
    await withSpec(bundle.directory, ({ linux }) => { linux.seccomp.syscalls = linux.seccomp.syscalls.map((call: Json) => ({ ...call, names: call['names'].filter((one: string) => !one.startsWith('mkdir')) })); linux.seccomp.defaultErrnoRet = 1; }, async () => {
      const { pid } = await restore(agent, checkpoint, { container: NAME, bundle: bundle.directory });
      try {
        assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /Seccomp:\t2\nSeccomp_filters:\t2/);
        const denied = join(bundle.directory, 'upper/tmp-denied');
        for (let tries = 0; tries < 100 && !existsSync(denied); tries++) run('sleep', '0.05');
        assert.ok(existsSync(denied), 'the program found that it cannot make directories');
      } finally {
        run('runc', 'delete', '--force', NAME);
        rmSync(join(bundle.directory, 'upper/tmp-denied'), { force: true });
      }
    });
  });

  for (const [name, attack] of Object.entries(attacks)) {
    void it(name, async () => {
      const [outside, made] = [snapshot(join(BASE, 'outside')), upper()];
      const refused = (error: unknown): boolean => {
        // What no container needs is refused when it comes; what this one may not have, when its bundle is known.
        assert.ok(isStasisError(error), String(error));
        assert.equal(error.code, attack.code ?? 'RESTORE_INCOMPATIBLE', error.message);
        assert.match(error.message, attack.reason);
        return true;
      };
      await withSpec(bundle.directory, attack.bundle ?? (() => {}), () => assert.rejects(async () => restore(agent, await importOf(attack.change), { container: NAME, bundle: bundle.directory }), refused));
      assert.equal(run('runc', 'list', '--quiet'), '', 'no container was made');
      assert.deepEqual([snapshot(join(BASE, 'outside')), upper()], [outside, made]);
      await assertClean(agent);
    });
  }

  /** Files of the archive where the bundle mounts something: what the runtime makes of them stays below the root. */
  const traps: Record<string, readonly Buffer[]> = {
    'CVE-2021-30465: a symlink where a volume is mounted': [member({ name: 'etc/', type: '5', mode: 0o755 }), member({ name: 'etc/hosts', type: '2', link: '../../../../outside/precious' })],
    'CVE-2026-55686: a symlink above where a volume is mounted': [member({ name: 'run', type: '2', link: '/srv/stranger/outside' })],
    'runc CVE-2025-31133: /dev/null is a symlink': [member({ name: 'dev/', type: '5', mode: 0o755 }), member({ name: 'dev/null', type: '2', link: '/proc/sys/kernel/core_pattern' })],
    'runc CVE-2025-52565: /proc is a symlink': [member({ name: 'proc', type: '2', link: '/srv/stranger/outside' })],
    'CVE-2019-5736: the program is a link to what runs it': [member({ name: 'usr/', type: '5', mode: 0o755 }), member({ name: 'usr/bin/', type: '5', mode: 0o755 }), member({ name: 'usr/bin/dash', type: '2', link: '/proc/self/exe' })],
    'a file by way of a link to directories that CRIU has open': [member({ name: 'way', type: '2', link: '/proc/self/fd' })],
  };
  /** Open files that lead through a link. */
  const refused: Record<string, { readonly opened?: string; readonly message: RegExp }> = {
    'CVE-2019-5736: the program is a link to what runs it': { message: /"\/usr\/bin\/dash", and a symlink is on the way/ },
    'a file by way of a link to directories that CRIU has open': { opened: '/way/1020/core-1.img', message: /"\/way\/1020\/core-1\.img", and a symlink is on the way/ },
  };
  for (const [name, members] of Object.entries(traps)) {
    const { opened, message } = refused[name] ?? {};
    void it(name, async () => {
      const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8');
      const outside = [snapshot(join(BASE, 'outside')), snapshot('/etc'), snapshot('/usr/bin')];
      const checkpoint = await importOf((archive, images) => {
        writeFileSync(join(archive, 'rootfs-diff.tar'), tar(...members));
        if (opened !== undefined) regular(opened)(archive, images);
      });
      const clean = join(BASE, 'bundle-for-one');
      rmSync(clean, { recursive: true, force: true });
      cpSync(join(bundle.directory, 'binds'), join(clean, 'binds'), { recursive: true });
      cpSync(IMAGE_DIRECTORY, join(clean, 'rootfs'), { recursive: true, verbatimSymlinks: true });
      writeFileSync(join(clean, 'config.json'), readFileSync(join(bundle.directory, 'config.json'), 'utf8').replaceAll(`${bundle.directory}/`, `${clean}/`));
      const outcome = await restore(agent, checkpoint, { container: NAME, bundle: clean }).then(() => 'restored', (error: unknown) => (isStasisError(error) ? `${error.code} ${error.message}` : String(error)));
      assert.match(outcome, message ?? /^(restored|RESTORE_FAILED )/);
      if (outcome === 'restored') run('runc', 'delete', '--force', NAME);
      assert.deepEqual([snapshot(join(BASE, 'outside')), snapshot('/etc'), snapshot('/usr/bin')], outside);
      assert.equal(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'), pattern);
    });
  }
});
