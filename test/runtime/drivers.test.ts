/** Command lines, configuration files and the choice of descriptors: pure functions. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import { parseContainerId } from '../../src/core/ids.ts';
import { checkpointArgs, criuConfig, mustLeaveRunning, restoreArgs, type Container, type DumpRequest, type RestoreRequest, type RuntimeName } from '../../src/runtime/index.ts';
import { stdioFor } from '../../src/runtime/driver/restore.ts';
import { atLeast, parseVersion } from '../../src/runtime/toolchain.ts';

const at = (runtime: RuntimeName) => ({ runtime, binary: runtime, root: `/run/${runtime}` });
const off = { tcpEstablished: false, fileLocks: false, extUnixSk: false, shellJob: false };

function dumpRequest(runtime: RuntimeName, flags: Partial<DumpRequest['flags']> = {}, pageServer?: string): DumpRequest {
  const container = { id: parseContainerId('c1'), at: at(runtime) } as Container;
  return { container, flags: { leaveRunning: false, ...off, ...flags }, imageDir: '/i', workDir: '/w', pageServer, criuConfig: '/w/criu.conf', operationId: 'op' };
}

function restoreRequest(runtime: RuntimeName, flags: Partial<RestoreRequest['flags']> = {}): RestoreRequest {
  return { at: at(runtime), id: parseContainerId('c2'), bundle: '/b', imageDir: '/i', workDir: '/w', flags: { ...off, tcpClose: false, ...flags }, criuConfig: '/w/criu.conf', operationId: 'op', pidFile: '/b/pid', stdout: '/b/out', stderr: '/b/err' };
}

const global = (runtime: RuntimeName): string[] => ['--root', `/run/${runtime}`, '--log', '/w/runtime.log', '--log-format', 'json'];

describe('checkpoint command lines', () => {
  it('runc 1.3', () => {
    assert.deepEqual(checkpointArgs(dumpRequest('runc'), [1, 3, 6]), [...global('runc'), 'checkpoint', '--image-path', '/i', '--work-path', '/w', '--manage-cgroups-mode', 'ignore', '--link-remap', 'c1']);
    assert.deepEqual(
      checkpointArgs(dumpRequest('runc', { leaveRunning: true, tcpEstablished: true, fileLocks: true, extUnixSk: true, shellJob: true }, '127.0.0.1:27'), [1, 3, 6]),
      [...global('runc'), 'checkpoint', '--image-path', '/i', '--work-path', '/w', '--leave-running', '--tcp-established', '--file-locks', '--ext-unix-sk', '--shell-job', '--manage-cgroups-mode', 'ignore', '--link-remap', '--page-server', '127.0.0.1:27', 'c1'],
    );
  });

  it('connections that wait to be accepted are left out by a flag of runc 1.3, and else by the file alone', () => {
    const flags = { leaveRunning: false, ...off, tcpSkipInFlight: true };
    assert.deepEqual(checkpointArgs(dumpRequest('runc', flags), [1, 3, 6]), [...global('runc'), 'checkpoint', '--image-path', '/i', '--work-path', '/w', '--manage-cgroups-mode', 'ignore', '--link-remap', '--tcp-skip-in-flight', 'c1']);
    assert.deepEqual(checkpointArgs(dumpRequest('runc', flags), [1, 2, 6]), checkpointArgs(dumpRequest('runc'), [1, 2, 6]));
    assert.deepEqual(checkpointArgs(dumpRequest('crun', flags), [1, 28, 0]), checkpointArgs(dumpRequest('crun'), [1, 28, 0]));
  });

  it('runc 1.1 never kills and does not know "ignore"', () => {
    assert.deepEqual(checkpointArgs(dumpRequest('runc'), [1, 1, 15]), [...global('runc'), 'checkpoint', '--image-path', '/i', '--work-path', '/w', '--leave-running', 'c1']);
    assert.ok(mustLeaveRunning(at('runc'), [1, 1, 15]));
    assert.ok(!mustLeaveRunning(at('runc'), [1, 2, 0]));
    assert.ok(!mustLeaveRunning(at('crun'), [1, 1, 0]));
  });

  it('crun', () => {
    assert.deepEqual(checkpointArgs(dumpRequest('crun'), [1, 28, 0]), [...global('crun'), 'checkpoint', '--image-path', '/i', '--work-path', '/w', '--manage-cgroups-mode', 'ignore', 'c1']);
    assert.ok(!checkpointArgs(dumpRequest('crun'), [1, 21, 0]).includes('ignore'));
  });
});

describe('restore command lines', () => {
  it('only crun is told to close connections, from 1.24 on; else the configuration file says so', () => {
    for (const [runtime, version, told] of [['runc', [1, 3, 6], false], ['crun', [1, 23, 0], false], ['crun', [1, 24, 0], true]] as const) {
      assert.equal(restoreArgs(restoreRequest(runtime, { tcpClose: true }), version).includes('--tcp-close'), told);
    }
  });

  it('runc and crun', () => {
    for (const [runtime, version] of [['runc', [1, 3, 6]], ['crun', [1, 28, 0]]] as const) {
      assert.deepEqual(restoreArgs(restoreRequest(runtime, { tcpEstablished: true }), version), [
        ...global(runtime), 'restore', '--detach', '--bundle', '/b', '--image-path', '/i', '--work-path', '/w', '--pid-file', '/b/pid', '--tcp-established', '--manage-cgroups-mode', 'ignore', 'c2',
      ]);
    }
  });
});

describe('criuConfig', () => {
  it('writes one option a line', () => {
    assert.equal(criuConfig({ timeoutSeconds: 30, ghostLimitBytes: 512 * 1024 * 1024 }), 'network-lock nftables\ntimeout 30\nghost-limit 512M\nlink-remap\n');
    assert.equal(
      criuConfig({ timeoutSeconds: 0.2, ghostLimitBytes: 1, actionScript: '/opt/my hook', tcpClose: true, tcpSkipInFlight: true, networkLock: 'skip', watched: ['/etc/a', '/srv/b c'], libdir: '/p' }),
      'network-lock skip\ntimeout 1\nghost-limit 1M\nlink-remap\naction-script "/opt/my hook"\ntcp-close\nskip-in-flight\nirmap-scan-path /etc/a\nirmap-scan-path "/srv/b c"\nlibdir /p\n',
    );
  });

  it('refuses paths that could say more than a path', () => {
    for (const actionScript of ['/a"b', '/a\nlibdir /x', 'relative', '/a\\b', '']) {
      assert.throws(() => criuConfig({ timeoutSeconds: 1, ghostLimitBytes: 1, actionScript }), (error) => isStasisError(error, 'USAGE'));
    }
  });
});

describe('stdioFor', () => {
  const files = { stdout: '/o', stderr: '/e' };
  it('gives pipes where pipes were', () => {
    assert.deepEqual(stdioFor(['/dev/null', 'pipe:[1]', 'pipe:[2]'], files), { stdin: 'null', stdout: '/o', stderr: '/e' });
    assert.deepEqual(stdioFor(['pipe:[1]', 'pipe:[2]', 'pipe:[2]'], files), { stdin: 'pipe', stdout: '/o', stderr: 'same' });
    assert.deepEqual(stdioFor(['/dev/null', '/dev/null', '/dev/null'], files), { stdin: 'null', stdout: 'null', stderr: 'null' });
    assert.deepEqual(stdioFor([], files), { stdin: 'null', stdout: 'null', stderr: 'null' });
  });
});

describe('versions', () => {
  it('are read out of what programs print', () => {
    assert.deepEqual(parseVersion('1.3.6+ds1'), [1, 3, 6]);
    assert.deepEqual(parseVersion('4.2'), [4, 2, 0]);
    assert.deepEqual(parseVersion('6.18.44-fc-v595'), [6, 18, 44]);
    assert.equal(parseVersion('none'), undefined);
    assert.ok(atLeast([1, 10, 0], [1, 9]) && atLeast([1, 2, 0], [1, 2]) && !atLeast([1, 1, 99], [1, 2]) && atLeast([2, 0, 0], [1, 99]));
  });
});
