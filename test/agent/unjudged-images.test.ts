/**
 * What an imported archive may be is judged twice: its images before a restore, and what criu has made of them before it runs.
 * Here the first judge is left out, and the second sees it by itself.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { keepGate } from '../../src/agent/restore/gate.ts';
import { parseContainerId } from '../../src/core/ids.ts';
import { RestoreGate } from '../../src/host/restore-gate.ts';
import { describeDifference, observe, unlike } from '../../src/runtime/fidelity/index.ts';
import { criuConfig, readSpec, remove, restore, type Toolchain } from '../../src/runtime/index.ts';
import { repositoryRoot } from '../config/repository-root.ts';
import { startContainer, toolchain, waitForOutput, type Spec, type TestContainer } from '../support/containers.ts';
import { editImage, set, within, type Field } from '../support/wire-edit.ts';

const BASE = '/srv/unjudged';
const SYS_ADMIN = 1n << 21n;
const [MS_RDONLY, MS_NOSUID] = [1n, 2n];
let container: TestContainer;
let tools: Toolchain;

before(async () => {
  tools = await toolchain();
  for (const name of ['images', 'volume']) mkdirSync(join(BASE, name), { recursive: true, mode: 0o700 });
  container = await startContainer({
    runtime: 'runc', id: 'unjudged', args: ['/bin/sh', '-c', 'echo runs > /ran; echo begun; while :; do sleep 0.1; echo runs >> /ran; done'],
    edit: (spec: Spec) => {
      spec['linux'].seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mount'], action: 'SCMP_ACT_ERRNO' }] };
      spec['mounts'].push({ destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['ro', 'nosuid'] }, { destination: '/mnt', type: 'bind', source: join(BASE, 'volume'), options: ['bind', 'ro'] });
    },
  });
  await waitForOutput(container.outputFile, (text) => text.includes('begun'));
  execFileSync('runc', ['checkpoint', '--manage-cgroups-mode', 'ignore', '--image-path', join(BASE, 'images'), '--work-path', BASE, container.id]);
});

after(async () => {
  await container?.stop();
  rmSync(BASE, { recursive: true, force: true });
});

const core = (images: string, part: number, change: (fields: Field[]) => void): void => editImage(join(images, 'core-1.img'), ([message = []]) => within(message, part, change));
const [TASK, THREAD, CREDENTIALS] = [3, 5, 10];
const number = (fields: readonly Field[], field: number): bigint => (fields.find(([found]) => found === field)?.[1] ?? 0n) as bigint;

/** Field 5 are the flags of a mount, 17 those of its file system. */
function mounted(images: string, point: string, change: (fields: Field[]) => void): void {
  const name = readdirSync(images).find((one) => one.startsWith('mountpoints-')) ?? '';
  editImage(join(images, name), (messages) => change(messages.find((message) => message.some(([field, value]) => field === 7 && value.toString() === point)) ?? []));
}

interface Attack {
  readonly change: (images: string) => void;
  /** What the comparison with the bundle says; nothing for images as they were. */
  readonly sees: RegExp | undefined;
}

const attacks: Readonly<Record<string, Attack>> = {
  'images as they were': { change: () => {}, sees: undefined },
  'a capability more': { change: (images) => core(images, THREAD, (thread) => within(thread, CREDENTIALS, (creds) => { for (const field of [10, 11, 12]) set(creds, field, SYS_ADMIN, 0n); })), sees: /capabilities-effective of process 1: .* is 0000000000200000/ },
  'privileges that can be gained': { change: (images) => core(images, THREAD, (thread) => within(thread, CREDENTIALS, (creds) => set(creds, 18, 0n))), sees: /no-new-privileges of process 1: was 1, is 0/ },
  'seccomp switched off by a field of old versions': { change: (images) => core(images, TASK, (task) => set(task, 11, 0n)), sees: /seccomp of process 1: was 2, is 0/ },
  'a volume that is read-only in the flags of its file system only': { change: (images) => mounted(images, '/mnt', (fields) => { set(fields, 5, number(fields, 5) & ~MS_RDONLY); set(fields, 17, MS_RDONLY); }), sees: /mount-options of "\/mnt"/ },
  'a mount without nosuid': { change: (images) => mounted(images, '/media', (fields) => set(fields, 5, number(fields, 5) & ~MS_NOSUID)), sees: /mount-options of "\/media"/ },
  'a mount that can be written to': { change: (images) => mounted(images, '/proc/sys', (fields) => set(fields, 5, number(fields, 5) & ~MS_RDONLY)), sees: /mount-options of "\/proc\/sys"/ },
};

/** A restore as the agent's, without the judge of images. Returns what the gate saw; the tasks have not run then. */
async function seenAtGate(change: Attack['change']): Promise<string> {
  const directory = join(BASE, 'attempt');
  const [images, work] = [join(directory, 'images'), join(directory, 'work')];
  cpSync(join(BASE, 'images'), images, { recursive: true });
  mkdirSync(work);
  change(images);
  const config = join(work, 'criu.conf');
  writeFileSync(config, criuConfig({ timeoutSeconds: 20, ghostLimitBytes: 1 << 20, actionScript: join(repositoryRoot(), 'deploy/libexec/stasis-restore-hook') }));
  const id = parseContainerId(container.id);
  using gate = RestoreGate.open(join(directory, 'gate'));
  let seen = 'criu ended before the gate';
  const restored = restore({
    at: container.at, id, bundle: container.bundle, imageDir: images, workDir: work, flags: { tcpEstablished: false, tcpClose: false, fileLocks: false, extUnixSk: false, shellJob: false },
    criuConfig: config, operationId: 'unjudged', pidFile: join(directory, 'pid'), gateDirectory: gate.directory, stdout: join(directory, 'out'), stderr: join(directory, 'err'),
  }, tools, { signal: undefined, timeoutMs: 60_000 });
  const ended = new AbortController();
  const spec = await readSpec(container.bundle);
  const kept = keepGate(gate, {
    'post-restore': async () => {},
    'pre-resume': async (pid) => {
      seen = unlike(spec, observe(pid), pid).map(describeDifference).join('\n');
      throw new Error('it shall not run');
    },
  }, { signal: ended.signal });
  await Promise.allSettled([kept, restored.finally(() => ended.abort())]);
  await remove(container.at, id, { force: true, signal: undefined }).catch(() => undefined);
  rmSync(directory, { recursive: true });
  return seen;
}

void describe('images that nobody has judged, at the gate', () => {
  for (const [name, { change, sees }] of Object.entries(attacks)) {
    void it(name, async () => {
      const ran = join(container.bundle, 'rootfs/ran');
      const before_ = readFileSync(ran, 'utf8');
      const seen = await seenAtGate(change);
      if (sees === undefined) assert.equal(seen, '');
      else assert.match(seen, sees);
      assert.equal(readFileSync(ran, 'utf8'), before_, 'none of it has run');
    });
  }
});
