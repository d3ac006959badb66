/** Lines that CRIU 4.2.1 wrote when it could not save real containers, and what is said of them: process, thing, remedy. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { explainCriuLog } from '../../src/runtime/index.ts';

const harmless = "(00.000368) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";
const end = '(00.078173) Error (criu/cr-dump.c:1975): Dumping FAILED.';

/** What a dump says before and behind an error that it meets at descriptor 4 of its second task. */
function atDescriptor(...errors: readonly string[]): string {
  return [
    harmless, '(00.010) ========================================', '(00.010) Dumping task (pid: 650 comm: sh)', '(00.010) sid=1 pgid=1 pid=1', '(00.011) Dumping opened files (pid: 650)',
    '(00.011) ----------------------------------------', '(00.011) 650 fdinfo 9: pos:                0 flags:          2100000/0', '(00.012) ----------------------------------------',
    '(00.020) Dumping task (pid: 656 comm: py thon)', '(00.020) sid=1 pgid=1 pid=7', '(00.021) Dumping opened files (pid: 656)', '(00.021) ----------------------------------------',
    '(00.021) 656 fdinfo 3: pos:                0 flags:          2100000/0', '(00.021) 656 fdinfo 4: pos:                0 flags:          2100000/0x1', ...errors, end,
  ].join('\n');
}

function atTask(...errors: readonly string[]): string {
  return [harmless, '(00.020) Dumping task (pid: 656 comm: py thon)', ...errors, end].join('\n');
}

const error = (file: string, text: string): string => `(00.054321) Error (${file}): ${text}`;
const files = error('criu/cr-dump.c:1545', 'Dump files (pid: 656) failed with -1');
const place = 'pid 656 (py thon, 7 inside), descriptor 4';

/** The log, the kind, and parts of message and hint. */
const rows: readonly [log: string, kind: string, message: string, hint: RegExp][] = [
  [atDescriptor(error('criu/cr-dump.c:1550', 'Dump eventpoll (pid: 656) failed with -1')), 'epoll', 'an epoll of process 656 watches a descriptor', /EPOLL_CTL_DEL/],
  [atDescriptor(error('criu/files-reg.c:1790', "Can't lookup mount=327 for fd=4 path=/orders"), files), 'foreign-file', `descriptor 4 (/orders)`, /message queues/],
  [atTask(error('criu/filesystems.c:650', "mqueue isn't empty")), 'mqueue', 'POSIX message queues', /mq_unlink/],
  [atDescriptor(error('criu/sk-inet.c:504', "inet: Can't dump corked dgram socket 38eb2"), files), 'corked', `(inode 0x38eb2) is corked (UDP_CORK): ${place}`, /try again in a moment/],
  [atDescriptor(error('criu/sk-unix.c:506', 'unix: Non-empty write queue on an in-flight socket 0x3a6cf'), files), 'in-flight', `holds data already: ${place}`, /try again in a moment/],
  [atDescriptor(error('criu/sk-unix.c:525', 'unix: Found a closed in-flight socket to 0x3b8df'), files), 'in-flight', 'closed by its other end', /try again in a moment/],
  [atDescriptor(error('criu/sk-netlink.c:77', 'netlink: The socket has data to read'), files), 'in-flight', `answers that were not read yet: ${place}`, /try again in a moment/],
  [atDescriptor(error('criu/sk-netlink.c:133', 'netlink: 8 2'), error('criu/sk-netlink.c:134', 'netlink: The netlink socket 0x3c587 has more than 32 groups'), files), 'socket', `a group above 32: ${place}`, /leave that group/],
  [atDescriptor(error('criu/sk-inet.c:185', 'inet: In-flight connection (l) for 664ea'), error('criu/sk-inet.c:186', 'inet: In-flight connections can be ignored with the --skip-in-flight option.'), files), 'in-flight', place, /try again/],
  [atDescriptor(error('criu/sockets.c:767', 'sockets: BUG! Unknown socket collected (family 40)'), files), 'socket', place, /close it/],
  [atDescriptor(error('criu/pidfd.c:88', 'pidfd: PIDFD_THREAD flag is currently not supported'), files), 'pidfd', `PIDFD_THREAD) is open: ${place}`, /whole process/],
  [atDescriptor(error('criu/files-ext.c:94', "Can't dump file 4 of that type [600] (anon anon_inode:bpf-map)"), files), 'bpf', place, /BPF/],
  [atDescriptor(error('criu/files-ext.c:94', "Can't dump file 4 of that type [600] (anon anon_inode:[landlock-ruleset])"), files), 'descriptor', 'landlock-ruleset', /close it/],
  [atDescriptor(error('criu/pipes.c:490', 'The packetized mode for pipes is not supported yet'), files), 'pipe', place, /O_DIRECT/],
  [atDescriptor(error('criu/fsnotify.c:284', "fsnotify: \tCan't dump that handle"), files), 'file-watch', place, /file watching/],
  [atDescriptor(error('criu/files-reg.c:1159', "Can't link remap to /m/file: Invalid cross-device link"), files), 'deleted-file', 'mounted over it', /unmount/],
  [atTask(error('criu/cr-dump.c:389', "Can't get rlimit 0: Operation not permitted"), error('criu/cr-dump.c:1584', 'Dump core (pid: 656) failed with -1')), 'capability', 'CAP_SYS_RESOURCE: pid 656 (py thon)', /CAP_SYS_RESOURCE/],
  [[harmless, error('criu/seize.c:882', 'Zombies with threads are not supported'), end].join('\n'), 'dead-leader', 'first thread', /pthread_exit/],
  [[harmless, error('compel/src/lib/infect.c:323', "Can't dump the 6083 thread with a pending SIGTRAP."), error('compel/src/lib/infect.c:262', 'Unseizable non-zombie 6083 found, state S, err -1/10'), end].join('\n'), 'signal', 'thread 6083 has a SIGTRAP', /debugger/],
  [[harmless, error('criu/namespaces.c:739', "Can't dump nested time namespace for 5600"), error('criu/util.c:657', 'exited, status=1'), end].join('\n'), 'nested-namespace', 'process 5600', /sandbox/],
  [[harmless, error('criu/namespaces.c:460', "Can't dump nested user namespace for 5845"), error('criu/namespaces.c:754', "Can't make userns id"), end].join('\n'), 'nested-namespace', 'process 5845 has made a user namespace', /sandbox/],
  [[harmless, error('criu/cr-dump.c:668', "Can't make VM id for 358"), end].join('\n'), 'thread', 'process 358 has its memory', /threads/],
  [[harmless, error('criu/tty.c:2281', 'tty: ctty inheritance detected sid/pgrp 9, no PTY peer with sid/pgrp needed'), end].join('\n'), 'tty', 'session 9 uses its terminal by /dev/tty', /without one/],
  [[harmless, error('criu/shmem.c:924', "Can't open 0/map_files/7f41a86ba000-7f41a86c1000 on procfs: No such file or directory"), error('criu/ipc_ns.c:533', 'Failed to write IPC namespace data'), end].join('\n'), 'shared-memory', 'mapped in parts', /shmat/],
];

describe('lines of real dumps', () => {
  for (const [log, kind, message, hint] of rows) {
    it(`${kind}: ${message.slice(0, 70)}`, () => {
      const found = explainCriuLog(log, 'dump');
      assert.equal(found?.kind, kind, JSON.stringify(found));
      assert.ok(found.message.includes(message), found.message);
      assert.match(found.hint, hint);
      assert.doesNotMatch(found.message, /\$\d|undefined/);
    });
  }

  it('never gives only the log for a hint, and names the process also of what it does not know', () => {
    const found = explainCriuLog(atDescriptor(error('criu/new.c:1', 'something new'), files), 'dump');
    assert.equal(found?.message, `criu: something new: ${place}`);
    assert.match(found.hint, /^try again; if it fails in the same way, let that process close or end/);
  });

  it('finds the cause behind echoes and probes, wherever it stands', () => {
    const probe = error('criu/kerndat.c:77', "Can't probe this: Operation not permitted");
    const echo = error('criu/cr-dump.c:1550', 'Dump eventpoll (pid: 656) failed with -1');
    const unheard = error('criu/new.c:1', 'something new');
    for (const log of [[probe, echo], [echo, probe], [probe, unheard, echo], [unheard, files, echo]]) assert.equal(explainCriuLog(log.join('\n'), 'dump')?.kind, 'epoll', log.join('\n'));
    assert.equal(explainCriuLog([probe, error('criu/crtools.c:1', 'Could not initialize kernel features detection.')].join('\n'), 'dump')?.kind, 'permission');
    assert.equal(explainCriuLog(files, 'dump')?.message, 'criu: Dump files (pid: 656) failed with -1');
  });

  it('does not blame the last task for what all share', () => {
    const log = [atTask(), '(00.3) Dumping mountpoints', error('criu/filesystems.c:650', "mqueue isn't empty")].join('\n');
    assert.doesNotMatch(explainCriuLog(log, 'dump')?.message ?? '', /656/);
  });

  it('names the process of a restore by its number inside', () => {
    const found = explainCriuLog("(00.015431)      7: Error (criu/tty.c:2): tty: Can't open tty-info.img: Permission denied", 'restore');
    assert.match(found?.message ?? '', /process 7 inside/);
  });
});
