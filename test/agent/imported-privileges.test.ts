/**
 * Images of a real container with one thing changed, imported and restored into a bundle that grants what the container
 * had: whatever is more than that is refused before the runtime is asked, and for that reason.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { isStasisError } from '../../src/core/errors.ts';
import { imageHeader } from '../../src/image/criu/framing.ts';
import { assertClean, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import { member, tar } from '../support/archives.ts';
import { archiveOf, IMAGE, IMAGE_DIRECTORY, imported, makeBundle, makeImage as makePodmanImage, pidOf, run, start, withSpec, type Json } from '../support/podman.ts';
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
  const id = start(NAME, 'while :; do sleep 0.2; done');
  for (let tries = 0; tries < 100 && pidOf(NAME) === 0; tries++) run('sleep', '0.05');
  bundle = makeBundle(id, join(BASE, 'bundle'));
  archiveOf(NAME, join(BASE, 'genuine.tar'), 'none');
  genuine = join(BASE, 'genuine');
  mkdirSync(genuine);
  run('tar', '--extract', '--directory', genuine, '--file', join(BASE, 'genuine.tar'));
});

after(async () => {
  run('podman', 'rmi', '--force', IMAGE);
  await agent?.stop();
  bundle?.remove();
  await removeHome(home);
  for (const path of [BASE, IMAGE_DIRECTORY]) rmSync(path, { recursive: true, force: true });
});

interface Attack {
  /** Changes files in the directory of an unpacked archive; the second argument is its directory of images. */
  readonly change: (archive: string, images: string) => void;
  readonly code?: string;
  readonly reason: RegExp;
  /** The import does not take it. */
  readonly early?: boolean;
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
const [ALLOW, ERRNO] = [0x7fff0000, 0x00050001];
const unpacked = (...members: readonly Buffer[]) => (_: string, images: string): void => writeFileSync(join(images, 'tmpfs-dev-999.tar.gz.img'), gzipSync(tar(...members)));
const add = (name: string, bytes: Buffer) => (_: string, images: string): void => writeFileSync(join(images, name), bytes);
const user = (spec: Json): void => {
  spec['process'].user = { uid: 1000, gid: 1000 };
  for (const set_ of Object.keys(spec['process'].capabilities)) spec['process'].capabilities[set_] = spec['process'].capabilities[set_].filter((name: string) => !/SET[UG]ID/.test(name));
};

const attacks: Record<string, Attack> = {
  'CVE-2024-8676: a capability that the bundle does not give': { change: credentials((creds) => set(creds, 11, 1n << 21n, 0n)), reason: /core-1\.img has CAP_SYS_ADMIN/ },
  'a capability without a name': { change: credentials((creds) => set(creds, 19, 0n, 1n << 31n)), reason: /capabilities without a name/ },
  'a bounding set without bounds': { change: credentials((creds) => set(creds, 12, 0xffffffffn, 0x1ffn)), reason: /core-1\.img has CAP_/ },
  'credentials twice, the second without capabilities': { change: (_, images) => core(images, (thread) => thread.push([10, encode([[1, 0n], [2, 0n], [3, 0n], [4, 0n], [5, 0n], [6, 0n], [7, 0n], [8, 0n], [13, 0n]])])), code: 'OBJECT_CORRUPT', reason: /core-1\.img has field 10 twice/ },
  'a thread twice': { change: (_, images) => editImage(join(images, 'core-1.img'), ([message = []]) => message.push([5, Buffer.alloc(0)])), code: 'OBJECT_CORRUPT', reason: /field 5 twice/ },
  'a second message behind the first': { change: (_, images) => editImage(join(images, 'core-1.img'), (messages) => messages.push(messages[0] ?? [])), code: 'ARCHIVE_INVALID', early: true, reason: /core-1\.img has 2 messages/ },
  'root, where the bundle has a user': { change: () => {}, bundle: user, reason: /is user 0, the bundle's is 1000/ },
  'the group of root, where the bundle has a user': { change: credentials((creds) => { for (const field of [1, 3, 5, 7]) set(creds, field, 1000n); }), bundle: user, reason: /is in group 0/ },
  'no profile, where the bundle has one': { change: () => {}, bundle: ({ process: program }) => { program.apparmorProfile = 'strict'; }, reason: /runs as "", the bundle says "strict"/ },
  'another label than the bundle\'s': { change: credentials((creds) => set(creds, 15, text('unconfined_u:unconfined_r:spc_t:s0'))), bundle: ({ process: program }) => { program.selinuxLabel = 'system_u:system_r:container_t:s0:c1,c2'; }, reason: /runs as "unconfined_u/ },
  'a profile that CRIU would load': { change: add('apparmor.img', Buffer.alloc(8)), reason: /loads profiles of AppArmor/ },
  'a privilege that can be gained': { change: () => {}, bundle: ({ process: program }) => { program.noNewPrivileges = true; }, reason: /core-1\.img may gain privileges/ },
  'new privileges forbidden with a number of more than 32 bits': { change: credentials((creds) => set(creds, 18, 1n << 32n)), bundle: ({ process: program }) => { program.noNewPrivileges = true; }, code: 'OBJECT_CORRUPT', reason: /field 18 with more than 32 bits/ },
  'no seccomp filter': { change: (_, images) => core(images, (thread) => set(thread, 11, 0n)), reason: /core-1\.img has no seccomp filter/ },
  'a seccomp filter that is not there': { change: (_, images) => core(images, (thread) => set(thread, 12, 77n)), reason: /seccomp filter of core-1\.img lets/ },
  'a seccomp filter that lets all pass': { change: filter([6, 0, 0, ALLOW]), reason: /seccomp filter of core-1\.img lets .* pass/ },
  'a seccomp filter that looks at an argument only': { change: filter([0x20, 0, 0, 16], [0x15, 0, 1, 0], [6, 0, 0, ERRNO], [6, 0, 0, ALLOW]), reason: /seccomp filter of core-1\.img lets/ },
  'a seccomp filter for another processor': { change: filter([0x20, 0, 0, 4], [0x15, 0, 1, 0x40000003], [6, 0, 0, ERRNO], [6, 0, 0, ALLOW]), reason: /seccomp filter of core-1\.img lets/ },
  'a seccomp filter that runs over its end': { change: filter([0x20, 0, 0, 0]), code: 'OBJECT_CORRUPT', reason: /runs over its end/ },
  'a limit that is higher': { change: task((fields) => within(fields, 8, (limits) => { limits[7] = [1, encode([[1, 2n ** 64n - 1n], [2, 2n ** 64n - 1n]])]; })), reason: /has a RLIMIT_NOFILE of unlimited/ },
  'a process that is never killed for want of memory': { change: task((fields) => set(fields, 14, 2n ** 64n - 1000n)), bundle: ({ process: program }) => { program.oomScoreAdj = 0; }, reason: /OOM score of -1000/ },
  'a real-time scheduler': { change: (_, images) => core(images, (thread) => { set(thread, 4, 1n); set(thread, 5, 99n); }), reason: /a real-time scheduler/ },
  'a nice value below zero': { change: (_, images) => core(images, (thread) => set(thread, 3, 39n)), reason: /nice -20/ },

  'runc CVE-2024-21626: the processes of the node': { change: sharing(5), reason: /no pid namespace/ },
  'the files of the node': { change: sharing(9), reason: /no mount namespace/ },
  'the network of the node': { change: sharing(6), reason: /no network namespace/ },
  'shared memory of the node': { change: sharing(7), reason: /no ipc namespace/ },
  'the name of the node': { change: sharing(8), reason: /no uts namespace/ },
  'no namespaces at all: the file is missing': { change: (_, images) => rmSync(join(images, 'ids-1.img')), code: 'OBJECT_CORRUPT', reason: /no ids-1\.img/ },
  'no namespaces at all: the file has another name': { change: (_, images) => renameSync(join(images, 'ids-1.img'), join(images, 'ids-999.img')), code: 'OBJECT_CORRUPT', reason: /no ids-1\.img/ },
  'namespaces twice': { change: (_, images) => editImage(join(images, 'ids-1.img'), (messages) => messages.push(messages[0] ?? [])), code: 'OBJECT_CORRUPT', reason: /2 messages/ },
  'a namespace with a number of more than 32 bits': { change: (_, images) => editImage(join(images, 'ids-1.img'), ([message = []]) => set(message, 5, (1n << 32n) + 1n)), code: 'OBJECT_CORRUPT', reason: /more than 32 bits/ },
  'an inventory without the namespaces of CRIU': { change: (_, images) => editImage(join(images, 'inventory.img'), ([message = []]) => set(message, 3)), code: 'OBJECT_CORRUPT', reason: /does not tell the namespaces/ },
  'a thread without credentials': { change: (_, images) => editImage(join(images, 'pstree.img'), ([message = []]) => message.push([5, 77n])), code: 'OBJECT_CORRUPT', reason: /no core-77\.img/ },
  'a process whose first thread is another': { change: (_, images) => editImage(join(images, 'pstree.img'), ([message = []]) => set(message, 5, 8n)), code: 'OBJECT_CORRUPT', reason: /first thread is 8/ },
  'a user namespace that the bundle does not have': { change: (archive, images) => { editImage(join(images, 'ids-1.img'), ([message = []]) => set(message, 10, 77n)); for (const name of readdirSync(images).filter((file) => /^ids-(?!1\.)/.test(file))) editImage(join(images, name), ([message = []]) => set(message, 10, 77n)); add('userns-77.img', makeImage(Buffer.from(imageHeader('userns')), [[1, encode([[1, 0n], [2, 0n], [3, 2n ** 32n - 1n]])]]))(archive, images); }, reason: /a user namespace of their own/ },
  'root of the node in a user namespace': { change: add('userns-77.img', makeImage(Buffer.from(imageHeader('userns')), [[1, encode([[1, 0n], [2, 0n], [3, 65_536n]])]])), bundle: ({ linux }) => { linux.uidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }]; }, reason: /maps 65536 ids from 0 to 0 of the node/ },
  'a network device': { change: add('netdev-10.img', makeImage(Buffer.from(imageHeader('netdev')), [[1, 2n], [2, 7n], [3, 1500n], [4, 0n], [5, text('eth7')]])), reason: /network device "eth7"/ },

  'CVE-2024-8676: a mount of a disk': { change: mounts((messages, at) => messages.push([[1, 16n], [2, 999n], [3, 5n], [4, value(at('/'), 2)], [5, 0n], [6, text('/')], [7, text('/disk')], [8, text('/dev/vda')], [9, text('')], [14, text('ext4')]])), reason: /mounts other at "\/disk"/ },
  'a mount by a plugin': { change: mounts((_, at) => set(at('/dev'), 12, 1n)), reason: /"\/dev" is mounted by a plugin/ },
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

  'CVE-2026-53492: a disk among the files of /dev': { change: unpacked(member({ name: './vda', type: '4', device: [254, 0] })), reason: /tmpfs-dev-999\.tar\.gz\.img has the device b 254:0/ },
  'the memory of the node among the files of /dev': { change: unpacked(member({ name: './mem', type: '3', device: [1, 1] })), reason: /has the device c 1:1/ },
  'a deleted file that is a disk': { change: add('ghost-file-1.img', makeImage(Buffer.from(imageHeader('ghost')), [[1, 0n], [2, 0n], [3, 0o60600n], [6, BigInt(254 << 8)]])), reason: /ghost-file-1\.img has the device b 254:0/ },
  'containerd 13947: a file of /dev that leads out': { change: unpacked(member({ name: '../../outside/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /leads out/ },
  'determined-ai 10269: a file of /dev through a symlink': { change: unpacked(member({ name: './way', type: '2', link: '../../..' }), member({ name: './way/x', body: 'x' })), code: 'PATH_ESCAPES', reason: /a path through a symlink/ },
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

  for (const [name, attack] of Object.entries(attacks)) {
    void it(name, async () => {
      const [outside, made] = [snapshot(join(BASE, 'outside')), upper()];
      const refused = (error: unknown): boolean => {
        assert.ok(isStasisError(error, (attack.code ?? 'RESTORE_INCOMPATIBLE') as never), String(error));
        assert.match(error.message, attack.reason);
        return true;
      };
      if (attack.early === true) await assert.rejects(importOf(attack.change), refused);
      else {
        const checkpoint = await importOf(attack.change);
        await withSpec(bundle.directory, attack.bundle ?? (() => {}), () => assert.rejects(restore(agent, checkpoint, { container: NAME, bundle: bundle.directory }), refused));
      }
      assert.equal(run('runc', 'list', '--quiet'), '', 'no container was made');
      assert.deepEqual([snapshot(join(BASE, 'outside')), upper()], [outside, made]);
      await assertClean(agent);
    });
  }

  /** Files of the archive where the bundle mounts something: what the runtime makes of them stays below the root. */
  const traps: Record<string, Buffer[]> = {
    'CVE-2021-30465: a symlink where a volume is mounted': [member({ name: 'etc/', type: '5', mode: 0o755 }), member({ name: 'etc/hosts', type: '2', link: '../../../../outside/precious' })],
    'CVE-2026-55686: a symlink above where a volume is mounted': [member({ name: 'run', type: '2', link: '/srv/stranger/outside' })],
    'runc CVE-2025-31133: /dev/null is a symlink': [member({ name: 'dev/', type: '5', mode: 0o755 }), member({ name: 'dev/null', type: '2', link: '/proc/sys/kernel/core_pattern' })],
    'runc CVE-2025-52565: /proc is a symlink': [member({ name: 'proc', type: '2', link: '/srv/stranger/outside' })],
    'CVE-2019-5736: the program is a link to what runs it': [member({ name: 'usr/', type: '5', mode: 0o755 }), member({ name: 'usr/bin/', type: '5', mode: 0o755 }), member({ name: 'usr/bin/dash', type: '2', link: '/proc/self/exe' })],
  };
  for (const [name, members] of Object.entries(traps)) {
    void it(name, async () => {
      const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8');
      const outside = [snapshot(join(BASE, 'outside')), snapshot('/etc'), snapshot('/usr/bin')];
      const checkpoint = await importOf((archive) => writeFileSync(join(archive, 'rootfs-diff.tar'), tar(...members)));
      const clean = join(BASE, 'bundle-for-one');
      rmSync(clean, { recursive: true, force: true });
      cpSync(join(bundle.directory, 'binds'), join(clean, 'binds'), { recursive: true });
      cpSync(IMAGE_DIRECTORY, join(clean, 'rootfs'), { recursive: true, verbatimSymlinks: true });
      writeFileSync(join(clean, 'config.json'), readFileSync(join(bundle.directory, 'config.json'), 'utf8').replaceAll(`${bundle.directory}/`, `${clean}/`));
      const outcome = await restore(agent, checkpoint, { container: NAME, bundle: clean }).then(() => 'restored', (error: unknown) => (isStasisError(error) ? error.code : String(error)));
      assert.match(outcome, /^(restored|RESTORE_FAILED)$/);
      if (outcome === 'restored') run('runc', 'delete', '--force', NAME);
      assert.deepEqual([snapshot(join(BASE, 'outside')), snapshot('/etc'), snapshot('/usr/bin')], outside);
      assert.equal(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'), pattern);
    });
  }
});
