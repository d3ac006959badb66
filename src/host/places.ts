/**
 * Where the threads of a frozen container stand, to tell later whether a tracer has moved them. criu borrows the tasks that it
 * dumps: it puts calls, and then a program of its own (the parasite), into them, and puts everything back in the end.
 */
import { readFileSync } from 'node:fs';
import { errnoCode } from '../core/errors.ts';
import { readStat } from './proc.ts';

interface Place {
  readonly call: string;
  readonly stack: bigint;
  readonly counter: bigint;
}

export type Places = ReadonlyMap<number, Place>;

/** criu gives its program's memory this name. */
const PARASITE = '/memfd:CRIUMFD';
/** Numbers of recvfrom and recvmsg: the parasite waits for orders, and when nobody is there to give any it puts its task back by itself. */
const WAITS: Readonly<Record<string, readonly string[]>> = { x64: ['45', '47'], arm64: ['207', '212'] };
/** criu winds an interrupted call back by the length of the instruction. */
const CALL_BYTES = process.arch === 'x64' ? 2n : 4n;

/** Of threads that stand still; those that have ended are left out. Undefined where the kernel does not tell (CONFIG_HAVE_ARCH_TRACEHOOK). */
export function readPlaces(tids: readonly number[]): Places | undefined {
  const places = new Map<number, Place>();
  for (const tid of tids) {
    const place = readPlace(tid);
    if (place === 'unknown') return undefined;
    if (place !== undefined) places.set(tid, place);
  }
  return places;
}

/** /proc/TID/syscall: number, six arguments, stack pointer, program counter; or -1, the two pointers; or "running". */
function readPlace(tid: number): Place | 'unknown' | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${tid}/syscall`, 'latin1').trim();
  } catch (error) {
    return errnoCode(error) === 'ENOENT' && readStat(tid) !== undefined ? 'unknown' : undefined;
  }
  const fields = text.split(' ');
  if (fields.length < 3) return 'unknown';
  return { call: fields[0]!, stack: BigInt(fields.at(-2)!), counter: BigInt(fields.at(-1)!) };
}

/** Whether every one of these threads goes on as if nothing had happened when its tracer dies now. */
export function areAtHome(places: Places): boolean {
  for (const [tid, was] of places) {
    const is = readPlace(tid);
    if (is === undefined) continue;
    if (is === 'unknown') return false;
    if (is.stack === was.stack && (is.counter === was.counter || is.counter === was.counter - CALL_BYTES)) continue;
    if (!waitsAsParasite(tid, is)) return false;
  }
  return true;
}

/** One thread a line: its id, call, stack pointer and program counter. */
export function placesToText(places: Places): string {
  return [...places].map(([tid, { call, stack, counter }]) => `${tid} ${call} ${stack} ${counter}\n`).join('');
}

/** What placesToText() wrote. */
export function placesFromText(text: string): Places {
  return new Map(text.split('\n').filter(Boolean).map((line) => {
    const [tid = '', call = '', stack = '', counter = ''] = line.split(' ');
    return [Number(tid), { call, stack: BigInt(stack), counter: BigInt(counter) }];
  }));
}

function waitsAsParasite(tid: number, { call, counter }: Place): boolean {
  if (WAITS[process.arch]?.includes(call) !== true || readStat(tid)?.state !== 'S') return false;
  try {
    return readFileSync(`/proc/${tid}/maps`, 'latin1').split('\n').some((line) => {
      const [start, end] = (line.split(' ', 1)[0] ?? '').split('-').map((hex) => BigInt(`0x${hex || '0'}`));
      return line.includes(PARASITE) && start !== undefined && end !== undefined && start <= counter && counter < end;
    });
  } catch {
    return false;
  }
}
