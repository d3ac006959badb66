/** Small files of the agent's own: written whole or not at all, private. */
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { errnoCode } from '../core/errors.ts';

/** Creates the directory and its parents, mode 0700. */
export function makePrivateDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
}

/** Atomic for other processes, and after the death of this one; not after a power failure. Mode 0600. */
export function replaceFile(path: string, content: string): void {
  const partial = `${path}.partial`;
  try {
    writeFileSync(partial, content, { mode: 0o600 });
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}

/** The parsed file, or undefined when it is absent or not JSON (a file torn by a crash counts as absent). */
export function readJsonFile(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Names in a directory, none when it does not exist. */
export function listDirectory(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return [];
    throw error;
  }
}

export function removeTree(path: string): void {
  rmSync(path, { recursive: true, force: true });
}
