/**
 * What the savers remember of containers' root file systems, so that the next checkpoint need not read the files that
 * are as they were (docs/FORMAT-TREE.md). One file per container: the checkpoint that it goes with, a checksum, the memory.
 */
import { createHash } from 'node:crypto';
import { readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import { makePrivateDirectory } from '../host/files.ts';
import type { Container } from '../runtime/types.ts';
import { containerKey } from './lineages.ts';

/** About 90 bytes a file of a container; those of containers that are gone leave, oldest first. */
const MOST_FILES = 256;
const SUM_BYTES = 32;

export class TreeMemories {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    makePrivateDirectory(directory);
  }

  /** Undefined when there is none that goes with this checkpoint, or it cannot be read: then all files are. */
  async load(container: Container, prefix: string, checkpoint: CheckpointId | undefined): Promise<Uint8Array | undefined> {
    if (checkpoint === undefined) return undefined;
    let bytes: Buffer;
    try {
      bytes = await readFile(this.#path(container, prefix));
    } catch (error) {
      if (errnoCode(error) === undefined) throw error;
      return undefined;
    }
    const sum = bytes.subarray(0, SUM_BYTES);
    const rest = bytes.subarray(SUM_BYTES);
    const name = Buffer.from(checkpoint, 'latin1');
    const whole = checksum(rest).equals(sum) && rest.subarray(0, name.length).equals(name);
    return whole ? rest.subarray(name.length) : undefined;
  }

  /** Replaces what was there. */
  async store(container: Container, prefix: string, checkpoint: CheckpointId, memory: Uint8Array): Promise<void> {
    const rest = Buffer.concat([Buffer.from(checkpoint, 'latin1'), memory]);
    const path = this.#path(container, prefix);
    await writeFile(`${path}.partial`, Buffer.concat([checksum(rest), rest]), { mode: 0o600 });
    await rename(`${path}.partial`, path);
    await this.#sweep();
  }

  async #sweep(): Promise<void> {
    const names = await readdir(this.#directory);
    if (names.length <= MOST_FILES) return;
    const ages = await Promise.all(names.map(async (name) => ({ name, changed: (await stat(join(this.#directory, name))).mtimeMs })));
    for (const { name } of ages.sort((a, b) => b.changed - a.changed).slice(MOST_FILES)) await rm(join(this.#directory, name), { force: true });
  }

  #path(container: Container, prefix: string): string {
    return join(this.#directory, createHash('sha256').update(`${containerKey(container)}\0${prefix}`).digest('hex'));
  }
}

function checksum(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
