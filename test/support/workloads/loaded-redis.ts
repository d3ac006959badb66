/**
 * A redis of a gigabyte under write load, in one container: a program fills it over a unix socket, goes on writing and knows
 * what was acknowledged. It is asked through files in its own root, as the heap is: "verify" reads back every acknowledged
 * key and tells how many are not as they were written, "pause" the longest time between two acknowledgements.
 */
const PROGRAM = `
import hashlib, os, socket, subprocess, sys, time
keys = int(sys.argv[1]) * 256
server = subprocess.Popen(['/usr/bin/redis-server', '--port', '0', '--unixsocket', '/redis.sock', '--save', '', '--appendonly', 'no', '--dir', '/', '--logfile', '/dev/null'])
while True:
    try:
        line = socket.socket(socket.AF_UNIX); line.connect('/redis.sock'); break
    except OSError:
        time.sleep(0.02)
# Half of each value is random, the rest says the same again and again: memory of redis is like that.
def value(n):
    return hashlib.shake_128(b'%d' % n).hexdigest(1024).encode() + (b'value %d ' % n * 256)[:2048]
def send(numbers, command):
    line.sendall(b''.join(command(n) for n in numbers))
reader = line.makefile('rb', 1 << 20)
def put(numbers):
    send(numbers, lambda n: b'*3\\r\\n$3\\r\\nSET\\r\\n$%d\\r\\nkey:%d\\r\\n$4096\\r\\n%s\\r\\n' % (len('key:%d' % n), n, value(n)))
    for n in numbers:
        if reader.readline() != b'+OK\\r\\n': sys.exit('redis did not take a key')
def wrong(numbers):
    send(numbers, lambda n: b'*2\\r\\n$3\\r\\nGET\\r\\n$%d\\r\\nkey:%d\\r\\n' % (len('key:%d' % n), n))
    bad = 0
    for n in numbers:
        size = int(reader.readline()[1:])
        bad += size < 0 or reader.read(size + 2)[:-2] != value(n)
    return bad
def say(name, words):
    with open('/' + name + '.new', 'w') as file: file.write(words)
    os.rename('/' + name + '.new', '/' + name)
for first in range(0, keys, 256): put(range(first, first + 256))
say('answer', 'ready')
last = time.monotonic(); pause = 0.0
while True:
    put(range(keys, keys + 16)); keys += 16
    now = time.monotonic(); pause = max(pause, now - last); last = now
    time.sleep(0.002)
    try:
        with open('/ask') as file: question = file.read()
    except FileNotFoundError:
        continue
    os.unlink('/ask')
    if question == 'verify': say('answer', str(sum(wrong(range(first, min(keys, first + 256))) for first in range(0, keys, 256))))
    else: say('answer', str(round(pause * 1000, 3)))
    last = time.monotonic(); pause = 0.0
`;

/** Its values make `mib` MiB; redis takes about a fifth more. */
export function loadedRedisArgs(mib: number): readonly string[] {
  return ['/usr/bin/python3', '-c', PROGRAM, String(mib)];
}
