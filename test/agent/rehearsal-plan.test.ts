/** What makes `rehearsal: auto` rehearse a stop: each of these alone does, and all else does not. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Rehearsals, shapeOf } from '../../src/agent/rehearsals.ts';
import { planRehearsal, type PlanRequest } from '../../src/agent/checkpoint/rehearsal-plan.ts';
import type { AgentContext } from '../../src/agent/context.ts';
import { newLineageId, parseContainerId } from '../../src/core/ids.ts';
import { readStat } from '../../src/host/proc.ts';
import type { CheckpointFlags, Container, Finding, OciSpec, Rootfs, Toolchain, Verdict } from '../../src/runtime/types.ts';

const lineage = newLineageId();
let directory: string;
let runtime: string;
let cgroup: string | undefined;
let sleeper: ChildProcess;
let agent: Agent;
let plan: PlanRequest;

type Agent = Pick<AgentContext, 'settings' | 'toolchain' | 'rehearsals'>;

const toolchain: Toolchain = {
  criu: { version: [4, 2, 1], text: '4.2.1' }, kernel: '6.18.0', features: { uffd: true }, problems: [],
  runtimes: [{ name: 'runc', binary: '/usr/sbin/runc', version: '1.3.6', versionNumbers: [1, 3, 6] }],
};
const spec: OciSpec = {
  ociVersion: '1.2.0', root: { path: 'rootfs' }, hostname: 'box', annotations: { name: 'a' },
  process: { terminal: false, args: ['sleep', '1000'], cwd: '/', user: { uid: 0 }, rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }] } as NonNullable<OciSpec['process']>,
  mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
  linux: { cgroupsPath: '/box', namespaces: [{ type: 'pid' }], resources: { pids: { limit: 100 } }, maskedPaths: ['/proc/kcore'] },
};
const rootfs: Rootfs = { kind: 'overlay', merged: '/m', lower: ['/layers/1', '/layers/2'], upper: '/u', work: '/w', options: ['index=off'] };
const warning: Finding = { severity: 'warning', kind: 'headroom', message: 'process 12 holds 34 MiB', hint: '' };
const flags: CheckpointFlags = { leaveRunning: false, tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };

/** Where limits are on this machine: a hierarchy with numbers of processes or shares of a processor. */
function limitHierarchy(): { at: string; file: string } | undefined {
  if (existsSync('/sys/fs/cgroup/pids')) return { at: '/sys/fs/cgroup/pids', file: 'pids.max' };
  const controllers = existsSync('/sys/fs/cgroup/cgroup.controllers') ? readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8') : '';
  return controllers.split(/\s/).includes('pids') ? { at: '/sys/fs/cgroup', file: 'pids.max' } : undefined;
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'rehearsal-plan-'));
  runtime = join(directory, 'runc');
  writeFileSync(runtime, 'first');
  sleeper = spawn('sleep', ['1000'], { stdio: 'ignore' });
  await once(sleeper, 'spawn');
  const limits = limitHierarchy();
  if (limits !== undefined) {
    cgroup = join(limits.at, `rehearsal-plan-${process.pid}`);
    mkdirSync(cgroup);
    writeFileSync(join(cgroup, 'cgroup.procs'), String(sleeper.pid));
  }
  const pid = sleeper.pid ?? 0;
  const container: Container = {
    id: parseContainerId('planned'), at: { runtime: 'runc', binary: runtime, root: '/run/runc' }, status: 'running', pid,
    pidStart: readStat(pid)?.startTime ?? 0, bundle: '/b', createdMs: 1, spec, manager: 'plain', name: 'planned', freezer: undefined, rootfs,
  };
  const verdict: Verdict = {
    checkpointable: true, findings: [warning], memory: { bytes: 1, shared: 0, processes: 1 }, volumes: [],
    shape: ['descriptor pipe', 'mount /proc proc '],
  };
  const settings = { rehearsal: 'auto', version: '1', ghostLimitBytes: 1 } as AgentContext['settings'];
  agent = { settings, toolchain, rehearsals: new Rehearsals(join(directory, 'rehearsals.json')) };
  const request = { flags, allowDifference: [] as string[], rehearsal: undefined } as unknown as PlanRequest['request'];
  plan = { container, verdict, request, lineage, stop: true, budgetMs: 60_000, memoryPath: 'directory', rounds: false };
});

after(async () => {
  const ended = once(sleeper, 'exit');
  sleeper.kill('SIGKILL');
  await ended;
  if (cgroup !== undefined) {
    for (let tries = 0; readFileSync(join(cgroup, 'cgroup.procs'), 'utf8') !== '' && tries < 100; tries++) await delay(10);
    rmdirSync(cgroup);
  }
  rmSync(directory, { recursive: true });
});

/** Why the stop is not rehearsed; undefined when it is. */
function skipped(change: Partial<PlanRequest> = {}, of: Partial<Agent> = {}): string | undefined {
  return planRehearsal({ ...agent, ...of } as AgentContext, { ...plan, ...change }).skipped;
}

/** This stop has been rehearsed. */
function remember(): void {
  agent.rehearsals.remember(lineage, shapeOf(agent, plan), 10);
}

const changedContainer = (change: Partial<Container>): Partial<PlanRequest> => ({ container: { ...plan.container, ...change } });
const changedVerdict = (change: Partial<Verdict>): Partial<PlanRequest> => ({ verdict: { ...plan.verdict, ...change } });
const changedRequest = (change: object): Partial<PlanRequest> => ({ request: { ...plan.request, ...change } });
const changedSettings = (change: object): Partial<Agent> => ({ settings: { ...agent.settings, ...change } });

/** Everything below a value, each changed alone: of an object its fields, of a list one more. */
function variations(value: unknown): unknown[] {
  if (Array.isArray(value)) return [[...value, value[0]], ...value.flatMap((entry, at) => variations(entry).map((changed) => value.with(at, changed)))];
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([name, inner]) => variations(inner).map((changed) => ({ ...value, [name]: changed })));
  }
  if (typeof value === 'number') return [value + 1];
  return [typeof value === 'boolean' ? !value : `${String(value)}x`];
}

void describe('a stop under rehearsal: auto', () => {
  void it('is rehearsed when it is the first of its lineage, and not a second time', () => {
    assert.equal(skipped(), undefined);
    remember();
    assert.match(skipped() ?? '', /nothing that matters has changed/);
    assert.equal(skipped({ lineage: newLineageId() }), undefined);
    assert.match(skipped({}, { rehearsals: new Rehearsals(join(directory, 'rehearsals.json')) }) ?? '', /nothing that matters/, 'a restart of the agent');
    agent.rehearsals.forget(lineage);
    assert.equal(skipped(), undefined, 'the last one failed, or was not possible');
  });

  void it('is rehearsed after any one change of what a restore depends on', () => {
    remember();
    const { root: _root, annotations: _annotations, ...kept } = spec;
    const specs = variations(kept).map((changed) => [JSON.stringify(changed), changedContainer({ spec: { ...spec, ...changed as OciSpec } })] as const);
    const chains = variations(toolchain).map((changed) => [JSON.stringify(changed), {}, { toolchain: changed as Toolchain }] as const);
    const layers = [
      { ...rootfs, lower: ['/layers/1', '/layers/3'] }, { ...rootfs, lower: ['/layers/1'] }, { ...rootfs, options: [] }, { kind: 'plain', path: '/m' } as const,
    ].map((changed) => [JSON.stringify(changed), changedContainer({ rootfs: changed })] as const);
    const findings = [
      [], [warning, { ...warning, kind: 'unusual' }], [{ ...warning, message: 'process 12 holds nothing' }],
    ].map((changed) => [JSON.stringify(changed), changedVerdict({ findings: changed })] as const);
    const asked = Object.keys(flags).map((name) => [name, changedRequest({ flags: { ...flags, [name]: true } })] as const);
    const rows: readonly (readonly [string, Partial<PlanRequest>, Partial<Agent>?])[] = [
      ...specs, ...chains, ...layers, ...findings, ...asked,
      ['another kind of descriptor', changedVerdict({ shape: [...plan.verdict.shape, 'descriptor socket'] })],
      ['one kind of descriptor less', changedVerdict({ shape: plan.verdict.shape.slice(1) })],
      ['another difference allowed', changedRequest({ allowDifference: ['nice'] })],
      ['another runtime', changedContainer({ at: { ...plan.container.at, runtime: 'crun' } })],
      ['another agent', {}, changedSettings({ version: '2' })],
      ['another limit of unlinked files', {}, changedSettings({ ghostLimitBytes: 2 })],
    ];
    assert.ok(rows.length > 50, String(rows.length));
    // Without a pid namespace of its own it is impossible for another reason.
    assert.deepEqual(rows.filter(([, change, of]) => skipped(change, of)?.startsWith('nothing') === true).map(([name]) => name), []);
  });

  void it('is rehearsed after an upgrade of the runtime or of criu that keeps the version', () => {
    remember();
    writeFileSync(runtime, 'another');
    assert.equal(skipped(), undefined, 'the runtime is another file');
    remember();
    utimesSync(runtime, 1, 1);
    assert.equal(skipped(), undefined, 'of the same size');
    remember();
    const path = process.env['PATH'];
    writeFileSync(join(directory, 'criu'), '');
    process.env['PATH'] = `${directory}:${path}`;
    try {
      assert.equal(skipped(), undefined, 'criu is another file');
    } finally {
      process.env['PATH'] = path;
    }
    assert.notEqual(skipped(), undefined);
  });

  void it('is rehearsed after a restart of the node, and after a change of criu\'s own configuration', () => {
    const module = new URL('../../src/agent/rehearsals.js', import.meta.url).href;
    const program = `import { shapeOf } from ${JSON.stringify(module)}; console.log(shapeOf(...${JSON.stringify([agent, plan])}))`;
    // Nobody else sees what is mounted there.
    const shape = (mounts: string): string => execFileSync('unshare', ['--mount', 'sh', '-euc', `${mounts}\nexec "$0" --input-type=module -e "$1"`, process.execPath, program], { encoding: 'utf8' }).trim();
    const file = join(directory, 'boot');
    writeFileSync(file, '00000000-0000-0000-0000-000000000000\n');
    const before = shapeOf(agent, plan);
    assert.equal(shape(''), before);
    assert.notEqual(shape(`mount --bind ${file} /proc/sys/kernel/random/boot_id`), before);
    mkdirSync('/etc/criu', { recursive: true });
    for (const name of ['default', 'runc', 'crun']) assert.notEqual(shape(`mount -t tmpfs none /etc/criu; echo > /etc/criu/${name}.conf`), before, name);
  });

  void it('is rehearsed after a change of the limits of its cgroup', { skip: limitHierarchy() === undefined ? 'no controller with limits on this machine' : false }, () => {
    remember();
    assert.notEqual(skipped(), undefined);
    writeFileSync(join(cgroup ?? '', 'pids.max'), '77');
    assert.equal(skipped(), undefined);
  });

  void it('is not rehearsed for anything else', () => {
    remember();
    const rows: readonly (readonly [string, Partial<PlanRequest>])[] = [
      ['other pids and sizes in what is found', changedVerdict({ findings: [{ ...warning, message: 'process 120 holds 9 MiB' }] })],
      ['a warning more than once', changedVerdict({ findings: [warning, warning] })],
      ['more memory', changedVerdict({ memory: { ...plan.verdict.memory, bytes: 1 << 20 } })],
      ['another name', changedContainer({ id: parseContainerId('other'), name: 'other', bundle: '/c', createdMs: 2 })],
      ['a writable layer made anew', changedContainer({ rootfs: { ...rootfs, merged: '/n', upper: '/v', work: '/x' } })],
      ['labels', changedContainer({ spec: { ...spec, annotations: { name: 'b' } } })],
      ['the place of its root', changedContainer({ spec: { ...spec, root: { path: '/m' } } })],
      ['another budget', { budgetMs: 50_000 }],
      ['memory read in rounds', { rounds: true }],
    ];
    assert.deepEqual(rows.filter(([, change]) => skipped(change) === undefined).map(([name]) => name), []);
  });

  void it('one that cannot be rehearsed says why, and fails only where it must be', () => {
    agent.rehearsals.forget(lineage);
    const rows: readonly (readonly [RegExp, Partial<PlanRequest>])[] = [
      [/freeze budget is/, { budgetMs: 1 }],
      [/pid namespace of the node/, changedContainer({ spec: { ...spec, linux: { namespaces: [] } } })],
      [/joined the pid namespace/, changedContainer({ spec: { ...spec, linux: { namespaces: [{ type: 'pid', path: '/proc/1/ns/pid' }] } } })],
      [/shared memory would be there twice/, changedVerdict({ memory: { ...plan.verdict.memory, shared: 2 ** 50 } })],
    ];
    for (const [why, change] of rows) {
      assert.match(skipped(change) ?? '', why);
      const always = { ...plan, ...change, request: { ...plan.request, rehearsal: 'always' } } as PlanRequest;
      assert.throws(() => planRehearsal(agent as AgentContext, always), { code: 'REHEARSAL_FAILED', message: why });
    }
    assert.match(skipped({ stop: false }) ?? '', /left running/);
    assert.match(skipped(changedRequest({ rehearsal: 'never' })) ?? '', /not asked for/);
    remember();
    assert.equal(skipped({ ...changedRequest({ rehearsal: 'always' }), stop: false }), undefined, 'always is always');
    assert.match(skipped({}, changedSettings({ rehearsal: 'never' })) ?? '', /not asked for/);
  });
});
