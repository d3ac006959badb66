/** Many processes, each with a small heap and two pipes to their parent, which asks all of them again and again. */

const PROGRAM = `
import hashlib, os, sys, time
children = []
for _ in range(int(sys.argv[1])):
    answers, answer = os.pipe(); asks, ask = os.pipe()
    if os.fork() == 0:
        os.close(answers); os.close(ask)
        for pair in children: os.close(pair[0]); os.close(pair[1])
        heap = os.urandom(4096) * 8; known = hashlib.sha256(heap).digest()
        while os.read(asks, 1): os.write(answer, b'y' if hashlib.sha256(heap).digest() == known else b'n')
        os._exit(0)
    os.close(answer); os.close(asks); children.append((answers, ask))
n = 0
while True:
    for _, ask in children: os.write(ask, b'?')
    if any(os.read(answers, 1) != b'y' for answers, _ in children): sys.exit('a child has lost its memory')
    n += 1
    with open('/count', 'a') as count: count.write(f'{n}\\n')
    time.sleep(0.3)
`;

/** Counts in /count, a line for each time that all have answered rightly. */
export function processesArgs(children: number): readonly string[] {
  return ['/usr/bin/python3', '-c', PROGRAM, String(children)];
}
