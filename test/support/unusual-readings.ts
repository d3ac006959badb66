/** How each attribute of docs/FIDELITY.md is read by a test, without the code that compares them. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { INNER_SETTING, cgroupFile } from './unusual.ts';

/** Pids on the node. `mapped`: of the container in a user namespace. */
export interface Subjects {
  readonly init: number;
  readonly other: number;
  readonly confined: number;
  readonly mapped: number;
}

export interface Reading {
  /** Undefined where this machine has nothing of the kind. */
  readonly read: (subjects: Subjects) => string | undefined;
  /** What a process or mount that nobody changed has; read of the test's own process unless told. */
  readonly usual?: string;
  /** Where it is there when criu has made everything, what shows who brought it: images of criu that hold it (Stasis, where there are none), … */
  readonly images?: RegExp;
  /** … or a word to criu or the runtime that keeps criu from it. */
  readonly forbidden?: RegExp;
  /** Of what is lost: the finding. */
  readonly finding?: RegExp;
  /** Only the process itself knows: a value of what it wrote down. */
  readonly told?: true;
}

const text = (path: string): string => readFileSync(path, 'latin1').trim();
const status = (name: string, who: keyof Subjects = 'init'): Reading => ({ read: (subjects) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text(`/proc/${subjects[who]}/status`))?.[1]?.trim().replaceAll(/\s+/g, ' ') });
const file = (name: string): Reading => ({ read: ({ init }) => text(`/proc/${init}/${name}`) });
const link = (name: string, who: keyof Subjects = 'init'): Reading => ({ read: (subjects) => readlinkSync(`/proc/${subjects[who]}/${name}`) });
const field = (...numbers: number[]): Reading => ({ read: ({ init }) => { const fields = text(`/proc/${init}/stat`).replace(/^.*\) /s, '').split(' '); return numbers.map((number) => fields[number - 3]).join(' '); } });
const run = (program: string, ...args: string[]): string => execFileSync(program, args, { encoding: 'utf8' }).trim();
const namespace = (name: string, who: keyof Subjects = 'init', more: Partial<Reading> = {}): Reading => ({ read: (subjects) => (readlinkSync(`/proc/${subjects[who]}/ns/${name}`) === readlinkSync(`/proc/self/ns/${name}`) ? 'the node\'s' : 'its own'), usual: 'the node\'s', ...more });
const inner = (name: string, who: keyof Subjects): Reading => ({ read: (subjects) => status(name, who).read(subjects)?.split(' ').at(-1) === '1' ? 'that of the first process' : 'its own', usual: 'that of the first process' });

/** mountinfo: id parent device root point options tags - type source superoptions. */
function mount(point: string, part: (fields: { readonly root: string; readonly options: string[]; readonly tags: string; readonly type: string; readonly all: string }) => string, usual: string): Reading {
  return {
    read: ({ init }) => {
      const line = text(`/proc/${init}/mountinfo`).split('\n').find((one) => one.split(' ')[4] === point) ?? '';
      const [left = '', right = ''] = line.split(' - ');
      const [, , , root = '', , options = '', ...tags] = left.split(' ');
      return part({ root, options: options.split(','), tags: tags.join(' ').replaceAll(/\d+/g, 'N'), type: right.split(' ')[0] ?? '', all: right.split(' ')[2] ?? '' });
    },
    usual,
  };
}

/** Of all that hides something below /proc. */
function masks({ init }: Subjects): string {
  const lines = text(`/proc/${init}/mountinfo`).split('\n').map((line) => line.split(' ')).filter(([, , , root, point]) => /^\/proc\/(?!sys)./.test(point ?? '') && (root === '/null' || root === '/'));
  return lines.map(([, , , , point, options]) => `${point} ${options}`).sort().join('\n');
}

const inside = (namespaces: string, command: string, usual: string, images?: RegExp): Reading => ({
  read: ({ init }) => run('nsenter', '-t', String(init), namespaces, 'sh', '-c', command).replaceAll(/ linkdown|(?<=^|\n|@)\d+: /g, ''), usual, ...(images === undefined ? {} : { images }),
});
const limit = (files: readonly string[], usual: string): Reading => ({
  read: ({ init }) => { const found = files.flatMap((name) => { const path = cgroupFile(init, name); return path === undefined ? [] : [text(path)]; }); return found.length === 0 ? undefined : found.join(' '); }, usual,
});
const told = (process: 'init' | 'confined', value: string, usual: string, finding?: RegExp): Reading => ({
  told: true, usual, ...(finding === undefined ? {} : { finding }),
  read: ({ init }) => JSON.stringify((JSON.parse(text(`/proc/${init}/root/said-${process}`)) as Record<string, unknown>)[value]),
});

function descendants(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((tid) => text(`/proc/${pid}/task/${tid}/children`).split(' ').filter(Boolean).map(Number));
  return [pid, ...children.flatMap(descendants)];
}

function tasks({ init }: Subjects): string {
  return descendants(init).flatMap((pid) => readdirSync(`/proc/${pid}/task`).map((tid) => /^NSpid:.*\s(\d+)$/m.exec(text(`/proc/${pid}/task/${tid}/status`))?.[1] ?? '')).sort((a, b) => Number(a) - Number(b)).join(' ');
}

function descriptors({ init }: Subjects): string {
  return readdirSync(`/proc/${init}/fd`).map(Number).filter((fd) => fd > 2).sort((a, b) => a - b).map((fd) => {
    const info = text(`/proc/${init}/fdinfo/${fd}`);
    return [fd, readlinkSync(`/proc/${init}/fd/${fd}`).replace(/:\[\d+\]/, ''), /flags:\s*(\d+)/.exec(info)?.[1], /pos:\s*(\d+)/.exec(info)?.[1], /eventfd-count:\s*(\d+)/.exec(info)?.[1] ?? ''].join(' ');
  }).join('; ');
}

function semaphores({ init }: Subjects): string {
  return String(readdirSync(`/proc/${init}/fd`).filter((fd) => /^eventfd-semaphore:\s*1$/m.test(text(`/proc/${init}/fdinfo/${fd}`))).length);
}

/** Only in a virtual machine with such a module. */
function securityLabel({ init }: Subjects): string | undefined {
  try {
    return text(`/proc/${init}/attr/current`);
  } catch {
    return undefined;
  }
}

function innerCgroup({ confined }: Subjects): string {
  return text(`/proc/${confined}/cgroup`).split('\n').some((line) => line.endsWith('/inner')) ? 'inner' : 'the container\'s';
}

function innerSetting({ confined }: Subjects): string {
  const found = INNER_SETTING.map((name) => cgroupFile(confined, name)).find((path) => path !== undefined && existsSync(path) && path.includes('/inner/'));
  return found === undefined ? 'none' : text(found);
}

/** By attribute. */
export const READINGS: Readonly<Record<string, Reading>> = {
  tasks: { read: tasks, usual: '1' },
  'namespace-cgroup': namespace('cgroup', 'init', { forbidden: /--manage-cgroups-mode ignore|--manage-cgroups=ignore|manage-cgroups ignore/ }), 'namespace-ipc': namespace('ipc'), 'namespace-mnt': namespace('mnt'), 'namespace-net': namespace('net'),
  'namespace-pid': namespace('pid'), 'namespace-time': namespace('time'), 'namespace-user': namespace('user', 'mapped'), 'namespace-uts': namespace('uts'),
  uid: status('Uid', 'mapped'), gid: status('Gid', 'mapped'), groups: status('Groups'),
  'capabilities-inheritable': status('CapInh'), 'capabilities-permitted': status('CapPrm'), 'capabilities-effective': status('CapEff'), 'capabilities-bounding': status('CapBnd'), 'capabilities-ambient': status('CapAmb'),
  'no-new-privileges': status('NoNewPrivs', 'confined'), seccomp: status('Seccomp'), 'seccomp-filters': status('Seccomp_filters'),
  nice: field(19), 'scheduling-policy': field(41, 40), 'signals-blocked': status('SigBlk'), affinity: status('Cpus_allowed_list'),
  'io-priority': { read: ({ init }) => run('ionice', '-p', String(init)) }, 'timer-slack': file('timerslack_ns'), 'signals-ignored': status('SigIgn'), 'signals-caught': status('SigCgt'),
  name: file('comm'), program: link('exe'), 'working-directory': link('cwd'), 'root-directory': link('root', 'other'), umask: status('Umask'), 'resource-limits': file('limits'), 'oom-score-adj': file('oom_score_adj'),
  personality: { ...file('personality'), finding: /execution domain \(personality\) of pid/ }, 'coredump-filter': file('coredump_filter'), 'huge-pages': status('THP_enabled'), session: inner('NSsid', 'other'), 'process-group': inner('NSpgid', 'confined'),
  timers: { read: ({ init }) => text(`/proc/${init}/timers`).replaceAll(/\.\d+/g, '') }, descriptors: { read: descriptors, usual: '' },
  'event-semaphores': { read: semaphores, usual: '0', finding: /an event counter of pid \d+ \(unusual, \d+ inside\) is a semaphore/ }, 'security-label': { read: securityLabel }, cgroup: { read: innerCgroup, usual: 'the container\'s' },
  mount: mount('/media', ({ type }) => type, ''), 'mount-options': mount('/media', ({ options }) => options.filter((option) => /^(ro|rw|no(suid|dev|exec))$/.test(option)).join(), 'rw'),
  'mask-options': { read: masks, usual: '' }, 'mount-links': mount('/media', ({ options }) => String(options.includes('nosymfollow')), 'false'),
  'mount-times': mount('/media', ({ options }) => options.filter((option) => /atime/.test(option)).join(), 'relatime'), 'mount-propagation': mount('/media', ({ tags }) => tags, ''),
  'mount-part': mount('/proc/sys', ({ root }) => root, '/'), 'file-system-options': mount('/media', ({ all }) => all.split(',').filter((option) => option.startsWith('size=')).join(), ''),
  'limits-memory': limit(['memory.limit_in_bytes', 'memory.max'], 'max'), 'limits-processes': limit(['pids.max'], 'max'), 'limits-cpu': limit(['cpu.cfs_quota_us', 'cpu.shares', 'cpu.max', 'cpu.weight'], 'max'),
  'limits-cpuset': limit(['cpuset.cpus'], '0-1'), 'limits-io': limit(['blkio.weight', 'blkio.bfq.weight', 'io.weight'], 'default 100'),
  'host-name': inside('-u', 'hostname; domainname', '', /^utsns-/), 'ipc-settings': inside('-i', 'cat /proc/sys/kernel/shmmni', '4096', /^ipcns-var-/),
  'network-settings': inside('-n', 'cat /proc/sys/net/core/somaxconn', '4096', /^netns-/), 'network-links': inside('-n', 'ip -o link show | sed "s/^.*mtu \\([0-9]*\\) .*link.\\([^ ]* [^ ]*\\).*/\\1 \\2/"', '', /^netdev-/),
  'network-addresses': inside('-n', 'ip -o -4 address', '', /^ifaddr-/), 'network-routes': inside('-n', 'ip route', '', /^route/), 'network-rules': inside('-n', 'ip rule', '0:\tfrom all lookup local', /^rule-/),
  multicast: { read: ({ init }) => String(/\b030201EF\b/.test(text(`/proc/${init}/net/igmp`))), usual: 'false', finding: /multicast group 239\.1\.2\.3/ },
  securebits: told('init', 'securebits', '0'), dumpable: told('init', 'dumpable', '1'), 'parent-death-signal': told('confined', 'deathsig', '0'), 'child-subreaper': told('init', 'subreaper', '0'), 'interval-timers': told('init', 'interval', '0'),
  landlock: told('confined', 'landlock', '"allowed"', /what Landlock may forbid to pid \d+ \(confined/), 'socket-options': told('init', 'socket', '0', /TCP_USER_TIMEOUT/), 'file-attributes': told('init', 'attributes', '[]'),
  'cgroup-settings': { read: innerSetting, usual: 'max', finding: /settings of the cgroup \S*inner/ },
};

/** Lets the programs write down what only they know. */
export async function ask(subjects: Subjects): Promise<void> {
  for (const name of ['init', 'confined'] as const) {
    const path = join(`/proc/${subjects.init}/root`, `said-${name}`);
    execFileSync('rm', ['-f', path]);
    process.kill(subjects[name], 'SIGHUP');
    for (let waited = 0; !existsSync(path); waited += 20) {
      if (waited > 10_000) throw new Error(`${name} did not write down what it knows`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
