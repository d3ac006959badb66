/**
 * A program that never stops writing to its memory and knows what it must hold: blocks that change all the time,
 * mappings that come and go, a child that writes to pages it shares with its parent, and children that are born, look at
 * their memory and die. "verify" in /ask (heap.ts) hashes everything; what is wrong shows as a number or in /wrong.
 */
const PROGRAM = `
import collections, hashlib, mmap, os, random, signal, sys, time
mib, pages = int(sys.argv[1]), int(sys.argv[2])
SIZE = 1 << 16
blocks = [bytearray(os.urandom(SIZE // 2) + bytes(SIZE // 2)) for n in range(mib * 16)]
digest = lambda data: hashlib.blake2b(data, digest_size=16).digest()
sums = [digest(block) for block in blocks]
def say(name, words):
    with open('/' + name + '.new', 'w') as file: file.write(words)
    os.rename('/' + name + '.new', '/' + name)
def wrong(what):
    with open('/wrong', 'a') as file: file.write(what + '\\n')
def change(among):
    n = random.randrange(among)
    at = random.randrange(SIZE // 4096) << 12
    blocks[n][at:at + 64] = os.urandom(64)
    sums[n] = digest(blocks[n])
def check(limit):
    return sum(digest(blocks[n]) != sums[n] for n in range(limit))
maps = collections.deque()
def churn():
    fresh = mmap.mmap(-1, 1 << 18)
    fresh[:] = os.urandom(1 << 18)
    maps.append((fresh, digest(fresh[:])))
    if len(maps) > 8: maps.popleft()[0].close()
def writer():
    while True:
        for _ in range(4): change(len(blocks) // 8)
        if check(8): wrong('the child')
        time.sleep(0.02)
def short():
    time.sleep(random.random() * 0.5)
    for _ in range(20): change(len(blocks) // 8)
    if check(len(blocks) // 8): wrong('a short child')
    if random.random() < 0.5: os.execv('/bin/sh', ['/bin/sh', '-c', 'sleep 0.3'])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def fork(body):
    if os.fork() == 0:
        try: body()
        except BaseException as error: wrong(repr(error))
        os._exit(0)
fork(writer)
say('answer', 'ready')
turn = 0
while True:
    turn += 1
    for _ in range(pages): change(len(blocks) // 4)
    if turn % 10 == 0: churn()
    if turn % 50 == 0: fork(short)
    try:
        with open('/ask') as file: question = file.read()
    except FileNotFoundError:
        time.sleep(0.01)
        continue
    os.unlink('/ask')
    bad = check(len(blocks)) + sum(digest(area[:]) != known for area, known in maps)
    say('answer', str(bad + (100000 if os.path.exists('/wrong') else 0)))
`;

/** `pages`: so many are written in each turn, about a hundred turns a second; a quarter of the heap is written to. */
export function busyHeapArgs(mib: number, pages: number): readonly string[] {
  return ['/usr/bin/python3', '-c', PROGRAM, String(mib), String(pages)];
}
