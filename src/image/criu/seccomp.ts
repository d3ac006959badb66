/**
 * Seccomp filters out of seccomp.img, and what they do with a system call: a small interpreter of classic BPF (linux/filter.h)
 * that follows both ways wherever a filter asks for more than the number of the call, such as its arguments.
 */
import { StasisError } from '../../core/errors.ts';
import { singleEntry } from './framing.ts';
import { onlyOnce } from './wire.ts';

export interface SeccompFilter {
  readonly program: Uint8Array;
  /** The filter that was there before it: both must let a call pass. */
  readonly previous: number | undefined;
}

/** By number, as core-TID.img names them. Throws OBJECT_CORRUPT. */
export function readFilters(bytes: Uint8Array): SeccompFilter[] {
  const filters: SeccompFilter[] = [];
  for (const all of onlyOnce(singleEntry(bytes, 'seccomp', 'seccomp.img'), 'seccomp.img', 1)) {
    if (all.field !== 1) continue;
    let program: Uint8Array = new Uint8Array(0);
    let previous: number | undefined;
    for (const one of onlyOnce(all.bytes(), 'seccomp.img')) {
      if (one.field === 1) program = one.bytes();
      else if (one.field === 2) previous = one.uint32();
    }
    filters.push({ program, previous });
  }
  return filters;
}

/** AUDIT_ARCH_ of linux/audit.h; where a filter looks for it and for the number of the call (struct seccomp_data). */
export const auditArchitectures: Readonly<Record<string, number>> = { x64: 0xc000003e, arm64: 0xc00000b7 };
const NUMBER_AT = 0;
const ARCHITECTURE_AT = 4;

const INSTRUCTION_BYTES = 8;
/** The kernel takes 4096 instructions. */
const MAX_INSTRUCTIONS = 4096;
/** Ways through a filter of libseccomp: some hundreds. */
const MAX_STEPS = 200_000;
const ALLOW = 0x7fff0000;
const LOG = 0x7ffc0000;

/** Undefined: it depends on what is not known. */
type Value = number | undefined;

interface State {
  at: number;
  a: Value;
  x: Value;
  memory: readonly Value[];
}

/** Whether there is a way through the program on which the call goes ahead. Throws OBJECT_CORRUPT for a program that the kernel would not take. */
export function passes(program: Uint8Array, architecture: number, call: number): boolean {
  const view = new DataView(program.buffer, program.byteOffset, program.length);
  const count = program.length / INSTRUCTION_BYTES;
  if (!Number.isInteger(count) || count === 0 || count > MAX_INSTRUCTIONS) throw broken(`has ${program.length} bytes`);
  const load = (offset: number): Value => (offset === NUMBER_AT ? call : offset === ARCHITECTURE_AT ? architecture : undefined);
  const waiting: State[] = [{ at: 0, a: 0, x: 0, memory: [] }];
  const seen = new Set<string>();
  for (let steps = 0; ; ) {
    const state = waiting.pop();
    if (state === undefined) return false;
    const key = `${state.at} ${state.a} ${state.x} ${state.memory.join()}`;
    if (seen.has(key)) continue;
    seen.add(key);
    while (state.at < count) {
      if ((steps += 1) > MAX_STEPS) throw broken('has too many ways through it to be judged');
      const at = state.at * INSTRUCTION_BYTES;
      const instruction = { code: view.getUint16(at, true), yes: view.getUint8(at + 2), no: view.getUint8(at + 3), k: view.getUint32(at + 4, true) };
      if ((instruction.code & 7) === 6) {
        if (letsPass(instruction.code === 6 ? instruction.k : state.a)) return true;
        break;
      }
      waiting.push(...step(state, instruction, load));
    }
    if (state.at >= count) throw broken('runs over its end');
  }
}

function letsPass(value: Value): boolean {
  const action = value === undefined ? ALLOW : (value & 0x7fff0000) >>> 0;
  // What is killed as a process has the highest bit, too.
  return (value === undefined || value < 0x80000000) && (action === ALLOW || action === LOG);
}

interface Instruction {
  readonly code: number;
  readonly yes: number;
  readonly no: number;
  readonly k: number;
}

/** Does one instruction; returns the other way when there are two. */
function step(state: State, { code, yes, no, k }: Instruction, load: (offset: number) => Value): State[] {
  state.at += 1;
  switch (code) {
    case 0x20: state.a = load(k); break;
    case 0x80: case 0x81: if (code === 0x80) state.a = 64; else state.x = 64; break;
    case 0x00: state.a = k; break;
    case 0x01: state.x = k; break;
    case 0x60: state.a = state.memory[k & 15]; break;
    case 0x61: state.x = state.memory[k & 15]; break;
    case 0x02: case 0x03: state.memory = Object.assign([...state.memory], { [k & 15]: code === 2 ? state.a : state.x }); break;
    case 0x07: state.x = state.a; break;
    case 0x87: state.a = state.x; break;
    default:
      if ((code & 7) === 4) state.a = compute(code & 0xf0, state.a, (code & 8) === 0 ? k : state.x);
      else if ((code & 7) === 5) return jump(state, { code, yes, no, k });
      else throw broken(`has the instruction ${code}`);
  }
  return [];
}

function compute(operation: number, a: Value, b: Value): Value {
  if (a === undefined || b === undefined) return undefined;
  switch (operation) {
    case 0x00: return (a + b) >>> 0;
    case 0x10: return (a - b) >>> 0;
    case 0x20: return Math.imul(a, b) >>> 0;
    case 0x30: return b === 0 ? 0 : Math.floor(a / b);
    case 0x40: return (a | b) >>> 0;
    case 0x50: return (a & b) >>> 0;
    case 0x60: return b > 31 ? 0 : (a << b) >>> 0;
    case 0x70: return b > 31 ? 0 : a >>> b;
    case 0x80: return -a >>> 0;
    case 0xa0: return (a ^ b) >>> 0;
    default: throw broken(`computes with ${operation}`);
  }
}

function jump(state: State, { code, yes, no, k }: Instruction): State[] {
  const operation = code & 0xf0;
  if (operation === 0x00) {
    state.at += k;
    return [];
  }
  const b = (code & 8) === 0 ? k : state.x;
  const { a } = state;
  if (a === undefined || b === undefined) {
    const other = { ...state, at: state.at + no };
    state.at += yes;
    return [other];
  }
  state.at += holds(operation, a, b) ? yes : no;
  return [];
}

function holds(operation: number, a: number, b: number): boolean {
  switch (operation) {
    case 0x10: return a === b;
    case 0x20: return a > b;
    case 0x30: return a >= b;
    case 0x40: return (a & b) !== 0;
    default: throw broken(`compares with ${operation}`);
  }
}

function broken(problem: string): StasisError {
  return new StasisError('OBJECT_CORRUPT', `a seccomp filter in the images ${problem}`);
}
