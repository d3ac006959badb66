/**
 * docs/FIDELITY.md is what happens: containers in which every attribute has an unusual value are stopped and restored. Each is
 * read before, at the gate (criu has made everything, Stasis has put nothing back), and afterwards, by means of the test's own.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { listPids, readProc } from '../../src/host/proc.ts';
import { ATTRIBUTES, type Attribute, type Keeper } from '../../src/runtime/fidelity/index.ts';
import { atFailpoint, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome, type TestAgent } from '../support/agent.ts';
import type { CheckpointResult } from '../../src/rpc/api.ts';
import type { TestContainer } from '../support/containers.ts';
import { fidelityRow, fidelityRows } from '../support/fidelity-rows.ts';
import { childOf, limitable, startMapped, startUnusual } from '../support/unusual.ts';
import { READINGS, ask, type Subjects } from '../support/unusual-readings.ts';

let home: AgentHome;
before(() => {
  home = makeHome();
});
after(() => removeHome(home));
afterEach(endAgents);

type Values = Readonly<Record<string, string | undefined>>;

const subjectsOf = (init: number, mapped: number): Subjects => ({ init, mapped, other: childOf(init, 'other'), confined: childOf(init, 'confined') });

/** What its own process has: nobody has changed that. */
const usual: Values = Object.fromEntries(Object.entries(READINGS).map(([name, reading]) => [name, reading.usual ?? reading.read({ init: process.pid, other: process.pid, confined: process.pid, mapped: process.pid })]));

function readAll(subjects: Subjects, which: (name: string) => boolean = () => true): Values {
  return Object.fromEntries(Object.entries(READINGS).filter(([name]) => which(name)).map(([name, { read }]) => [name, read(subjects)]));
}

const ofMounts = (name: string): boolean => /^(mount|mask|file-system)/.test(name);
const ofMapped = (name: string): boolean => ['namespace-user', 'uid', 'gid'].includes(name);

/** Restores it, and reads it where it stands still: mounts at the first stage, all else at the second. */
async function restoreReading(agent: TestAgent, saved: string, look: (pid: number, stage: string) => void): Promise<number> {
  const restoring = restore(agent, saved);
  restoring.catch(() => undefined);
  for (const stage of ['post-restore', 'pre-resume']) {
    await atFailpoint(agent, () => {
      const gates = join(home.run, 'gates');
      look(Number(readFileSync(join(gates, readdirSync(gates)[0] ?? '', stage), 'utf8')), stage);
    });
  }
  return (await restoring).pid;
}

/** Nothing unusual may make the rehearsal of a stop fail, whose restore succeeds. */
async function rehearsed(agent: TestAgent, container: string): Promise<CheckpointResult> {
  const stopped = await checkpoint(agent, container, { rehearsal: 'always' });
  assert.deepEqual(stopped.findings.filter(({ kind }) => kind === 'difference'), []);
  return stopped;
}

/** What a restore is made from: the images of criu that hold something, and what criu and the runtime were told. */
interface Evidence {
  readonly images: readonly string[];
  readonly words: string;
}

function evidence(): Evidence {
  const staging = join(home.run, 'staging');
  const images = readdirSync(staging).map((one) => join(staging, one, 'images'));
  const commands = listPids().map((pid) => readProc(pid, 'cmdline')?.replaceAll('\0', ' ') ?? '').filter((line) => line.includes(' restore '));
  const files = readdirSync(join(home.state, 'logs')).map((one) => join(home.state, 'logs', one, 'criu.conf')).filter((path) => existsSync(path));
  return {
    images: images.flatMap((path) => readdirSync(path).filter((name) => statSync(join(path, name)).size > 16)),
    words: [...commands, ...files.map((path) => readFileSync(path, 'utf8'))].join('\n'),
  };
}

/** What happened to the attribute. Fails the test where its value proves nothing. */
function verdict({ name }: Attribute, was: Values, gate: Values, is: Values, { images, words }: Evidence): Keeper {
  const reading = READINGS[name]!;
  assert.notEqual(was[name], usual[name], `${name} has its usual value ${usual[name]}: it would come back by itself`);
  if (is[name] !== was[name]) return 'lost';
  if (reading.told) return 'kept';
  if (gate[name] !== was[name]) return 'put-back';
  if (reading.forbidden?.test(words) === true) return 'put-back';
  return reading.images !== undefined && !images.some((image) => reading.images!.test(image)) ? 'put-back' : 'kept';
}

/** The least of what the runtimes make of it. */
const ORDER: readonly Keeper[] = ['kept', 'put-back', 'lost'];

void describe('the table of attributes', () => {
  const found = new Map<string, Keeper>();
  const containers: TestContainer[] = [];
  after(async () => {
    for (const container of containers) await container.stop();
  });

  for (const runtime of ['runc', 'crun'] as const) {
    void it(`every attribute of a container of ${runtime} is kept, put back, or lost and said`, async (t) => {
      assert.deepEqual(ATTRIBUTES.map(({ name }) => name).filter((name) => !Object.hasOwn(READINGS, name)), [], 'attributes that nobody has tried');
      const [first, second] = [await startUnusual(runtime), await startMapped(runtime)];
      containers.push(first, second);
      const subjects = subjectsOf(first.pid, second.pid);
      await ask(subjects);
      const was = readAll(subjects);

      const stages = ['post-restore', 'pre-resume'].flatMap((stage) => [1, 2].map((count) => `restore.gate.${stage}:${count}=stop`));
      const agent = await startAgent(home, { STASIS_TESTING_FAILPOINT: stages.join(',') });
      const mapped = await rehearsed(agent, second.id);
      const saved = await rehearsed(agent, first.id);

      const gate: Record<string, string | undefined> = {};
      let shown: Evidence = { images: [], words: '' };
      const mappedPid = await restoreReading(agent, mapped.checkpoint, (pid, stage) => {
        if (stage === 'pre-resume') Object.assign(gate, readAll({ init: pid, other: pid, confined: pid, mapped: pid }, ofMapped));
      });
      const pid = await restoreReading(agent, saved.checkpoint, (init, stage) => {
        shown = evidence();
        Object.assign(gate, readAll(subjectsOf(init, mappedPid), (name) => READINGS[name]?.told !== true && !ofMapped(name) && ofMounts(name) === (stage === 'post-restore')));
      });
      const afterwards = subjectsOf(pid, mappedPid);
      await ask(afterwards);
      const is = readAll(afterwards);

      for (const attribute of ATTRIBUTES) {
        const { name } = attribute;
        if (was[name] === undefined && name.startsWith('limits-') && !(limitable() && name !== 'limits-io')) {
          t.diagnostic(`${name}: this machine has no such controller`);
          continue;
        }
        if (was[name] === undefined && name === 'security-label') {
          t.diagnostic(`${name}: this machine has no AppArmor or SELinux`);
          continue;
        }
        const keeper = verdict(attribute, was, gate, is, shown);
        if (ORDER.indexOf(keeper) > ORDER.indexOf(attribute.keeper)) t.diagnostic(`${name} is ${keeper}: was ${was[name]}, at the gate ${gate[name]}, is ${is[name]}`);
        if (keeper === 'lost') {
          const said = saved.findings.some(({ kind, message }) => kind === attribute.finding && READINGS[name]?.finding?.test(message) === true);
          assert.ok(said, `${name} was lost in silence: ${was[name]} became ${is[name]}; said was ${saved.findings.map(({ message }) => message).join('; ')}`);
        }
        if (ORDER.indexOf(keeper) >= ORDER.indexOf(found.get(name) ?? 'kept')) found.set(name, keeper);
      }
    });
  }

  void it('docs/FIDELITY.md says so', () => {
    const table = ATTRIBUTES.map((attribute) => fidelityRow(attribute, found.get(attribute.name) ?? attribute.keeper));
    assert.deepEqual(fidelityRows(), table, `docs/FIDELITY.md shall have\n${table.join('\n')}\n`);
  });
});
