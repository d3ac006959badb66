/** Flushes directories. Puts that finish together share one flush: it serves everything renamed before it began. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

export class DirectorySync {
  readonly #waiting = new Map<string, Promise<void>>();
  readonly #running = new Map<string, Promise<void>>();

  /** Resolves when whatever was renamed in `folder` before this call is durable. */
  sync(folder: string): Promise<void> {
    const joined = this.#waiting.get(folder);
    if (joined !== undefined) return joined;
    const before = this.#running.get(folder) ?? Promise.resolve();
    const mine = before
      .catch(() => undefined)
      .then(async () => {
        this.#waiting.delete(folder);
        this.#running.set(folder, mine);
        await flush(folder);
      });
    this.#waiting.set(folder, mine);
    return mine;
  }
}

async function flush(folder: string): Promise<void> {
  const directory = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
