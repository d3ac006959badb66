/** What a box promises while it runs, and what it says on a machine that cannot have one. Runs on the machine. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { leftoversAfter, runBox, startMessyBox, uniqueName } from './box.ts';

void test('the root is shared and read-only; /etc, /srv and /var are the box\'s own', () => {
  const first = runBox(['--', 'bash', '-c', 'touch /usr/mine 2>/dev/null && echo written; touch /etc/mine /srv/mine /var/lib/mine /tmp/mine && echo own']);
  assert.equal(first.stdout, 'own\n', first.stderr);
  const second = runBox(['--', 'bash', '-c', 'ls /etc/mine /srv/mine /var/lib/mine /tmp/mine 2>/dev/null']);
  assert.equal(second.stdout, '');
});

void test('orphans are collected', () => {
  const ended = runBox(['--', 'bash', '-c', '(sleep 0.1 &) ; sleep 0.4; ps -eo stat= | grep -c Z']);
  assert.equal(ended.stdout, '0\n');
});

void test('criu says that it looks good', () => {
  const ended = runBox(['--', 'criu', 'check']);
  assert.match(ended.stdout + ended.stderr, /Looks good/);
});

void test('two boxes of one name: the second is refused', async () => {
  const box = await startMessyBox(uniqueName());
  const second = runBox(['--name', box.name, '--', 'true']);
  assert.equal(second.status, 5);
  assert.match(second.stderr, /^stasis: a box named \S+ is running \(process \d+\): choose another --name\n$/);
  process.kill(box.init, 'SIGKILL');
  await once(box.child, 'close');
  assert.equal(runBox(['--name', box.name, '--', 'true']).status, 0, 'the name is free again');
});

void test('boxes with addresses reach each other, and their network goes with the last', async () => {
  const net = 40 + (process.pid % 200);
  const server = await startMessyBox(uniqueName(), ['--address', `10.88.${net}.1/24`]);
  const ask = ['--address', `10.88.${net}.2/24`, '--', 'bash', '-c', `exec 2>&1; (exec 3<>/dev/tcp/10.88.${net}.1/9) || true`];
  // Nobody listens, but somebody answers.
  assert.match(runBox(ask).stdout, /Connection refused/);
  const taken = runBox(['--address', `10.88.${net}.1/24`, '--', 'true']);
  assert.equal(taken.status, 2);
  assert.match(taken.stderr, /is taken by another box/);
  process.kill(server.script, 'SIGKILL');
  await once(server.child, 'close');
  assert.deepEqual(await leftoversAfter(server.name, 15), []);
  assert.equal(existsSync(`/run/stasis-boxes/user-stasis-box-${server.name}`), false);
});

void test('a machine that cannot have a box says why in one sentence, with status 6', () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'], /needs root/],
    [['setpriv', '--bounding-set', '-sys_admin', '--inh-caps', '-sys_admin'], /does not allow new .* namespaces/],
  ];
  for (const [wrapper, sentence] of cases) {
    const ended = runBox(['--', 'true'], wrapper);
    assert.match(ended.stderr, sentence);
    assert.match(ended.stderr, /^stasis: [^\n]+\n$/);
    assert.equal(ended.status, 6);
  }
});

void test('a wrong option is told, with status 2', () => {
  for (const args of [['--frob', '--', 'true'], ['--name'], ['--name', '../x', 'true'], ['--suite', 'sarge', 'true'], ['--address', 'here', 'true']]) {
    const ended = runBox(args);
    assert.equal(ended.status, 2, args.join(' '));
    assert.match(ended.stderr, /^stasis: [^\n]+\nusage: /);
  }
});
