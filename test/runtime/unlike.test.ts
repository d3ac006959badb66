/** What a stranger's images made of a container is held against the bundle by what the kernel says, not by what was judged before. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { observe, unlike } from '../../src/runtime/fidelity/index.ts';
import type { OciSpec } from '../../src/runtime/types.ts';
import { startContainer, type Spec } from '../support/containers.ts';

const cgroup = (spec: Spec): Spec => (spec['mounts'] as Spec[]).find(({ type }) => type === 'cgroup')!;
const without = (list: string[], option: string): string[] => list.filter((each) => each !== option);

/** How the container that runs differs from the bundle, and the row that shows it. */
const hostile: Readonly<Record<string, { readonly change: (spec: Spec) => void; readonly granted?: (spec: Spec) => void; readonly attribute: string }>> = {
  'cgroups can be written to': { change: (spec) => { cgroup(spec)['options'] = without(cgroup(spec)['options'], 'ro'); }, attribute: 'mount-options' },
  'a volume can be written to': { change: (spec) => spec['mounts'].push({ destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['rw'] }), granted: (spec) => spec['mounts'].push({ destination: '/media', type: 'tmpfs', source: 'tmpfs', options: ['ro'] }), attribute: 'mount-options' },
  'the root can be written to': { change: () => {}, granted: (spec) => { spec['root'].readonly = true; }, attribute: 'mount-options' },
  'no filter of system calls': { change: () => {}, granted: (spec) => { spec['linux'].seccomp = { defaultAction: 'SCMP_ACT_ALLOW' }; }, attribute: 'seccomp' },
  'a capability more': { change: (spec) => { for (const set of ['bounding', 'effective', 'permitted']) spec['process'].capabilities[set].push('CAP_SYS_ADMIN'); }, attribute: 'capabilities-effective' },
  'exec gives privileges': { change: (spec) => { spec['process'].noNewPrivileges = false; }, attribute: 'no-new-privileges' },
  'the network of the node': { change: (spec) => { spec['linux'].namespaces = (spec['linux'].namespaces as Spec[]).filter(({ type }) => type !== 'network'); }, attribute: 'namespace-net' },
  'a path is not masked': { change: (spec) => { spec['linux'].maskedPaths = without(spec['linux'].maskedPaths, '/proc/keys'); }, attribute: 'mount' },
  'a path can be written to': { change: (spec) => { spec['linux'].readonlyPaths = without(spec['linux'].readonlyPaths, '/proc/sys'); }, attribute: 'mount-options' },
};

void describe('a container that is more than its bundle grants', () => {
  for (const [name, { change, granted, attribute }] of Object.entries(hostile)) {
    void it(name, async () => {
      let bundle = '';
      const container = await startContainer({
        runtime: 'runc', id: `unlike-${attribute}`, args: ['sleep', '1000'],
        edit: (spec) => {
          const asked = structuredClone(spec);
          granted?.(asked);
          bundle = JSON.stringify(asked);
          change(spec);
        },
      });
      try {
        const running = JSON.parse(readFileSync(join(container.bundle, 'config.json'), 'utf8')) as OciSpec;
        assert.deepEqual(unlike(running, observe(container.pid), container.pid), [], 'beside its own bundle');
        assert.ok(unlike(JSON.parse(bundle) as OciSpec, observe(container.pid), container.pid).some((difference) => difference.attribute === attribute));
      } finally {
        await container.stop();
      }
    });
  }
});
