/**
 * Loaded by Node's test runner into the process of each test file, on the machine: runs the file in a box of its own instead. Its
 * results go to the runner as they are, through the same standard output. So files run side by side and cannot disturb each other,
 * and what one leaves behind is its own. TEST_BOX_OPTIONS holds options of scripts/box; to the file TEST_TIMES goes a line with
 * the seconds that it took.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [, file = ''] = process.argv;
// oxlint-disable-next-line node/no-process-env
const { TEST_BOX_OPTIONS: options = '', TEST_TIMES: times = '', ...env } = process.env;
const repository = fileURLToPath(new URL('../..', import.meta.url));

if (env.NODE_TEST_CONTEXT !== undefined && file.startsWith(`${repository}dist/test/`)) {
  const started = performance.now();
  const words = process.execArgv.filter((word) => !word.startsWith('--import'));
  const inside = ['node', ...words, '--import=./dist/test/support/leaks.js', file.slice(repository.length)];
  const box = spawn(`${repository}scripts/box`, ['--name', `test${process.pid}`, ...options.split(' ').filter(Boolean), '--', 'bash', '-c', 'cd /opt/stasis && NODE_COMPILE_CACHE=/opt/stasis/.cache/compiled exec "$@"', 'bash', ...inside], { stdio: 'inherit', env });
  // The runner ends a file that takes too long: the box goes with the script that started it.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => box.kill('SIGKILL'));
  const [status] = await once(box, 'exit');
  if (times !== '') appendFileSync(times, `${((performance.now() - started) / 1000).toFixed(1)} ${file.slice(repository.length)}\n`);
  process.exit(status ?? 1);
}
