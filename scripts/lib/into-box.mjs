/**
 * Loaded by Node's test runner into the process of each test file, on the machine: runs the file in a box instead. Its results
 * go to the runner as they are, through the same standard output. There is a box for each file that runs at the same time, so
 * files cannot disturb each other; one in which a file has failed is given up, and the next file gets a new one.
 *
 * TEST_BOX_OPTIONS holds options of scripts/box. TEST_BOXES is a directory for what is known of the boxes; its FIFO "alive" is
 * held open by scripts/test, and the boxes end with that. To the file TEST_TIMES goes a line with the seconds that it took.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [, file = ''] = process.argv;
// oxlint-disable-next-line node/no-process-env
const { TEST_BOX_OPTIONS: options = '', TEST_BOXES: boxes = '', TEST_TIMES: times = '', ...env } = process.env;
const repository = fileURLToPath(new URL('../..', import.meta.url));

/** When a process was started: another one with its number has another. */
function startTime(pid) {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ')[19];
  } catch {
    return undefined;
  }
}

/** A directory of boxes/ that nobody else uses now. */
function claim() {
  for (let number = 0; ; number += 1) {
    const place = `${boxes}/${number}`;
    const owner = `${place}/owner`;
    mkdirSync(place, { recursive: true });
    if (existsSync(owner) && startTime(readFileSync(owner, 'utf8')) === undefined) rmSync(owner);
    try {
      writeFileSync(owner, String(process.pid), { flag: 'wx' });
      return place;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
}

const children = (pid) => readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);

/** The process below this one that waits in the box. */
function waiting(pid) {
  if (readFileSync(`/proc/${pid}/comm`, 'latin1') === 'cat\n' && existsSync(`/proc/${pid}/root/opt/stasis`)) return pid;
  return children(pid).map(waiting).find(Boolean);
}

async function start(place) {
  const alive = openSync(`${boxes}/alive`, 'r');
  const errors = openSync(`${place}/errors`, 'w');
  const name = `test${process.pid}`;
  const box = spawn(`${repository}scripts/box`, ['--name', name, ...options.split(' ').filter(Boolean), '--', 'bash', '-c', 'echo ready; exec cat > /dev/null'], { stdio: [alive, 'pipe', errors], detached: true, env });
  closeSync(alive);
  closeSync(errors);
  const ready = await Promise.race([once(box.stdout, 'data'), once(box, 'exit').then(() => undefined)]);
  if (ready === undefined) throw new Error(`no box: ${readFileSync(`${place}/errors`, 'utf8')}`);
  box.stdout.destroy();
  box.unref();
  for (;;) {
    const inside = waiting(box.pid);
    if (inside !== undefined) return { name, script: box.pid, inside, since: startTime(inside) };
  }
}

/** That of the file before, or a new one. */
async function boxOf(place) {
  const path = `${place}/box.json`;
  if (existsSync(path)) {
    const known = JSON.parse(readFileSync(path, 'utf8'));
    if (startTime(known.inside) === known.since) return known;
  }
  const box = await start(place);
  writeFileSync(path, JSON.stringify(box));
  return box;
}

if (env.NODE_TEST_CONTEXT !== undefined && file.startsWith(`${repository}dist/test/`)) {
  const started = performance.now();
  const place = claim();
  const box = await boxOf(place);
  const words = process.execArgv.filter((word) => !word.startsWith('--import'));
  const inside = ['node', ...words, '--import=./dist/test/support/leaks.js', file.slice(repository.length)];
  const test = spawn('bash', [
    `${repository}scripts/lib/enter-box.sh`, box.name, String(box.inside), `NODE_TEST_CONTEXT=${env.NODE_TEST_CONTEXT}`,
    'NODE_COMPILE_CACHE=/opt/stasis/.cache/compiled', 'sh', '-c', 'cd /opt/stasis && exec "$@"', 'sh', ...inside,
  ], { stdio: 'inherit', env });
  const giveUp = () => {
    try {
      process.kill(box.script, 'SIGKILL');
    } catch {
      // It is over.
    }
  };
  // The runner ends a file that takes too long.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, giveUp);
  const [status] = await once(test, 'exit');
  if (status !== 0) giveUp();
  if (times !== '') appendFileSync(times, `${((performance.now() - started) / 1000).toFixed(1)} ${file.slice(repository.length)}\n`);
  rmSync(`${place}/owner`);
  process.exit(status ?? 1);
}
