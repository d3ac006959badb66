/**
 * What the agent's own secrets could get out by: the environment of every program that it runs, itself or through others,
 * core dumps, and Node's inspector. Programs are found by wrappers that come first on the PATH.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { keys } from '../../src/config/keys.ts';
import { atFailpoint, checkpoint, endAgents, makeHome, removeHome, restore, startAgent, type AgentHome } from '../support/agent.ts';
import { startCounter } from '../support/counter.ts';

const SECRET = 'the-secret-of-the-agent';
const configured = new Set(keys.map(({ env }) => env));
const programs = ['runc', 'crun', 'criu', 'nft', 'ip', 'nsenter', 'readlink', 'timeout', 'setsid', 'tail', 'sleep', 'sh'];

let home: AgentHome;
let wrappers: string;

before(() => {
  home = makeHome();
  wrappers = mkdtempSync('/run/wrappers-');
  for (const name of programs) {
    const real = execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim();
    const path = join(wrappers, name);
    writeFileSync(path, `#!/bin/sh\n/usr/bin/tr '\\0' '\\n' < /proc/$$/environ >> ${wrappers}/${name}.environ\nexec ${real} "$@"\n`);
    chmodSync(path, 0o755);
  }
});

afterEach(endAgents);

after(async () => {
  await removeHome(home);
  rmSync(wrappers, { recursive: true, force: true });
});

function softCoreLimit(pid: number): string | undefined {
  return /^Max core file size +(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
}

void describe('programs that the agent runs', () => {
  it('get PATH and what is named, in a checkpoint, a restore and a lazy restore', async () => {
    const agent = await startAgent(home, { AWS_SECRET_ACCESS_KEY: SECRET, HTTPS_PROXY: SECRET, PATH: `${wrappers}:${process.env['PATH']}` });
    for (const runtime of ['runc', 'crun'] as const) {
      const counter = await startCounter(runtime);
      try {
        // Over the page server, which lets in the criu of this dump and nobody else.
        const { checkpoint: id } = await checkpoint(agent, counter.id, { memoryPath: runtime === 'runc' ? 'page-server' : 'directory' });
        await counter.adopt(await restore(agent, id, { lazy: runtime === 'runc' ? 'always' : 'never' }));
        await counter.assertCounting();
      } finally {
        await counter.stop();
      }
    }
    const seen = readdirSync(wrappers).filter((name) => name.endsWith('.environ'));
    for (const name of seen) {
      const names = new Set(readFileSync(join(wrappers, name), 'utf8').split('\n').filter((line) => line.includes('=')).map((line) => line.slice(0, line.indexOf('='))));
      assert.ok(!readFileSync(join(wrappers, name), 'utf8').includes(SECRET), `${name}: ${[...names].join(' ')}`);
      assert.deepEqual([...names].filter((variable) => /^(AWS|HTTPS?_PROXY)/.test(variable) || configured.has(variable)), [], name);
    }
    for (const name of ['runc', 'crun', 'criu', 'readlink']) assert.ok(seen.includes(`${name}.environ`), `${name} was run`);
    assert.equal(await agent.stop(), 0);
  });

  it('nor does a guard, whose memory and that of the agent is dumped nowhere', async () => {
    const agent = await startAgent(home, { AWS_SECRET_ACCESS_KEY: SECRET, STASIS_TESTING_FAILPOINT: 'checkpoint.dump=stop' });
    const counter = await startCounter('runc');
    try {
      assert.equal(softCoreLimit(agent.pid), '0');
      const running = checkpoint(agent, counter.id, { leaveRunning: true });
      await atFailpoint(agent, () => {
        const [guard = ''] = readdirSync(join(home.run, 'guards'));
        const pid = Number(readFileSync(join(home.run, 'guards', guard, 'guard.pid'), 'utf8'));
        assert.ok(!readFileSync(`/proc/${pid}/environ`, 'utf8').includes(SECRET));
        assert.equal(softCoreLimit(pid), '0');
      });
      await running;
    } finally {
      await counter.stop();
      await endAgents();
    }
  });

  it('a signal opens no inspector', async () => {
    const agent = await startAgent(home);
    process.kill(agent.pid, 'SIGUSR1');
    // Its inspector would be opened before the next call is answered, or the process have ended.
    await agent.client.getNode({}, { signal: undefined });
    const listening = readFileSync(`/proc/${agent.pid}/net/tcp`, 'utf8').split('\n').filter((line) => line.trim().split(/\s+/)[3] === '0A' && line.includes(':240D '));
    assert.deepEqual(listening, []);
    assert.ok(existsSync(`/proc/${agent.pid}`));
    await agent.stop();
  });
});
