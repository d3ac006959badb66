/**
 * A program that knows what is in its memory and never stops to look: it goes over its blocks again and again, compares
 * the hash of each, and says what it found. A page that came back as zeros, or as another page, shows.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** `hot`: so many blocks in the middle, where what fills the heap from its start comes late, are looked at again and again, and of the others one for each `stride` looks; 0: all alike. */
const PROGRAM = `
import hashlib, os, sys
mib, hot, stride = (int(word) for word in sys.argv[1:4])
heap = memoryview(bytearray(mib << 20))
block = 1 << 16
total = (mib << 20) // block
sums = []
for n in range(total):
    data = os.urandom(block // 2) + bytes((n & 255,)) * (block // 4) + bytes(block // 4)
    heap[n * block:(n + 1) * block] = data
    sums.append(hashlib.blake2b(data, digest_size=16).digest())
def look(n):
    if hashlib.blake2b(heap[n * block:(n + 1) * block], digest_size=16).digest() != sums[n]:
        print('WRONG', n, flush=True)
looks = round = 0
print('ready', flush=True)
while True:
    for n in range(total):
        for m in range(stride if hot else 0):
            look(total // 2 + (n * 7 + m) % hot)
            if m % 16 == 0: print('.', flush=True)
        look((n * 101) % total)
        looks += 1
        if looks % 4 == 0: print(looks, flush=True)
    round += 1
    print('round', round, flush=True)
`;

export function checkedHeapArgs(mib: number, hot = 0, stride = 0): readonly string[] {
  return ['/usr/bin/python3', '-c', PROGRAM, String(mib), String(hot), String(stride)];
}

/** The same memory, at which children look that are forked all the time. */
export function forkingHeapArgs(mib: number): readonly string[] {
  return ['/usr/bin/python3', '-c', PROGRAM.slice(0, PROGRAM.indexOf('looks = round')) + FORKING, String(mib), '0', '0'];
}

const FORKING = `
looks = 0
print('ready', flush=True)
while True:
    child = os.fork()
    if child == 0:
        for n in range(64): look((looks * 64 + n * 101) % total)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0: print('WRONG child', flush=True)
    looks += 1
    print(looks, flush=True)
`;

/** The lines that the program has said; `file` takes its output. */
export function heapLines(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n').slice(0, -1);
  } catch {
    return [];
  }
}

export function looks(file: string): number {
  return Number(heapLines(file).findLast((line) => /^\d+$/.test(line)) ?? 0);
}

export function assertNothingWrong(file: string): void {
  assert.deepEqual(heapLines(file).filter((line) => line.startsWith('WRONG')), [], 'blocks of the heap are wrong');
}

/** Waits until the program has looked at more than `from` blocks. */
export async function waitForLooks(file: string, from: number, timeoutMs = 30_000): Promise<void> {
  const until = performance.now() + timeoutMs;
  while (looks(file) <= from) {
    assert.ok(performance.now() < until, `the heap program does not go on from ${from}`);
    await delay(5);
  }
}

/** Waits until the program has looked at every block since the call. */
export async function waitForRounds(file: string, timeoutMs = 60_000): Promise<void> {
  const until = performance.now() + timeoutMs;
  const rounds = (): number => heapLines(file).filter((line) => line.startsWith('round')).length;
  for (const wanted = rounds() + 2; rounds() < wanted;) {
    assert.ok(performance.now() < until, 'the heap program does not come to the end of its round');
    await delay(20);
  }
}
