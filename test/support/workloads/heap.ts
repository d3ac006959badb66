/**
 * A program with a large heap, half random and half compressible (about 4 to 1), that knows the hash of each of its
 * blocks. It is asked through files in its own root: "verify" hashes everything again, "scatter N" and "region N" change pages, "pause" tells for how long it
 * did not run at a stretch since it was asked last.
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const PROGRAM = `
import hashlib, os, random, sys, time
mib = int(sys.argv[1])
text = b''.join(b'line %08d of the compressible half\\n' % n for n in range(16384))[:1 << 19]
blocks = [bytearray(os.urandom(1 << 20) if n % 2 else os.urandom(1 << 18).hex().encode() + text) for n in range(mib)]
sums = [hashlib.sha256(block).digest() for block in blocks]
def say(name, words):
    with open('/' + name + '.new', 'w') as file: file.write(words)
    os.rename('/' + name + '.new', '/' + name)
say('answer', 'ready')
last = time.monotonic(); pause = 0.0
while True:
    time.sleep(0.001)
    now = time.monotonic(); pause = max(pause, now - last); last = now
    try:
        with open('/ask') as file: question = file.read()
    except FileNotFoundError:
        continue
    os.unlink('/ask')
    if question == 'verify':
        say('answer', str(sum(hashlib.sha256(block).digest() != known for block, known in zip(blocks, sums))))
    elif question.startswith(('region', 'scatter')):
        kind, count = question.split()
        pages = range(int(count)) if kind == 'region' else random.sample(range(mib * 256), int(count))
        touched = set()
        for page in pages:
            blocks[page >> 8][((page & 255) << 12) + 2048] ^= 255
            touched.add(page >> 8)
        for block in touched: sums[block] = hashlib.sha256(blocks[block]).digest()
        say('answer', str(len(pages)))
    else:
        say('answer', str(round(pause * 1000, 3)))
    last = time.monotonic(); pause = 0.0
`;

export function heapArgs(mib: number): readonly string[] {
  return ['/usr/bin/python3', '-c', PROGRAM, String(mib)];
}

/** Waits until the program with this pid has filled its heap. */
export async function heapReady(pid: number): Promise<void> {
  await answer(pid, 120_000);
}

/** How many blocks differ from what they were at the start. */
export async function wrongBlocks(pid: number): Promise<number> {
  ask(pid, 'verify');
  return Number(await answer(pid, 60_000));
}

/** The longest time in milliseconds that the program did not run since the last question. */
export async function longestPauseMs(pid: number): Promise<number> {
  ask(pid, 'pause');
  return Number(await answer(pid, 60_000));
}

/** Changes one byte in so many pages, the first of the heap or any; returns how many. */
export async function changePages(pid: number, where: 'region' | 'scatter', pages: number): Promise<number> {
  ask(pid, `${where} ${pages}`);
  return Number(await answer(pid, 60_000));
}

function ask(pid: number, question: string): void {
  const file = `/proc/${pid}/root/ask`;
  rmSync(`/proc/${pid}/root/answer`, { force: true });
  writeFileSync(`${file}.new`, question);
  renameSync(`${file}.new`, file);
}

async function answer(pid: number, timeoutMs: number): Promise<string> {
  const file = `/proc/${pid}/root/answer`;
  for (let waitedMs = 0; waitedMs < timeoutMs; waitedMs += 5) {
    if (existsSync(file)) return readFileSync(file, 'utf8');
    await delay(5);
  }
  throw new Error(`the heap program (pid ${pid}) gives no answer`);
}
