/**
 * What the images of namespaces may hold: mounts, ids of users, names, System V objects, clocks. Networks are never made from
 * an imported image. Field numbers and types as in images/*.proto of CRIU 4.2.1.
 */
import type { TableSource } from './message.ts';

const network = 'taken out before the restore: the network is the one of the bundle';
const ipc = 'an object of the container\'s own IPC namespace';

export const namespaceTables: Readonly<Record<string, TableSource>> = {
  mount: {
    fields: '1 fstype u32!, 2 mnt_id u32!, 3 root_dev u32!, 4 parent_mnt_id u32!, 5 flags u32!, 6 root text!, 7 mountpoint text!, 8 source text!, 9 options text!, 10 shared_id u32, 11 master_id u32, 12 with_plugin bool, 13 ext_mount bool, 15 internal_sharing bool, 16 deleted bool, 17 sb_flags u32!, 18 ext_key text',
    free: { 'numbers by which mounts of the same images are told apart': 'root_dev mnt_id', 'a name for file systems of the kernel, which have no source': 'source' },
  },
  userns: { fields: '1 uid_map extent*, 2 gid_map extent*' },
  extent: { fields: '1 first u32!, 2 lower_first u32!, 3 count u32!' },
  utsns: { fields: '1 nodename text!, 2 domainname text!', free: { 'names in a namespace of its own': 'nodename domainname' } },
  timens: { fields: '1 monotonic timespec!, 2 boottime timespec!' },
  timespec: { fields: '1 tv_sec u64!, 2 tv_nsec u64!', free: { 'a clock of its own namespace': 'tv_sec tv_nsec' } },
  netns: {
    fields: '1 def_conf i32*, 2 all_conf i32*, 3 def_conf4 sysctl*, 4 all_conf4 sysctl*, 5 def_conf6 sysctl*, 6 all_conf6 sysctl*, 8 ext_key text, 9 unix_conf sysctl*, 10 ipv4_sysctl sysctl*',
    free: { [network]: 'def_conf all_conf' },
  },
  netdev: {
    fields: '1 type u32!, 2 ifindex u32!, 3 mtu u32!, 4 flags u32!, 5 name text!, 7 address bytes, 8 conf i32*, 9 conf4 sysctl*, 10 conf6 sysctl*, 12 peer_ifindex u32, 13 peer_nsid u32, 14 master u32',
    free: { [network]: 'ifindex mtu flags name address conf peer_ifindex peer_nsid master' },
  },
  sysctl: { fields: '1 type u32!, 2 iarg i32, 3 sarg text', free: { [network]: 'type iarg sarg' } },
  pidns: { fields: '1 ext_key text' },
  ipc_var: {
    fields: '1 sem_ctls u32*, 2 msg_ctlmax u32!, 3 msg_ctlmnb u32!, 4 msg_ctlmni u32!, 5 auto_msgmni u32!, 6 shm_ctlmax u64!, 7 shm_ctlall u64!, 8 shm_ctlmni u32!, 9 shm_rmid_forced u32!, 10 mq_queues_max u32!, 11 mq_msg_max u32!, 12 mq_msgsize_max u32!, 13 mq_msg_default u32, 14 mq_msgsize_default u32, 15 msg_next_id u32, 16 sem_next_id u32, 17 shm_next_id u32',
    free: { 'the next number that is given': 'msg_next_id sem_next_id shm_next_id', 'a switch that takes away': 'shm_rmid_forced auto_msgmni' },
  },
  ipc: {
    fields: '1 key u32!, 2 uid u32!, 3 gid u32!, 4 cuid u32!, 5 cgid u32!, 6 mode u32!, 7 id u32!',
    free: { [ipc]: 'key uid gid cuid cgid mode id' },
  },
  ipc_shm: { fields: '1 desc ipc!, 2 size u64!, 3 in_pagemaps bool, 4 hugetlb_flag u32', free: { 'memory, which the cgroup and shmmax bound': 'size', 'where its contents are': 'in_pagemaps' } },
  ipc_msg_queue: { fields: '1 desc ipc!, 2 qbytes u32!, 3 qnum u32!', free: { 'never read by a restore': 'qbytes' } },
  ipc_msg: { fields: '1 mtype u64!, 2 msize u32!', free: { [ipc]: 'mtype' } },
  ipc_sem: { fields: '1 desc ipc!, 2 nsems u32!' },
  cgroup: { fields: '1 sets cg_set*, 2 controllers cg_controller*' },
  cg_set: { fields: '1 id u32!, 2 ctls cg_member*', free: { 'cgroups are not restored from images': 'id' } },
  cg_member: { fields: '1 name text!, 2 path text!, 3 cgns_prefix u32', free: { 'cgroups are not restored from images': 'name path cgns_prefix' } },
  cg_controller: { fields: '1 cnames text*, 2 dirs cg_directory*, 3 is_threaded bool', free: { 'cgroups are not restored from images': 'cnames is_threaded' } },
  cg_directory: { fields: '1 dir_name text!, 2 children cg_directory*, 3 properties cg_property*, 4 dir_perms cg_permissions', free: { 'cgroups are not restored from images': 'dir_name' } },
  cg_permissions: { fields: '1 mode u32!, 2 uid u32!, 3 gid u32!', free: { 'cgroups are not restored from images': 'mode uid gid' } },
  cg_property: { fields: '1 name text!, 2 value text!, 3 perms cg_permissions', free: { 'cgroups are not restored from images': 'name value' } },
};
