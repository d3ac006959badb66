/** CRIU's words to causes: the table, the choice of the line, and what must never be said. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { dumpCauses } from '../../src/runtime/criu-log/causes.ts';
import { commonCauses, restoreCauses } from '../../src/runtime/criu-log/restore-causes.ts';
import { explainFailure } from '../../src/runtime/driver/failure.ts';
import { explainCriuLog, readLog } from '../../src/runtime/index.ts';

const error = (text: string, file = 'criu/some.c:1'): string => `(00.012345) Error (${file}): ${text}`;
const harmless = '(00.000368) Error (criu/util.c:1534): rlimit: Can\'t setup RLIMIT_NOFILE for self: Operation not permitted';
const end = '(00.078173) Error (criu/cr-dump.c:1975): Dumping FAILED.';

/** Line of CRIU, kind, and a part of the message that must hold the values of the line. */
const dumps: readonly [string, string, string?][] = [
  ['unix: External socket is used. Consider using --ext-unix-sk option.', 'external-unix-socket'],
  ["unix: Can't dump half of stream unix connection, name: /run/db.sock.", 'external-unix-socket', '/run/db.sock'],
  ['Unknown shit 600 (anon_inode:[io_uring])', 'io_uring'],
  ["Can't retrieve FDs from socket", 'io_uring'],
  ["Can't open 77's mapfile link 7f00: No such device or address", 'mapping', '77'],
  ["Can't dump file 5 of that type [20666] (chr 10:229)", 'descriptor', 'descriptor 5 (chr 10:229)'],
  ["Can't handle non-regular mapping on 12's map 7f0000000000", 'device', 'process 12'],
  ['handle_device_vma plugin failed: No such file or directory', 'device'],
  ["fsnotify: \tCan't dump that handle", 'file-watch'],
  ['inet: In-flight connection (l) for 17e35', 'in-flight'],
  ['inet: Connected TCP socket, consider using --tcp-established option.', 'tcp-established'],
  ['inet: Unsupported proto 262 for socket 1ba05', 'socket', 'multipath'],
  ["sockets: Can't get 1:16 opt: Operation not supported", 'criu'],
  ["Can't lookup mount=42 for fd=1 path=/var/log/x", 'mount', '/var/log/x'],
  ["mnt: 120:./data doesn't have a proper root mount", 'mount', './data'],
  ['mnt: Mount 77 ./x (master_id: 3 shared_id: 0) has unreachable sharing. Try --enable-external-masters.', 'mount'],
  ['mnt: FS mnt ./fuse dev 0x2c root / unsupported id 41', 'mount', './fuse'],
  ['Locking network failed: iptables-restore returned 4 - Try using nftables', 'network-lock', '4'],
  ['Locking network failed using nftables', 'network-lock'],
  ["Task 9 with SysVIPC shmem map @7f00 doesn't live in IPC ns", 'host-ipc'],
  ['A session leader of 44(12) is outside of its pid namespace', 'exec-session', '44'],
  ['The root process 3 is not a session leader. Consider using --shell-job option', 'tty'],
  ['tty: Found dangling tty with sid 12 pgid 12 (pts) on peer fd 0.', 'tty', '12'],
  ['Some file locks are hold by dumping tasks! You can try --file-locks to dump them.', 'file-lock'],
  ["Can't dump ghost file /tmp/big of 3002368 size, increase limit", 'deleted-file', '/tmp/big of 3002368'],
  ["Can't create link remap for /var/x. Use link-remap option.", 'deleted-file', '/var/x'],
  ['failed to suspend seccomp, restore will probably fail', 'seccomp'],
  ['9 has rseq but kernel lacks get_rseq_conf feature', 'kernel', '9'],
  ['Unable to connect a transport socket: Permission denied', 'security-module'],
  ["Can't infect (pid: 12) with parasite", 'traced', '12'],
  ['zombie 912 (comm perl) found while seizing', 'traced', '912 (perl)'],
  ['Unseizable non-zombie 12 found, state D, err -1/1', 'uninterruptible', '12 is in state D'],
  ['The criu itself is within dumped tree.', 'self'],
  ['Unable to freeze cgroup /sys/fs/cgroup/freezer/x (too many attempts)', 'freeze', '/sys/fs/cgroup/freezer/x'],
  ['Timeout reached. Try to interrupt: 12', 'freeze', '12'],
  ["Can't dump nested uts namespace for 650", 'nested-namespace', '650 has made a uts'],
  ['net: Unable to dump more than one netns if the --emptyns is set', 'nested-namespace'],
  ['Tracking memory is not available. Consider omitting --track-mem option.', 'kernel'],
  ['Individually stopped threads not supported', 'stopped-thread'],
  ['7 has uprobes vma. Consider using --allow-uprobes.', 'uprobes', '7'],
  ['cuda_plugin: CHECKPOINT_DEVICES failed with out of memory', 'gpu', 'out of memory'],
  ["page-xfer: Can't write pages to socket: Broken pipe", 'page-server'],
  ["page-xfer: The page server doesn't answer", 'page-server'],
  ["Can't write image: No space left on device", 'space'],
  ["vdso: Unexpected rt vDSO area bounds", 'kernel', 'too old'],
  ['Could not initialize kernel features detection.', 'kernel'],
];

const restores: readonly [string, string, string?][] = [
  ['inet: Connected TCP socket in image', 'tcp-established'],
  ['Need to set the --tcp-close options.', 'tcp-close'],
  ["inet: Can't bind inet socket (id 12): Address already in use", 'address', 'port'],
  ["inet: Can't bind inet socket (id 12): Cannot assign requested address", 'address', 'does not exist here'],
  ["inet: Can't connect inet socket back: Network is unreachable", 'address'],
  ['mnt: No mapping for 120:/data mountpoint', 'mount', '/data'],
  ["mnt: Can't mount at ./data: No such file or directory", 'mount', './data'],
  ['Pid 7 do not match expected 12', 'pid', '12'],
  ["Can't fork for 12: File exists", 'pid', '12'],
  ['This process tree can only be restored in a new pid namespace.', 'pid'],
  ["Can't open sys/kernel/ns_last_pid: Read-only file system ns_last_pid Read-only file system", 'permission'],
  ['tty: Found slave peer index 3 without correspond master peer', 'tty'],
  ['files-reg: File var/log/x has bad size 12 (expect 4096)', 'file-changed', 'var/log/x has 12 bytes, the checkpoint expects 4096'],
  ['files-reg: File bin/x has bad mode 0100644 (expect 0100755)', 'file-changed', 'bin/x'],
  ["files-reg: Can't open file usr/lib/x on restore: No such file or directory", 'file-missing', 'usr/lib/x'],
  ['cpu: CPU instruction capabilities do not match run time', 'cpu'],
  ['cpu: FPU feature required by image avx512 is not supported on host.', 'cpu'],
  ['cpu: CPU xsave size mismatch (current 1 saved 2)', 'cpu'],
  ['Missing required plugin: cuda_plugin', 'plugin', 'cuda_plugin'],
  ['Missing 7f0000000000 in parent pagemap', 'images'],
  ["Magic doesn't match for pstree.img", 'images', 'pstree.img'],
  ['Not supported images version 9', 'images'],
  ['uffd: connect to lazy-pages.socket failed: No such file or directory', 'lazy'],
  ['uffd: Remote side closed connection', 'lazy'],
  ['uffd: Lazy pages are not permitted', 'lazy'],
  ['Unable to find an external netns: extRootNetNS', 'namespace', 'net namespace'],
  ['cg: Unable to mount the cgroup (cpu) file system: Permission denied', 'cgroup'],
  ["cg: Can't move 1 into blkio//x/cgroup.procs (-1/-1): No such file or directory", 'cgroup'],
  ["cg: Cgroup dir pids//a3 doesn't exist", 'cgroup', ''],
  ["vdso: Failed to fill self vdso symtable", 'kernel'],
];

describe('explainCriuLog', () => {
  it('has a row for every failure of the reference and more', () => {
    assert.ok(dumpCauses.length + restoreCauses.length + commonCauses.length >= 80);
    for (const { message, hint } of [...dumpCauses, ...restoreCauses, ...commonCauses]) assert.ok(message.length > 10 && hint.length > 10);
  });

  for (const [phase, rows] of [['dump', dumps], ['restore', restores]] as const) {
    for (const [line, kind, part] of rows) {
      it(`${phase}: ${line.trim().slice(0, 60)}`, () => {
        const found = explainCriuLog([harmless, error(line), error('Dump files (pid: 290) failed with -1'), end].join('\n'), phase);
        assert.equal(found?.kind, kind, JSON.stringify(found));
        if (part !== undefined) assert.ok(found.message.includes(part), found.message);
        assert.doesNotMatch(found.message, /\$\d|undefined/);
        assert.doesNotMatch(found.hint, /\$\d|undefined/);
        assert.equal(found.line, line.replaceAll('\t', '?'));
      });
    }
  }

  it('takes the first real error, whatever follows', () => {
    const log = [harmless, error('inet: Connected TCP socket, consider using --tcp-established option.'), error("Can't dump file 5 of that type [1] (x)"), end].join('\n');
    assert.equal(explainCriuLog(log, 'dump')?.kind, 'tcp-established');
  });

  it('reads the lines of restored tasks and of the parasite', () => {
    assert.equal(explainCriuLog('(00.015431)      1: Error (criu/files-reg.c:2): File a has bad size 1 (expect 2)', 'restore')?.kind, 'file-changed');
    assert.match(explainCriuLog('pie: 1: Error (criu/pie/parasite.c:588): send_fds failed (-22)', 'dump')?.kind ?? '', /io_uring/);
  });

  it('ignores what is harmless, and probes when something better follows', () => {
    assert.equal(explainCriuLog([harmless, '(00.1) Warn  (criu/x.c:1): something', 'Error: ipv4: Address already assigned.'].join('\n'), 'dump'), undefined);
    const probe = error('Can\'t probe this: Operation not permitted', 'criu/kerndat.c:77');
    assert.equal(explainCriuLog([probe, error('Unknown shit 600 (anon_inode:[io_uring])')].join('\n'), 'dump')?.kind, 'io_uring');
    assert.notEqual(explainCriuLog(probe, 'dump'), undefined);
    assert.equal(explainCriuLog('', 'restore'), undefined);
  });

  it('gives unknown errors in the words of criu, without escapes of a terminal', () => {
    const found = explainCriuLog([harmless, error('something \u001b[31mnew'), end].join('\n'), 'dump');
    assert.deepEqual({ kind: found?.kind, message: found?.message }, { kind: 'unknown', message: 'criu: something ?[31mnew' });
  });

  it('never fails, whatever a log holds', () => {
    fc.assert(fc.property(fc.array(fc.oneof(fc.string(), fc.string().map((text) => error(text)))), fc.constantFrom('dump', 'restore'), (lines, phase) => {
      const found = explainCriuLog(lines.join('\n'), phase);
      if (found !== undefined) assert.ok(found.message.length < 600);
    }), { verbose: true });
  });

  it('reads only the ends of a log of many megabytes, quickly', () => {
    const directory = mkdtempSync(join(tmpdir(), 'log-'));
    try {
      const path = join(directory, 'dump.log');
      writeFileSync(path, `${'(00.000001) some debugging of pages\n'.repeat(1_000_000)}${error('Unknown shit 600 (anon_inode:[io_uring])')}\n${end}\n`);
      const started = performance.now();
      const text = readLog(path);
      assert.ok(text.length < 2_000_000);
      assert.equal(explainCriuLog(text, 'dump')?.kind, 'io_uring');
      assert.ok(performance.now() - started < 2000);
      assert.equal(readLog(join(directory, 'none')), '');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('explainFailure', () => {
  function failure(criu: string, runtime: string, stderr = ''): ReturnType<typeof explainFailure> {
    const directory = mkdtempSync(join(tmpdir(), 'log-'));
    try {
      writeFileSync(join(directory, 'dump.log'), criu);
      writeFileSync(join(directory, 'runtime.log'), runtime);
      return explainFailure({ what: 'container c could not be dumped', phase: 'dump', criuLog: join(directory, 'dump.log'), runtimeLog: join(directory, 'runtime.log'), stderr, status: 1 });
    } finally {
      rmSync(directory, { recursive: true });
    }
  }
  const json = (msg: string): string => `${JSON.stringify({ level: 'error', msg, time: '2026-01-01T00:00:00Z' })}\n`;

  it('prefers the cause in criu\'s log to the words of the runtime', () => {
    const found = failure(`${harmless}\n${error('Unknown shit 600 (anon_inode:[io_uring])')}`, json('criu failed: type NOTIFY errno 0'));
    assert.equal(found.code, 'DUMP_FAILED');
    assert.match(found.message, /^container c could not be dumped: a process uses io_uring$/);
    assert.equal(found.details['kind'], 'io_uring');
  });

  it('never says "type NOTIFY errno 0"', () => {
    const found = failure(harmless, json('criu failed: type NOTIFY errno 0\nlog file: /x/dump.log'));
    assert.doesNotMatch(found.message, /NOTIFY/);
    assert.match(found.message, /criu's log names no error/);
  });

  it('knows what the runtimes say themselves', () => {
    assert.equal(failure('', json('exec: "criu": executable file not found in $PATH')).code, 'HOST_UNSUPPORTED');
    assert.equal(failure('', json('could not load `libcriu.so.2`')).code, 'HOST_UNSUPPORTED');
    assert.equal(failure('', json('container does not exist')).code, 'CONTAINER_EXITED');
    assert.match(failure('', '', 'something odd').message, /something odd/);
    const crun = '{\n  "msg": "error creating \\"x\\/y\\": {File} exists",\n  "level": "error",\n  "time": "2026"\n}';
    assert.match(failure('', crun).message, /: error creating "x\/y": \{File\} exists$/);
  });
});
