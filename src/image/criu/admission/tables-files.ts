/**
 * What the images of open files may hold: files.img and what goes with it. Of the kinds of files only those that a container
 * may have without privileges; field numbers and types as in images/*.proto of CRIU 4.2.1.
 */
import type { TableSource } from './message.ts';

const ties = 'a number by which images name each other: a wrong one ends the restore';
const own = 'only the process itself is concerned, and may do it at any time';
const queued = 'bytes on their way within the container';
const flow = 'the state of a connection of the container\'s own socket';

export const fileTables: Readonly<Record<string, TableSource>> = {
  file: {
    fields: '1 type u32!, 2 id u32!, 3 reg reg, 4 isk inet, 7 nlsk netlink, 8 efd eventfd, 9 epfd eventpoll, 10 sgfd signalfd, 12 tfd timerfd, 13 ify inotify, 16 usk unix, 17 fifo fifo, 18 pipe pipe, 19 tty tty, 20 memfd memfd',
  },
  fown: {
    fields: '1 uid u32!, 2 euid u32!, 3 signum u32!, 4 pid_type u32!, 5 pid u32!',
    free: { 'a signal to a process of the container; where it shares processes with others, there is none': 'uid euid signum pid_type' },
  },
  reg: {
    fields: '1 id u32!, 2 flags u32!, 3 pos u64!, 5 fown fown!, 6 name text!, 7 mnt_id s32, 8 size u64, 9 ext bool, 10 mode u32, 11 build_id u32*, 12 checksum u32, 13 checksum_config u32, 14 checksum_parameter u32',
    free: { [own]: 'pos', 'compared with the file that is found': 'size mode build_id checksum checksum_config checksum_parameter' },
  },
  pipe: { fields: '1 id u32!, 2 pipe_id u32!, 3 flags u32!, 4 fown fown!', free: { [ties]: 'pipe_id' } },
  fifo: { fields: '1 id u32!, 2 pipe_id u32!, 3 regf_id u32', free: { [ties]: 'pipe_id' } },
  eventfd: { fields: '1 id u32!, 2 flags u32!, 3 fown fown!, 4 counter u64!', free: { [own]: 'counter' } },
  eventpoll: { fields: '1 id u32!, 2 flags u32!, 3 fown fown!, 4 tfd epoll_target*' },
  epoll_target: {
    fields: '1 id u32!, 2 tfd u32!, 3 events u32!, 4 data u64!, 5 dev u32, 6 inode u64, 7 pos u64',
    free: { 'a descriptor of the process itself, and what it wants to hear of it': 'id tfd events data dev inode pos' },
  },
  signalfd: { fields: '1 id u32!, 2 flags u32!, 3 fown fown!, 4 sigmask u64!', free: { [own]: 'sigmask' } },
  timerfd: {
    fields: '1 id u32!, 2 flags u32!, 3 fown fown!, 4 clockid u32!, 5 ticks u64!, 6 settime_flags u32!, 7 vsec u64!, 8 vnsec u64!, 9 isec u64!, 10 insec u64!',
    free: { [own]: 'ticks settime_flags vsec vnsec isec insec' },
  },
  inotify: { fields: '1 id u32!, 2 flags u32!, 4 fown fown!, 5 wd inotify_watch*' },
  inotify_watch: {
    fields: '1 id u32!, 2 i_ino u64!, 3 mask u32!, 4 ignored_mask u32!, 5 s_dev u32!, 6 wd u32!, 7 f_handle handle!',
    free: { 'looked up among the deleted files of the same images only, since there is a path': 'i_ino s_dev', 'what it wants to hear, of a file that it may name': 'id mask ignored_mask wd' },
  },
  handle: { fields: '1 bytes u32!, 2 type u32!, 3 handle u64*, 4 path text!, 5 mnt_id u32', free: { 'not used when there is a path, which there must be': 'bytes type handle' } },
  unix: {
    fields: '1 id u32!, 2 ino u32!, 3 type u32!, 4 state u32!, 5 flags u32!, 6 uflags u32!, 7 backlog u32!, 8 peer u32!, 9 fown fown!, 10 opts socket!, 11 name bytes!, 12 shutdown u32, 13 file_perms socket_file, 14 name_dir text, 15 deleted bool, 16 ns_id u32, 17 mnt_id s32',
    free: { [ties]: 'ino', [own]: 'backlog shutdown deleted' },
  },
  socket_file: { fields: '1 mode u32!, 2 uid u32!, 3 gid u32!', free: { 'owner of the socket of the container, made anew': 'uid gid' } },
  inet: {
    fields: '1 id u32!, 2 ino u32!, 3 family u32!, 4 type u32!, 5 proto u32!, 6 state u32!, 7 src_port u32!, 8 dst_port u32!, 9 flags u32!, 10 backlog u32!, 11 src_addr u32*, 12 dst_addr u32*, 13 fown fown!, 14 opts socket!, 15 v6only bool, 16 ip_opts ip, 17 ifname text, 18 ns_id u32, 19 shutdown u32, 20 tcp_opts tcp_options',
    free: { [ties]: 'ino', [own]: 'backlog v6only shutdown', 'addresses in the network of the container': 'src_addr dst_port dst_addr ifname' },
  },
  ip: { fields: '1 freebind bool, 5 pktinfo bool, 6 tos u32, 7 ttl u32', free: { [own]: 'freebind pktinfo tos ttl' } },
  tcp_options: { fields: '1 cork bool, 2 nodelay bool, 3 keepcnt u32, 4 keepidle u32, 5 keepintvl u32', free: { [own]: 'cork nodelay keepcnt keepidle keepintvl' } },
  socket: {
    fields: '1 sndbuf u32!, 2 rcvbuf u32!, 3 snd_tmo_sec u64!, 4 snd_tmo_usec u64!, 5 rcv_tmo_sec u64!, 6 rcv_tmo_usec u64!, 7 reuseaddr bool, 8 priority u32, 9 rcvlowat u32, 10 mark u32, 11 passcred bool, 12 passsec bool, 13 dontroute bool, 14 no_check bool, 15 bound_dev text, 16 filter f64*, 17 reuseport bool, 18 broadcast bool, 19 keepalive bool, 20 keepcnt u32, 21 keepidle u32, 22 keepintvl u32, 23 oobinline u32, 24 linger u32, 25 buf_lock u32',
    free: { [own]: 'snd_tmo_sec snd_tmo_usec rcv_tmo_sec rcv_tmo_usec reuseaddr rcvlowat passcred passsec dontroute no_check filter reuseport broadcast keepalive keepcnt keepidle keepintvl oobinline linger buf_lock' },
  },
  netlink: {
    fields: '1 id u32!, 2 ino u32!, 3 protocol u32!, 4 state u32!, 6 flags u32!, 7 portid u32!, 8 groups u32*, 9 dst_portid u32!, 10 dst_group u32!, 11 fown fown!, 12 opts socket!, 13 ns_id u32',
    free: { [ties]: 'ino', 'a socket of NETLINK_ROUTE, with which anybody may ask and listen': 'state portid groups dst_portid dst_group' },
  },
  tty: { fields: '1 id u32!, 2 tty_info_id u32!, 3 flags u32!, 4 fown fown!, 6 regf_id u32', free: { [ties]: 'tty_info_id' } },
  memfd: { fields: '1 id u32!, 2 flags u32!, 3 pos u64!, 4 fown fown!, 5 inode_id u32!', free: { [own]: 'pos', [ties]: 'inode_id' } },
  memfd_inode: {
    fields: '1 name text!, 2 uid u32!, 3 gid u32!, 4 size u64!, 5 shmid u32!, 6 seals u32!, 7 inode_id u64!, 8 hugetlb_flag u32, 9 mode u32',
    free: { 'memory without a name in any file system': 'name uid gid seals', 'memory, which the cgroup bounds': 'size', [ties]: 'shmid inode_id' },
  },
  tty_info: {
    fields: '1 id u32!, 2 type u32!, 3 locked bool!, 4 exclusive bool!, 5 packet_mode bool!, 6 sid u32!, 7 pgrp u32!, 8 rdev u32!, 9 termios termios, 10 termios_locked termios, 11 winsize winsize, 12 pty pty, 13 dev u32, 14 uid u32, 15 gid u32',
    free: { [ties]: 'id', 'a terminal of the container\'s own devpts': 'locked exclusive packet_mode sid pgrp dev uid gid' },
  },
  termios: {
    fields: '1 c_iflag u32!, 2 c_oflag u32!, 3 c_cflag u32!, 4 c_lflag u32!, 5 c_line u32!, 6 c_ispeed u32!, 7 c_ospeed u32!, 8 c_cc u32*',
    free: { 'how a terminal of the container\'s own behaves': 'c_iflag c_oflag c_cflag c_lflag c_ispeed c_ospeed c_cc' },
  },
  winsize: { fields: '1 ws_row u32!, 2 ws_col u32!, 3 ws_xpixel u32!, 4 ws_ypixel u32!', free: { 'how a terminal of the container\'s own looks': 'ws_row ws_col ws_xpixel ws_ypixel' } },
  pty: { fields: '1 index u32!', free: { 'a number in the container\'s own devpts': 'index' } },
  tty_data: { fields: '1 tty_id u32!, 2 data bytes!', free: { [queued]: 'data', [ties]: 'tty_id' } },
  pipe_data: { fields: '1 pipe_id u32!, 2 bytes u32!, 3 size u32', free: { [ties]: 'pipe_id' } },
  queue: { fields: '1 id_for u32!, 2 length u32!, 4 scm scm*', free: { [ties]: 'id_for' } },
  scm: { fields: '1 type u32!, 2 rights u32*' },
  tcp_stream: {
    fields: '1 inq_len u32!, 2 inq_seq u32!, 3 outq_len u32!, 4 outq_seq u32!, 5 opt_mask u32!, 6 snd_wscale u32!, 7 mss_clamp u32!, 8 rcv_wscale u32, 9 timestamp u32, 10 cork bool, 11 nodelay bool, 12 unsq_len u32, 13 snd_wl1 u32, 14 snd_wnd u32, 15 max_window u32, 16 rcv_wnd u32, 17 rcv_wup u32',
    free: { [flow]: 'inq_seq outq_seq opt_mask snd_wscale mss_clamp rcv_wscale timestamp cork nodelay unsq_len snd_wl1 snd_wnd max_window rcv_wnd rcv_wup' },
  },
  remap: { fields: '1 orig_id u32!, 2 remap_id u32!, 3 remap_type u32!' },
  ghost: {
    fields: '1 uid u32!, 2 gid u32!, 3 mode u32!, 4 dev u32, 5 ino u64, 6 rdev u32, 7 atim timeval, 8 mtim timeval, 9 chunks bool, 10 size u64',
    free: { 'a file of the container, as its root file system may hold': 'uid gid size', 'looked up by watches of the same images': 'dev ino' },
  },
  ghost_chunk: { fields: '1 len u64!, 2 off u64!', free: { 'where its bytes lie': 'off' } },
  timeval: { fields: '1 tv_sec u64!, 2 tv_usec u64!', free: { 'a time of a file': 'tv_sec tv_usec' } },
  lock: {
    fields: '1 flag u32!, 2 type u32!, 3 pid i32!, 4 fd i32!, 5 start i64!, 6 len i64!',
    free: { 'on a descriptor of the process itself': 'pid fd start len' },
  },
};
