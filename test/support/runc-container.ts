/** A real container under plain runc, with an overlay of the box's root as its file system. Only inside a box. */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

const exec = promisify(execFile);

export class RuncContainer implements AsyncDisposable {
  readonly id: string;
  readonly directory: string;
  readonly log: string;

  private constructor(id: string) {
    this.id = id;
    this.directory = join('/srv', id);
    this.log = join(this.directory, 'log');
  }

  /** Starts `args`, with a memory file system at /tmp where asked for; what it prints goes to the file `log`, through a pipe, as a container engine does it. */
  static async start(id: string, args: readonly string[], { tmp = false }: { readonly tmp?: boolean } = {}): Promise<RuncContainer> {
    const container = new RuncContainer(id);
    const at = (name: string): string => join(container.directory, name);
    for (const name of ['upper', 'work', 'rootfs']) mkdirSync(at(name), { recursive: true });
    await exec('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=/,upperdir=${at('upper')},workdir=${at('work')}`, at('rootfs')]);
    await exec('runc', ['spec', '--bundle', container.directory]);
    const spec = JSON.parse(readFileSync(at('config.json'), 'utf8')) as { process: Record<string, unknown>; root: Record<string, unknown>; linux: Record<string, unknown>; mounts: unknown[] };
    Object.assign(spec.process, { terminal: false, args });
    Object.assign(spec.root, { readonly: false });
    Object.assign(spec.linux, { cgroupsPath: `/${id}` });
    if (tmp) spec.mounts.push({ destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev'] });
    writeFileSync(at('config.json'), JSON.stringify(spec));
    await container.#piped(['run', '--detach', '--bundle', container.directory, '--pid-file', at('pid'), id]);
    return container;
  }

  async checkpoint(imageDir: string, workDir: string, more: readonly string[] = []): Promise<void> {
    await exec('runc', ['--log', join(workDir, 'runc.log'), 'checkpoint', '--manage-cgroups-mode', 'ignore', '--image-path', imageDir, '--work-path', workDir, ...more, this.id]);
  }

  async restore(imageDir: string, workDir: string): Promise<void> {
    await this.#piped(['restore', '--detach', '--manage-cgroups-mode', 'ignore', '--image-path', imageDir, '--work-path', workDir, '--bundle', this.directory, '--pid-file', join(this.directory, 'restored-pid'), this.id]);
  }

  async kill(): Promise<void> {
    await exec('runc', ['delete', '--force', this.id]).catch(() => {});
  }

  /** The state file of the v1 freezer. */
  get freezer(): string {
    return `/sys/fs/cgroup/freezer/${this.id}/freezer.state`;
  }

  async freeze(): Promise<void> {
    writeFileSync(this.freezer, 'FROZEN');
    while (readFileSync(this.freezer, 'utf8').trim() !== 'FROZEN') await delay(1);
  }

  thaw(): void {
    writeFileSync(this.freezer, 'THAWED');
  }

  lines(): string[] {
    return existsSync(this.log) ? readFileSync(this.log, 'utf8').split('\n').filter((line) => line !== '') : [];
  }

  /** The last line that was printed, once one was printed after now. */
  async nextLine(): Promise<string> {
    const before = this.lines().length;
    for (let i = 0; i < 1000; i++) {
      const lines = this.lines();
      if (lines.length > before) return lines.at(-1) ?? '';
      await delay(10);
    }
    throw new Error(`container ${this.id} prints nothing: ${this.lines().slice(-5).join('\n')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await exec('umount', [join(this.directory, 'rootfs')]).catch(() => {});
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A real pipe, made by a shell: what Node.js calls one is a socket pair, and criu cannot dump half of that. */
  async #piped(args: readonly string[]): Promise<void> {
    const status = join(this.directory, 'status');
    rmSync(status, { force: true });
    const script = '( runc "$@"; echo $? > "$STATUS.partial"; mv "$STATUS.partial" "$STATUS" ) </dev/null 2>&1 | cat >> "$LOG"';
    spawn('sh', ['-c', script, 'sh', ...args], { stdio: 'ignore', env: { ...process.env, STATUS: status, LOG: this.log } }).unref();
    for (let i = 0; i < 1000 && !existsSync(status); i++) await delay(10);
    const code = existsSync(status) ? readFileSync(status, 'utf8').trim() : 'a timeout';
    if (code !== '0') throw new Error(`runc ${args[0] ?? ''} ended with ${code}: ${this.lines().slice(-5).join('\n')}`);
  }
}
