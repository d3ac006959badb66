/**
 * The agent's UNIX socket. It is bound inside a private directory (0700), gets mode 0600 and then its name by rename(2):
 * at no moment can anybody else connect, and the socket of a dead agent is replaced in one step.
 * A lock beside it, which the kernel drops when its holder dies, tells a dead agent from a living one.
 */
import { chmod, lstat, mkdir, mkdtemp, open, rename, rm, rmdir, unlink } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { errnoCode, StasisError } from '../core/errors.ts';
import { tryLock } from '../host/libc.ts';

export interface ClaimedSocket extends AsyncDisposable {
  /** Bind here … */
  readonly bindPath: string;
  /** … and then show it to the world under its name. */
  publish(): Promise<void>;
}

/** sun_path of unix(7) has 108 bytes with the final NUL; the private directory needs some of them. */
const MAX_PATH = 107 - '/.abcdef/s'.length;

/** Throws AGENT_ALREADY_RUNNING when an agent lives behind the socket, CONFIG_INVALID when the path cannot be one. */
export async function claimSocket(path: string): Promise<ClaimedSocket> {
  if (Buffer.byteLength(path) > MAX_PATH) {
    throw new StasisError('CONFIG_INVALID', `the socket path ${path} is ${Buffer.byteLength(path)} bytes long`, { hint: `a UNIX socket path of the agent has at most ${MAX_PATH} bytes` });
  }
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const lock = await takeLock(path);
  try {
    if (await isAlive(path)) throw alreadyRunning(path);
    const room = await mkdtemp(`${directory}/.`);
    return claimed(path, room, lock);
  } catch (error) {
    await lock.close();
    throw error;
  }
}

function claimed(path: string, room: string, lock: FileHandle): ClaimedSocket {
  const bindPath = join(room, 's');
  let inode: number | undefined;
  return {
    bindPath,
    publish: async () => {
      await chmod(bindPath, 0o600);
      inode = (await lstat(bindPath)).ino;
      await rename(bindPath, path);
      await rmdir(room);
    },
    [Symbol.asyncDispose]: async () => {
      await rm(room, { recursive: true, force: true });
      // The lock file stays: removing it would let two agents lock two files of one name.
      const there = await lstat(path).catch(() => undefined);
      if (there !== undefined && there.ino === inode) await unlink(path);
      await lock.close();
    },
  };
}

async function takeLock(path: string): Promise<FileHandle> {
  const file = await open(`${path}.lock`, 'a', 0o600);
  if (tryLock(file.fd)) return file;
  await file.close();
  throw alreadyRunning(path);
}

function alreadyRunning(path: string): StasisError {
  return new StasisError('AGENT_ALREADY_RUNNING', `another agent serves ${path}`, { hint: 'stop it first, or give this one another --socket, --state-directory and --run-directory' });
}

/** Whether somebody accepts connections: also an agent whose lock file was deleted. */
async function isAlive(path: string): Promise<boolean> {
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return false;
  if (!there.isSocket()) throw new StasisError('CONFIG_INVALID', `${path} exists and is not a socket`, { hint: 'move it away, or choose another --socket' });
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      const code = errnoCode(error);
      if (code === 'ECONNREFUSED' || code === 'ENOENT') resolve(false);
      // EAGAIN: its queue is full, so it lives.
      else if (code === 'EAGAIN') resolve(true);
      else reject(error);
    });
  });
}
