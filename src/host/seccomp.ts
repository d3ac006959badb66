/**
 * Programs for seccomp(2) out of rules, made by the system's libseccomp (seccomp_rule_add(3)): the library that runc and crun
 * make theirs with, so that the same rules mean the same.
 */
import { closeSync, openSync, readFileSync, unlinkSync } from 'node:fs';
import koffi from 'koffi';
import { StasisError } from '../core/errors.ts';

/** Actions and comparisons are numbers of linux/seccomp.h and seccomp.h. */
export interface SeccompRules {
  readonly defaultAction: number;
  /** As libseccomp names them ("x86_64", "x86", "x32", …), beside the native one. */
  readonly architectures: readonly string[];
  readonly rules: readonly { readonly name: string; readonly action: number; readonly conditions: readonly SeccompCondition[] }[];
}

export interface SeccompCondition {
  readonly index: number;
  readonly comparison: number;
  readonly value: bigint;
  readonly valueTwo: bigint;
}

const LIBRARY = 'libseccomp.so.2';
/** It has been added before, or is the native one. */
const EEXIST = 17;
const UNKNOWN_CALL = -1;
const OPTIMIZE = 8;
const BINARY_TREE = 2;
const CONDITION_BYTES = 24;

function load() {
  const library = koffi.load(LIBRARY);
  return {
    init: library.func('void* seccomp_init(uint32_t action)'),
    release: library.func('void seccomp_release(void* filter)'),
    resolveArchitecture: library.func('uint32_t seccomp_arch_resolve_name(const char* name)'),
    addArchitecture: library.func('int seccomp_arch_add(void* filter, uint32_t architecture)'),
    resolveCall: library.func('int seccomp_syscall_resolve_name(const char* name)'),
    addRule: library.func('int seccomp_rule_add_array(void* filter, uint32_t action, int call, unsigned int count, const void* conditions)'),
    setAttribute: library.func('int seccomp_attr_set(void* filter, int attribute, uint32_t value)'),
    exportProgram: library.func('int seccomp_export_bpf(void* filter, int fd)'),
  };
}

let loaded: ReturnType<typeof load> | undefined;

/** `scratch`: path of a file that does not exist, and will not. Throws RESTORE_INCOMPATIBLE where there is no library, or it does not take the rules. */
export function compileSeccomp({ defaultAction, architectures, rules }: SeccompRules, scratch: string): Uint8Array {
  const calls = library();
  const filter: unknown = calls.init(defaultAction);
  if (filter === null) throw refused('the default action', 0);
  try {
    for (const name of architectures) {
      const token = calls.resolveArchitecture(name) as number;
      const error = token === 0 ? 1 : -(calls.addArchitecture(filter, token) as number);
      if (error !== 0 && error !== EEXIST) throw refused(`the architecture ${name}`, error);
    }
    for (const { name, action, conditions } of rules) {
      const call = calls.resolveCall(name) as number;
      // Of a newer kernel than the library is made for: runtimes leave such rules out.
      if (call === UNKNOWN_CALL || action === defaultAction) continue;
      const error = calls.addRule(filter, action, call, conditions.length, encode(conditions)) as number;
      if (error !== 0) throw refused(`the rule for ${name}`, -error);
    }
    // Older libraries cannot; the program only takes longer.
    calls.setAttribute(filter, OPTIMIZE, BINARY_TREE);
    return program(scratch, (fd) => calls.exportProgram(filter, fd) as number);
  } finally {
    calls.release(filter);
  }
}

function library(): ReturnType<typeof load> {
  try {
    loaded ??= load();
    return loaded;
  } catch (error) {
    throw new StasisError('RESTORE_INCOMPATIBLE', `the bundle has a seccomp profile, and ${LIBRARY}, which makes a filter of it, is not on this node`, { cause: error, hint: 'install libseccomp 2.5 or newer (Debian: libseccomp2)' });
  }
}

function encode(conditions: readonly SeccompCondition[]): Uint8Array {
  const bytes = Buffer.alloc(Math.max(1, conditions.length) * CONDITION_BYTES);
  for (const [i, { index, comparison, value, valueTwo }] of conditions.entries()) {
    const at = i * CONDITION_BYTES;
    bytes.writeUInt32LE(index, at);
    bytes.writeInt32LE(comparison, at + 4);
    bytes.writeBigUInt64LE(value, at + 8);
    bytes.writeBigUInt64LE(valueTwo, at + 16);
  }
  return bytes;
}

function program(scratch: string, write: (fd: number) => number): Uint8Array {
  const fd = openSync(scratch, 'wx', 0o600);
  try {
    const error = write(fd);
    if (error !== 0) throw refused('the profile as a whole', -error);
    return readFileSync(scratch);
  } finally {
    closeSync(fd);
    unlinkSync(scratch);
  }
}

function refused(what: string, errno: number): StasisError {
  return new StasisError('RESTORE_INCOMPATIBLE', `libseccomp does not take ${what} of the bundle's seccomp profile${errno === 0 ? '' : ` (errno ${errno})`}`, { hint: 'correct linux.seccomp of the bundle' });
}
