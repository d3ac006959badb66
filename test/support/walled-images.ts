/** The images of a container in a user namespace, under a seccomp filter, with a network of its own, as crun has them made. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { externalsOfDump } from '../../src/runtime/driver/external-mounts.ts';
import { readSpec } from '../../src/runtime/index.ts';
import type { OciSpec } from '../../src/runtime/types.ts';
import { startContainer, waitForOutput, type Spec } from './containers.ts';
import { walledKinds } from './workloads/walled-kinds.ts';

const OUTSIDE = 100_000;

function configure({ process, linux, mounts }: Spec): void {
  process.user = { uid: 0, gid: 0 };
  linux.namespaces = [...linux.namespaces.filter(({ type }: { type: string }) => type !== 'cgroup'), { type: 'user' }, { type: 'time' }, { type: 'cgroup' }];
  linux.uidMappings = linux.gidMappings = [{ containerID: 0, hostID: OUTSIDE, size: 65_536 }];
  linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mount'], action: 'SCMP_ACT_ERRNO' }] };
  mounts.push({ destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev'] });
}

/** Fills an empty directory with images, and returns the config.json of the container. */
export async function walledImages(images: string): Promise<OciSpec> {
  const id = 'walled-kinds';
  chmodSync('/srv', 0o711);
  const container = await startContainer({
    runtime: 'crun', id, args: ['python3', '-W', 'ignore', '-c', walledKinds], edit: configure,
    prepare: (directory) => {
      for (const name of ['', 'bundle', 'bundle/rootfs']) chmodSync(join(directory, name), 0o711);
      chownSync(join(directory, 'upper'), OUTSIDE, OUTSIDE);
    },
  });
  try {
    await waitForOutput(container.outputFile, (text) => text.includes('ready'));
    const work = join(dirname(images), 'walled-work');
    mkdirSync(work);
    const spec = await readSpec(container.bundle);
    const config = join(work, 'criu.conf');
    writeFileSync(config, `network-lock nftables\n${externalsOfDump(spec, readMountinfo(container.pid))}`);
    execFileSync('crun', [
      '--root', container.at.root, 'checkpoint', '--image-path', images, '--work-path', work, '--manage-cgroups-mode', 'soft', id,
    ], { stdio: 'pipe', env: { ...process.env, CRIU_CONFIG_FILE: config } });
    return spec;
  } finally {
    await container.stop();
  }
}
