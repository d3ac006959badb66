/**
 * Puts a seccomp filter before those of the images: CRIU installs a thread's filters from the one that its core names along "prev",
 * the oldest first. The kernel asks all of them, and what one forbids is forbidden; where several do, the newest says how,
 * so that a program sees the errors that it saw before.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../../core/errors.ts';
import { frame, imageHeader, singleEntry } from '../framing.ts';
import type { ThreadPrivileges } from '../image-threads.ts';
import { WireReader, WireWriter } from '../wire.ts';
import { edited, numberIn } from './edit.ts';

const FILTERS = 1;
const [PROGRAM, NEWER, FLAGS] = [1, 2, 3];
/** SECCOMP_FILTER_FLAG_LOG. The other flag that CRIU writes would install a filter for all threads at once, or for none: CRIU does not notice when the kernel refuses that. */
const LOG = 2;
const THREAD = 5;
const [MODE, SECCOMP_FILTER] = [11, 12];
const FILTER_MODE = 2;

/** `threads`: all that will run, each with the filter that it has. */
export function putFilterFirst(imageDir: string, program: Uint8Array, threads: readonly Pick<ThreadPrivileges, 'image' | 'filter'>[]): void {
  const path = join(imageDir, 'seccomp.img');
  const filters: Uint8Array[] = [];
  const reader = new WireReader(singleEntry(readFileSync(path), 'seccomp', 'seccomp.img'), 'seccomp.img');
  while (reader.next()) filters.push(withoutSync(reader.bytes()));
  const first = new Map<number, number>();
  for (const { image, filter } of threads) {
    if (filter === undefined || filter >= filters.length) throw new StasisError('OBJECT_CORRUPT', `${image} has no seccomp filter`);
    if (!first.has(filter)) first.set(filter, filters.push(new WireWriter().bytes(PROGRAM, program).uint(NEWER, filter).result()) - 1);
    point(join(imageDir, image), image, first.get(filter) ?? filter);
  }
  const message = new WireWriter();
  for (const filter of filters) message.bytes(FILTERS, filter);
  writeFileSync(path, Buffer.concat([imageHeader('seccomp'), frame(message.result())]));
}

function withoutSync(filter: Uint8Array): Uint8Array {
  const flags = numberIn(filter, 'seccomp.img', FLAGS);
  return flags === undefined ? filter : edited(filter, 'seccomp.img', FLAGS, () => flags & LOG);
}

function point(path: string, image: string, filter: number): void {
  const message = edited(singleEntry(readFileSync(path), 'core', image), image, THREAD, (thread) => {
    const without = edited(edited(thread, image, MODE, () => undefined), image, SECCOMP_FILTER, () => undefined);
    return Buffer.concat([without, new WireWriter().uint(MODE, FILTER_MODE).uint(SECCOMP_FILTER, filter).result()]);
  });
  writeFileSync(path, Buffer.concat([imageHeader('core'), frame(message)]));
}
