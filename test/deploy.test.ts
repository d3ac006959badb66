/** What can be told of the deployment files without a cluster or systemd. */
import assert from 'node:assert/strict';
import { accessSync, constants, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { repositoryRoot } from './config/repository-root.ts';

const root = repositoryRoot();
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

interface DaemonSet {
  readonly kind: string;
  readonly spec: { readonly template: { readonly spec: { readonly containers: { image: string; volumeMounts: { name: string; mountPath: string }[] }[]; readonly volumes: { name: string; hostPath: { path: string } }[] } } };
}

void test('the DaemonSet mounts each of its volumes where it is on the node, and names this version', () => {
  const documents = parseAllDocuments(read('deploy/kubernetes/daemonset.yaml')).map((document) => {
    assert.deepEqual(document.errors, []);
    return document.toJS() as DaemonSet;
  });
  const { containers, volumes } = documents.find(({ kind }) => kind === 'DaemonSet')!.spec.template.spec;
  const { image, volumeMounts } = containers[0]!;
  // Paths in checkpoints and in the runtimes' state are those of the node.
  assert.deepEqual(volumeMounts.map(({ name, mountPath }) => [name, mountPath]), volumes.map(({ name, hostPath }) => [name, hostPath.path]));
  assert.equal(image, `localhost/stasis:${(JSON.parse(read('package.json')) as { version: string }).version}`);
});

void test('programs are executable, and the service starts one of them', () => {
  const programs = [...readdirSync(join(root, 'deploy/bin')).map((name) => `deploy/bin/${name}`), ...readdirSync(join(root, 'deploy/libexec')).map((name) => `deploy/libexec/${name}`), 'deploy/image/build', 'deploy/image/make-root'];
  for (const program of programs) accessSync(join(root, program), constants.X_OK);
  const start = /^ExecStart=\/opt\/stasis\/(\S+)$/m.exec(read('deploy/systemd/stasis-agent.service'))?.[1];
  assert.ok(start !== undefined && programs.includes(start));
});

void test('each line of the recipe is a package with a scope', () => {
  const lines = read('deploy/image/packages').split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  assert.deepEqual(lines.filter((line) => !/^[a-z0-9.+-]+ +(image|box)( +(forky|trixie))?$/.test(line)), []);
  assert.deepEqual(lines.map((line) => line.split(' ')[0]).filter((name, index, all) => all.indexOf(name) !== index), []);
});
