/**
 * What the images of processes and threads may hold: inventory, pstree, core, ids, mm, fs, fdinfo. Numbers and types of
 * fields: images/*.proto of CRIU 4.2.1. Left out are fields that only older versions wrote and that would override
 * others (task_core 11 and 12, core_entry 4, vmas), and what belongs to processors other than x86-64 and arm64.
 */
import type { TableSource } from './message.ts';

const registers = 'registers of a thread: the kernel itself takes only what a program may load';
const own = 'only the process itself is concerned, and may do it at any time';
const ties = 'a number by which images name each other: a wrong one ends the restore';

const words = (type: string, ...names: readonly string[]): string => names.map((name, i) => `${i + 1} ${name} ${type}!`).join(', ');
const x86Registers = ['r15', 'r14', 'r13', 'r12', 'bp', 'bx', 'r11', 'r10', 'r9', 'r8', 'ax', 'cx', 'dx', 'si', 'di', 'orig_ax', 'ip', 'cs', 'flags', 'sp', 'ss', 'fs_base', 'gs_base', 'ds', 'es', 'fs', 'gs'];
const descriptor = ['entry_number', 'base_addr', 'limit', 'seg_32bit', 'contents_h', 'contents_l', 'read_exec_only', 'limit_in_pages', 'seg_not_present', 'usable'];
const pacKeys = ['apiakey_lo', 'apiakey_hi', 'apibkey_lo', 'apibkey_hi', 'apdakey_lo', 'apdakey_hi', 'apdbkey_lo', 'apdbkey_hi', 'pac_enabled_key'];

export const taskTables: Readonly<Record<string, TableSource>> = {
  inventory: {
    fields: '1 img_version u32!, 2 fdinfo_per_id bool!, 3 root_ids ids!, 4 ns_per_id bool!, 5 root_cg_set u32, 6 lsmtype u32, 8 dump_uptime u64, 9 pre_dump_mode u32, 10 tcp_close bool, 11 network_lock_method u32, 12 plugins plugins, 13 dump_criu_run_id text',
    free: {
      'cgroups are not restored from images': 'root_cg_set', 'compared with the node, and refused there': 'lsmtype', 'read by a dump only': 'dump_uptime pre_dump_mode',
      'asks for an option that must be given as well': 'tcp_close',
    },
  },
  plugins: { fields: '12 plugins text*' },
  pstree: {
    fields: '1 pid u32!, 2 ppid u32!, 3 pgid u32!, 4 sid u32!, 5 threads u32*',
    free: { 'within the pid namespace of the container': 'ppid pgid sid' },
  },
  ids: {
    fields: '1 vm_id u32!, 2 files_id u32!, 3 fs_id u32!, 4 sighand_id u32!, 5 pid_ns_id u32, 6 net_ns_id u32, 7 ipc_ns_id u32, 8 uts_ns_id u32, 9 mnt_ns_id u32, 10 user_ns_id u32, 11 cgroup_ns_id u32, 12 time_ns_id u32',
    free: { 'what processes of the container share among themselves': 'vm_id fs_id sighand_id' },
  },
  core: { fields: '1 mtype u32!, 2 info x86, 8 ti_aarch64 aarch64, 3 tc task, 5 thread_core thread' },
  task: {
    fields: '1 task_state u32!, 2 exit_code u32!, 3 personality u32!, 4 flags u32!, 5 blk_sigset u64!, 6 comm text!, 7 timers timers, 8 rlimits rlimits, 9 cg_set u32, 10 signals_s signals, 13 loginuid u32, 14 oom_score_adj i32, 15 sigactions sigaction*, 18 child_subreaper bool, 20 blk_sigset_extended u64, 21 stop_signo u32, 22 membarrier_registration_mask u32',
    free: {
      [own]: 'exit_code blk_sigset blk_sigset_extended comm child_subreaper membarrier_registration_mask stop_signo', 'never read by a restore': 'flags',
      'cgroups are not restored from images': 'cg_set', 'taken out before the restore: whom the kernel\'s audit holds responsible': 'loginuid',
    },
  },
  thread: {
    fields: '1 futex_rla u64!, 2 futex_rla_len u32!, 3 sched_nice s32, 4 sched_policy u32, 5 sched_prio u32, 6 blk_sigset u64, 7 sas sas, 8 pdeath_sig u32, 9 signals_p signals, 10 creds creds, 11 seccomp_mode u32, 12 seccomp_filter u32, 13 comm text, 14 blk_sigset_extended u64, 15 rseq_entry rseq, 16 cg_set u32',
    free: {
      [own]: 'futex_rla futex_rla_len blk_sigset blk_sigset_extended pdeath_sig comm', 'cgroups are not restored from images': 'cg_set',
      'means something to real-time policies only, which are judged': 'sched_prio',
    },
  },
  sas: { fields: '1 ss_sp u64!, 2 ss_size u64!, 3 ss_flags u32!', free: { [own]: 'ss_sp ss_size ss_flags' } },
  rseq: { fields: '1 rseq_abi_pointer u64!, 2 rseq_abi_size u32!, 3 signature u32!, 4 rseq_cs_pointer u64', free: { [own]: 'rseq_abi_pointer rseq_abi_size signature rseq_cs_pointer' } },
  signals: { fields: '1 signals siginfo*' },
  siginfo: { fields: '1 siginfo bytes!' },
  sigaction: {
    fields: '1 sigaction u64!, 2 flags u64!, 3 restorer u64!, 4 mask u64!, 5 compat_sigaction bool, 6 mask_extended u64',
    free: { [own]: 'sigaction flags restorer mask compat_sigaction mask_extended' },
  },
  rlimits: { fields: '1 rlimits rlimit*' },
  rlimit: { fields: '1 cur u64!, 2 max u64!', free: { 'at most the hard limit, which is judged': 'cur' } },
  timers: { fields: '1 real itimer!, 2 virt itimer!, 3 prof itimer!, 4 posix posix_timer*' },
  itimer: { fields: words('u64', 'isec', 'iusec', 'vsec', 'vusec'), free: { [own]: 'isec iusec vsec vusec' } },
  posix_timer: {
    fields: '1 it_id u32!, 2 clock_id u32!, 3 si_signo u32!, 4 it_sigev_notify u32!, 5 sival_ptr u64!, 6 overrun u32!, 7 isec u64!, 8 insec u64!, 9 vsec u64!, 10 vnsec u64!, 11 notify_thread_id i32',
    free: { [own]: 'it_id si_signo it_sigev_notify sival_ptr overrun isec insec vsec vnsec notify_thread_id' },
  },
  creds: {
    fields: '1 uid u32!, 2 gid u32!, 3 euid u32!, 4 egid u32!, 5 suid u32!, 6 sgid u32!, 7 fsuid u32!, 8 fsgid u32!, 9 cap_inh u32*, 10 cap_prm u32*, 11 cap_eff u32*, 12 cap_bnd u32*, 13 secbits u32!, 14 groups u32*, 15 lsm_profile text, 16 lsm_sockcreate text, 18 no_new_privs u32, 19 cap_amb u32*',
  },
  x86: { fields: '1 clear_tid_addr u64!, 2 gpregs x86_registers!, 3 fpregs x86_float!, 4 tls x86_descriptor*', free: { [own]: 'clear_tid_addr' } },
  x86_registers: { fields: `${words('u64', ...x86Registers)}, 28 mode u32`, free: { [registers]: [...x86Registers, 'mode'].join(' ') } },
  x86_float: {
    fields: '1 cwd u32!, 2 swd u32!, 3 twd u32!, 4 fop u32!, 5 rip u64!, 6 rdp u64!, 7 mxcsr u32!, 8 mxcsr_mask u32!, 9 st_space u32*, 10 xmm_space u32*, 11 padding u32*, 13 xsave x86_xsave',
    free: { [registers]: 'cwd swd twd fop rip rdp mxcsr mxcsr_mask st_space xmm_space padding' },
  },
  x86_xsave: {
    fields: '1 xstate_bv u64!, 2 ymmh_space u32*, 3 bndreg_state u64*, 4 bndcsr_state u64*, 5 opmask_reg u64*, 6 zmm_upper u64*, 7 hi16_zmm u64*, 8 pkru u32*, 9 cet x86_cet',
    free: { [registers]: 'xstate_bv ymmh_space bndreg_state bndcsr_state opmask_reg zmm_upper hi16_zmm pkru' },
  },
  x86_cet: { fields: words('u64', 'cet', 'ssp'), free: { [registers]: 'cet ssp' } },
  x86_descriptor: {
    fields: descriptor.map((name, i) => `${i + 1} ${name} ${i < 3 ? 'u32' : 'bool'}!`).join(', '),
    free: { [registers]: descriptor.join(' ') },
  },
  aarch64: { fields: '1 clear_tid_addr u64!, 2 tls u64!, 3 gpregs aarch64_registers!, 4 fpsimd aarch64_float!, 5 pac_keys aarch64_pac', free: { [own]: 'clear_tid_addr tls' } },
  aarch64_registers: { fields: '1 regs u64*, 2 sp u64!, 3 pc u64!, 4 pstate u64!', free: { [registers]: 'regs sp pc pstate' } },
  aarch64_float: { fields: '1 vregs u64*, 2 fpsr u32!, 3 fpcr u32!', free: { [registers]: 'vregs fpsr fpcr' } },
  aarch64_pac: { fields: '6 address pac_address, 7 generic pac_generic' },
  pac_address: { fields: words('u64', ...pacKeys), free: { [registers]: pacKeys.join(' ') } },
  pac_generic: { fields: words('u64', 'apgakey_lo', 'apgakey_hi'), free: { [registers]: 'apgakey_lo apgakey_hi' } },
  mm: {
    fields: `${words('u64', 'start_code', 'end_code', 'start_data', 'end_data', 'start_stack', 'start_brk', 'brk', 'arg_start', 'arg_end', 'env_start', 'env_end')}, 12 exe_file_id u32!, 13 saved_auxv u64*, 14 vmas vma*, 15 dumpable i32, 16 aios aio*, 17 thp_disabled bool`,
    free: { 'addresses of its own, which the kernel checks': 'start_code end_code start_data end_data start_stack start_brk brk arg_start arg_end env_start env_end saved_auxv', [own]: 'dumpable thp_disabled' },
  },
  aio: { fields: '1 id u64!, 2 nr_req u32!, 3 ring_len u32!', free: { [own]: 'id nr_req ring_len' } },
  vma: {
    fields: '1 start u64!, 2 end u64!, 3 pgoff u64!, 4 shmid u64!, 5 prot u32!, 6 flags u32!, 7 status u32!, 8 fd s64!, 9 madv u64, 10 fdflags u32',
    free: { 'an address space of its own, which the kernel checks': 'start end pgoff prot flags madv', 'written over by CRIU': 'fd' },
  },
  fs: { fields: '1 cwd_id u32!, 2 root_id u32!, 3 umask u32', free: { [own]: 'umask' } },
  fdinfo: { fields: '1 id u32!, 2 flags u32!, 3 type u32!, 4 fd u32!, 5 xattr_security_selinux text', free: { 'close-on-exec, and nothing else is read': 'flags', 'a number in the table of the process': 'fd' } },
  pagemap_head: { fields: '1 pages_id u32!', free: { [ties]: 'pages_id' } },
  pagemap: {
    fields: '1 vaddr u64!, 2 compat_nr_pages u32!, 3 in_parent bool, 4 flags u32, 5 nr_pages u64',
    free: { 'memory of the process itself': 'vaddr compat_nr_pages nr_pages flags' },
  },
  cpuinfo: { fields: '1 x86 cpuinfo_x86*' },
  cpuinfo_x86: {
    fields: '1 vendor_id u32!, 2 cpu_family u32!, 3 model u32!, 4 stepping u32!, 5 capability_ver u32!, 6 capability u32*, 7 model_id text, 8 xfeatures_mask u64, 9 xsave_size u32, 10 xsave_size_max u32',
    free: { 'compared with the node, and not restored': 'vendor_id cpu_family model stepping capability_ver capability model_id xfeatures_mask xsave_size xsave_size_max' },
  },
  seccomp: { fields: '1 filters seccomp_filter*' },
  seccomp_filter: {
    fields: '1 filter bytes!, 2 prev u32, 3 flags u32',
    free: { 'it only forbids: the filter of the bundle is put before it, and the kernel asks both': 'filter' },
  },
};
