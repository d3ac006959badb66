/** One program in a container of its own: begun, told to check itself, and read. */
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../src/core/errors.ts';
import { listPids, readNamespaces, readStat, readStatus } from '../../src/host/proc.ts';
import type { RuntimeName } from '../../src/runtime/index.ts';
import { startContainer, type Spec, type TestContainer } from '../support/containers.ts';
import { filesOf, type Program } from './suite.ts';

/** The programs make nodes, mounts and namespaces. Without what a container on a machine of the suite cannot be given. */
const CAPABILITIES = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
  NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_TIME SYS_TTY_CONFIG
  MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP`.split(/\s+/).map((name) => `CAP_${name}`);

const BEGIN_MS = 30_000;
const ANSWER_MS = 30_000;
const POLL_MS = 50;
/** Programs that measure how long they were away accept this much. */
const LONGEST_S = 120;
/** In the container. */
const PLACE = '/t';

function edit(spec: Spec): void {
  spec['process'].cwd = PLACE;
  spec['process'].noNewPrivileges = false;
  spec['process'].env.push(`LD_LIBRARY_PATH=${PLACE}`, `ZDTM_DELTA=${LONGEST_S}`);
  for (const set of ['bounding', 'effective', 'permitted']) spec['process'].capabilities[set] = CAPABILITIES;
  for (const mount of spec['mounts']) if (mount.destination === '/sys') mount.options = mount.options.filter((option: string) => option !== 'ro');
  // An address that is still looked for twins of looks otherwise a second later, restored or not.
  spec['linux'].sysctl = { 'net.ipv6.conf.default.accept_dad': '0' };
  delete spec['linux'].maskedPaths;
  delete spec['linux'].readonlyPaths;
}

async function until<T>(look: () => T | undefined, limitMs: number): Promise<T | undefined> {
  for (let waited = 0; ; waited += POLL_MS) {
    const seen = look();
    if (seen !== undefined || waited >= limitMs) return seen;
    await delay(POLL_MS);
  }
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'latin1') : undefined;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim().slice(-240);
}

export interface Subject {
  readonly container: TestContainer;
  /** Why it did not begin. */
  readonly skip: string | undefined;
}

export async function begin(directory: string, program: Program, { runtime, id }: { readonly runtime: RuntimeName; readonly id: string }): Promise<Subject> {
  const place = join('/srv', id, 'upper', PLACE);
  mkdirSync(place, { recursive: true });
  for (const file of filesOf(directory, program)) copyFileSync(file, join(place, basename(file)));
  const { name, args } = program;
  // The first process collects no children: some programs want to keep theirs.
  const script = `{ ./${name} --pidfile=${name}.pid --outfile=${name}.out ${args} > start.log 2>&1; echo $? > started; } & exec sleep infinity`;
  const container = await startContainer({ runtime, id, args: ['sh', '-c', script], edit });
  const root = `/proc/${container.pid}/root${PLACE}`;
  const status = (await until(() => readIfThere(join(root, 'started'))?.trim() || undefined, BEGIN_MS)) ?? 'no answer';
  const skip = status === '0' ? undefined : `it ends with ${status} before it is ready: ${oneLine(readIfThere(join(root, 'start.log')) ?? '')}`;
  return { container, skip };
}

/** Its number as the box sees it. */
function findProcess(containerPid: number, inner: number): number | undefined {
  const namespace = readNamespaces(containerPid).pid;
  const depth = (readStatus(containerPid)?.get('NSpid') ?? '').split(/\s+/).length;
  return listPids().find((pid) => {
    const numbers = (readStatus(pid)?.get('NSpid') ?? '').split(/\s+/).map(Number);
    return numbers[depth - 1] === inner && (numbers.length > depth || readNamespaces(pid).pid === namespace);
  });
}

function ended(pid: number): boolean {
  return ['Z', 'X', undefined].includes(readStat(pid)?.state);
}

/** Tells it to check itself, and returns "PASS" or what is wrong. */
export async function ask(containerPid: number, { name }: Program): Promise<string> {
  const root = `/proc/${containerPid}/root${PLACE}`;
  const inner = Number(readIfThere(join(root, `${name}.pid`)));
  const pid = Number.isNaN(inner) ? undefined : findProcess(containerPid, inner);
  const answer = (): string | undefined => {
    const said = readIfThere(join(root, `${name}.out`));
    if (said !== undefined) return said;
    // Some say FAIL on the way, and pass in the end.
    return pid === undefined || ended(pid) ? readIfThere(join(root, `${name}.out.inprogress`)) : undefined;
  };
  if (pid === undefined) return `process ${inner} of the container is not there; it said: ${oneLine(answer() ?? '')}`;
  process.kill(pid, 'SIGTERM');
  const said = await until(answer, ANSWER_MS);
  if (said === undefined) return `no answer within ${ANSWER_MS / 1000} s`;
  return said.includes('PASS') ? 'PASS' : oneLine(said);
}

export function explained(error: unknown): string {
  const { code, message, hint } = error as StasisError;
  return error instanceof StasisError ? `${code}: ${message}; hint: ${hint}`.slice(0, 600) : String(error).slice(0, 300);
}
