/** Which device nodes config.json grants. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { allowsDevice, deviceOf } from '../../src/core/devices.ts';
import { nodeRules, nodeRulesForStrangers, type OciSpec } from '../../src/runtime/index.ts';

const disk = deviceOf(true, 8, 0);
const fuse = deviceOf(false, 10, 229);
const zero = deviceOf(false, 1, 5);
const deny = { allow: false, access: 'rwm' };

/** Rules of the cgroup, devices that are made, then who may have disk, fuse and zero: of the container's own files, of a stranger's. */
const cases: readonly (readonly [name: string, linux: NonNullable<OciSpec['linux']>, own: string, stranger: string])[] = [
  ['nothing said', {}, '--z', '--z'],
  ['all denied', { resources: { devices: [deny] } }, '--z', '--z'],
  ['all allowed', { resources: { devices: [deny, { allow: true, access: 'rwm' }] } }, 'dfz', '--z'],
  ['a kind allowed, with -1 for all', { resources: { devices: [{ allow: true, type: 'b', major: -1, minor: -1, access: 'rwm' }] } }, 'd-z', '--z'],
  ['named with its numbers', { resources: { devices: [deny, { allow: true, type: 'c', major: 10, minor: 229, access: 'rwm' }] } }, '-fz', '-fz'],
  ['to be made, not used', { resources: { devices: [{ allow: true, type: 'b', major: 8, minor: 0, access: 'm' }] } }, 'd-z', '--z'],
  ['to be used, not made', { resources: { devices: [{ allow: true, type: 'b', major: 8, minor: 0, access: 'rw' }] } }, '--z', '--z'],
  ['allowed, then denied', { resources: { devices: [{ allow: true, access: 'rwm' }, { allow: false, type: 'b', major: 8, access: 'rwm' }] } }, '-fz', '--z'],
  ['made by the runtime', { devices: [{ path: '/dev/x', type: 'b', major: 8, minor: 0 }, { path: '/dev/y', type: 'p' }] }, 'd-z', 'd-z'],
  ['in a user namespace', { namespaces: [{ type: 'user' }], devices: [{ type: 'b', major: 8, minor: 0 }], resources: { devices: [{ allow: true, access: 'rwm' }] } }, '--z', '--z'],
  ['nonsense', { devices: 7, resources: { devices: [null, 3, { allow: 'yes' }] } }, '--z', '--z'],
];

void describe('devices of config.json', () => {
  for (const [name, linux, own, stranger] of cases) {
    void it(name, () => {
      for (const [rules, expected] of [[nodeRules({ linux }), own], [nodeRulesForStrangers({ linux }), stranger]] as const) {
        assert.equal([disk, fuse, zero].map((device, index) => (allowsDevice(rules, device) ? 'dfz'[index] : '-')).join(''), expected);
      }
    });
  }
});
