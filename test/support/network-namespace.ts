/** A network namespace that some commands have been run in, as the node sees it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** What `use` makes of it, by the number of a process in it; it ends with that. The commands are of sh, each must succeed. */
export async function inNetworkNamespace<T>(commands: string, use: (pid: number) => T): Promise<T> {
  const child = spawn('unshare', ['--net', 'sh', '-ec', `${commands}\necho done\nexec sleep 600`], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => assert.fail(`${commands} failed`))]);
    return use(child.pid ?? 0);
  } finally {
    child.kill('SIGKILL');
  }
}
