/** The table of attributes and its document, and the comparison of records. */
import assert from 'node:assert/strict';
import { closeSync, constants, openSync } from 'node:fs';
import { test } from 'node:test';
import { ATTRIBUTES, compare, observe, type FidelityRecord } from '../../src/runtime/fidelity/index.ts';
import { differencesInPlace } from '../../src/runtime/index.ts';
import { labelOf } from '../../src/runtime/fidelity/task-attributes.ts';
import { Descriptors } from '../../src/runtime/fidelity/descriptors.ts';
import { fidelityRow, fidelityRows } from '../support/fidelity-rows.ts';

void test('docs/FIDELITY.md has the rows of the table, and no other', () => {
  assert.deepEqual(fidelityRows(), ATTRIBUTES.map((attribute) => fidelityRow(attribute, attribute.keeper)));
});

void test('a record is like itself, and every change of every value in it is found', () => {
  const record = observe(process.pid);
  assert.deepEqual(compare(record, observe(process.pid)).filter(({ attribute }) => !['tasks', 'signals-caught'].includes(attribute)), []);
  for (const [name, observation] of Object.entries(record.attributes)) {
    // More isolation than before is no difference.
    if (name.startsWith('namespace-') && observation.usual === 'node') continue;
    const changed: FidelityRecord = { ...record, attributes: { ...record.attributes, [name]: { usual: `${observation.usual} and more` } } };
    assert.ok(compare(record, changed).some(({ attribute }) => attribute === name), name);
  }
});

void test('a rehearsal passes over what the scratch place makes different, and over nothing else', () => {
  const subjects = { tasks: ['1'], threads: [], mounts: ['/', '/mnt'] };
  const record = (value: string): FidelityRecord => ({
    version: 1, ...subjects, attributes: Object.fromEntries(ATTRIBUTES.map(({ name }) => [name, { usual: value }])),
  });
  const found = (was: string, is: string): string[] => differencesInPlace(
    record(was), record(is), { viewed: new Set(['/']) },
  ).map(({ attribute, subject }) => `${attribute} ${subject}`);
  const ofTheView = ['mount', 'file-system-options', 'mount-part'];
  const ofMounts = ATTRIBUTES.filter(({ name }) => /^(mount|mask|file-system)/.test(name)).map(({ name }) => name);
  // Processes are counted without criu, and any letter may stand for another.
  const passed = /^(limits-processes|namespace-.*)$/;
  const expected = ATTRIBUTES.filter(({ name }) => !passed.test(name)).flatMap(({ name }) => {
    if (ofMounts.includes(name)) return [...(ofTheView.includes(name) ? [] : [`${name} /`]), `${name} /mnt`];
    return [`${name} ${/^(limits|host|ipc|network|multicast)/.test(name) ? '' : '1'}`];
  });
  assert.deepEqual(found('a', 'b').sort(), expected.sort());
  const limitsOfCpu = (list: string): string[] => found(`cpu.shares = 2; ${list}`, 'cpu.shares = 2').filter((one) => one.startsWith('limits-cpu '));
  assert.deepEqual([limitsOfCpu('cpu.rt_runtime_us = 500000'), limitsOfCpu('cpu.weight = 3')], [[], ['limits-cpu ']]);
});

void test('a process, a thread or a mount too many or too few is found', () => {
  const record = observe(process.pid);
  for (const [list, attribute] of [['tasks', 'tasks'], ['threads', 'tasks'], ['mounts', 'mount']] as const) {
    const more = { ...record, [list]: [...record[list], 'another'] };
    assert.deepEqual(compare(record, more), [{ attribute, subject: 'another', was: undefined, is: 'there' }]);
    assert.deepEqual(compare(more, record), [{ attribute, subject: 'another', was: 'there', is: undefined }]);
  }
});

void test('who shares a namespace counts, not in which order the namespaces were seen', () => {
  const tasks = ['1', '2', '3', '4'];
  const record = (values: string): FidelityRecord => ({
    version: 1, tasks, threads: [], mounts: [], attributes: { 'namespace-mnt': { usual: '', others: Object.fromEntries(tasks.map((task, index) => [task, values.split(' ')[index] ?? ''])) } },
  });
  const differs = (was: string, is: string): string[] => compare(record(was), record(is)).map(({ subject }) => subject);
  assert.deepEqual(differs('a b c b', 'a c b c'), []);
  assert.deepEqual(differs('node b c b', 'a b c b'), []);
  assert.deepEqual(differs('a b c b', 'a b c c'), ['4']);
  assert.deepEqual(differs('a b b b', 'a b c b'), ['3']);
  assert.deepEqual(differs('a b c b', 'a b b b'), ['3']);
  assert.deepEqual(differs('a b a b', 'a a a a'), ['2', '4']);
  assert.deepEqual(differs('a b a b', 'a node a b'), ['2']);
  assert.deepEqual(differs('a b', 'a '), ['2']);
});

void test('labels are compared without what is the node\'s', () => {
  assert.equal(labelOf('docker-default (enforce)\n'), 'docker-default');
  assert.equal(labelOf('/usr/bin/a:b:c:d//x (complain)\n'), '/usr/bin/a:b:c:d//x');
  assert.equal(labelOf('system_u:system_r:container_t:s0:c1,c2\0'), 'system_u:system_r:container_t');
  assert.equal(labelOf('unconfined\n'), 'unconfined');
});

void test('flags of the opening itself are no part of a descriptor', () => {
  const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const words = (flags: number): string | undefined => {
    const fd = openSync('/', flags);
    try {
      return new Descriptors(1).of(process.pid);
    } finally {
      closeSync(fd);
    }
  };
  assert.equal(words(O_DIRECTORY | O_NOFOLLOW), words(0));
  assert.notEqual(words(O_NONBLOCK), words(0));
});
