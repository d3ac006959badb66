/** What containers touched first while they were filled, by lineage: a hint for the next lazy restore, not more. */
import { statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import type { LineageId } from '../core/ids.ts';
import { listDirectory, makePrivateDirectory, readJsonFile, removeTree, replaceFile } from '../host/files.ts';
import { WorkingSet } from '../image/lazy/index.ts';

/** A file has up to 100 KB. The ones that were written longest ago go first. */
const MAX_FILES = 1000;

export class WorkingSets {
  readonly #directory: string;
  readonly #clock: Clock;

  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
    makePrivateDirectory(directory);
  }

  /** Empty when nothing is known. */
  load(lineage: LineageId): WorkingSet {
    return WorkingSet.parse(readJsonFile(this.#path(lineage)));
  }

  save(lineage: LineageId, set: WorkingSet): void {
    const path = this.#path(lineage);
    replaceFile(path, set.toJson());
    const now = this.#clock.now() / 1000;
    utimesSync(path, now, now);
    const names = listDirectory(this.#directory);
    if (names.length <= MAX_FILES) return;
    const byAge = names.map((name) => ({ name, at: statSync(join(this.#directory, name)).mtimeMs })).sort((a, b) => a.at - b.at);
    for (const { name } of byAge.slice(0, names.length - MAX_FILES)) removeTree(join(this.#directory, name));
  }

  #path(lineage: LineageId): string {
    return join(this.#directory, `${lineage}.json`);
  }
}
