/** linux.seccomp of config.json as a program for the kernel (OCI runtime specification, "Seccomp"), as runc reads it. */
import { StasisError } from '../core/errors.ts';
import { compileSeccomp } from '../host/seccomp.ts';
import type { SeccompCondition } from '../host/seccomp.ts';
import type { OciSpec } from './types.ts';

interface OciCondition {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: string;
}

interface OciCall {
  readonly names?: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly OciCondition[] | null;
}

interface OciSeccomp {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[] | null;
  readonly syscalls?: readonly OciCall[] | null;
}

/** linux/seccomp.h */
const actions: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: 0, SCMP_ACT_KILL_THREAD: 0, SCMP_ACT_KILL_PROCESS: 0x8000_0000, SCMP_ACT_TRAP: 0x0003_0000, SCMP_ACT_ERRNO: 0x0005_0000, SCMP_ACT_TRACE: 0x7ff0_0000,
  SCMP_ACT_NOTIFY: 0x7fc0_0000, SCMP_ACT_LOG: 0x7ffc_0000, SCMP_ACT_ALLOW: 0x7fff_0000,
};
/** seccomp.h: enum scmp_compare. */
const comparisons: Readonly<Record<string, number>> = {
  SCMP_CMP_NE: 1, SCMP_CMP_LT: 2, SCMP_CMP_LE: 3, SCMP_CMP_EQ: 4, SCMP_CMP_GE: 5, SCMP_CMP_GT: 6, SCMP_CMP_MASKED_EQ: 7,
};
const EPERM = 1;
const MAX_ARGUMENT = 5;

/** Undefined where the bundle has no profile. `scratch`: path of a file to be made and removed. Throws RESTORE_INCOMPATIBLE. */
export function seccompProgram(spec: OciSpec, scratch: string): Uint8Array | undefined {
  const profile = spec.linux?.['seccomp'] as OciSeccomp | undefined;
  if (profile === undefined || profile === null) return undefined;
  return compileSeccomp({
    defaultAction: action(profile.defaultAction, profile.defaultErrnoRet),
    architectures: (profile.architectures ?? []).map((name) => name.replace(/^SCMP_ARCH_/, '').toLowerCase()),
    rules: (profile.syscalls ?? []).flatMap((call) => (call.names ?? []).flatMap((name) => alternatives(call).map((conditions) => ({ name, action: action(call.action, call.errnoRet), conditions })))),
  }, scratch);
}

function action(name: string, errno: number | undefined): number {
  const number = actions[name];
  if (number === undefined) throw wrong(`the action ${name}`);
  return name === 'SCMP_ACT_ERRNO' || name === 'SCMP_ACT_TRACE' ? (number | ((errno ?? EPERM) & 0xffff)) : number;
}

/** All conditions must hold; those that look at one argument twice are rules of their own, of which one is enough. */
function alternatives({ args }: OciCall): (readonly SeccompCondition[])[] {
  const conditions = (args ?? []).map(condition);
  const twice = new Set(conditions.map(({ index }) => index)).size < conditions.length;
  return twice ? conditions.map((one) => [one]) : [conditions];
}

function condition({ index, value, valueTwo = 0, op }: OciCondition): SeccompCondition {
  const comparison = comparisons[op];
  if (comparison === undefined || !Number.isInteger(index) || index < 0 || index > MAX_ARGUMENT) throw wrong(`the condition ${op} on argument ${index}`);
  return { index, comparison, value: unsigned(value), valueTwo: unsigned(valueTwo) };
}

/** JSON's numbers are exact up to 2^53 only: beyond that another value than the one meant would be compared. */
function unsigned(value: number): bigint {
  if (!Number.isInteger(value) || value < 0 || value > 2 ** 64) throw wrong(`the value ${value}`);
  if (value > Number.MAX_SAFE_INTEGER && value !== 2 ** 64) throw wrong(`the value ${value}, which JSON does not hold exactly,`);
  return value === 2 ** 64 ? 2n ** 64n - 1n : BigInt(value);
}

function wrong(what: string): StasisError {
  return new StasisError('RESTORE_INCOMPATIBLE', `the bundle's seccomp profile has ${what} that is not known`, { hint: 'correct linux.seccomp of the bundle' });
}
