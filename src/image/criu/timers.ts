/**
 * Timers of timerfd_create(2) in files.img (images/timerfd.proto). CRIU writes what the kernel tells of them, and arms
 * them with that; of some the kernel tells something else than what arms them.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { edited } from './admission/edit.ts';
import { listImages, readImage } from './directory.ts';
import { frame, imageEntries, imageHeader } from './framing.ts';
import { WireReader, WireWriter } from './wire.ts';

const NAME = 'files.img';
/** In a file_entry. */
const [TYPE, TIMER] = [1, 12];
const TIMERFD = 17;
/** In a timerfd_entry: the only message in it, and its numbers. */
const FOWN = 3;
const [CLOCK, TICKS, FLAGS, SECONDS, NANOSECONDS, INTERVAL_SECONDS, INTERVAL_NANOSECONDS] = [4, 5, 6, 7, 8, 9, 10];
const CLOCK_REALTIME = 0;
/** TFD_TIMER_ABSTIME of sys/timerfd.h. */
const ABSOLUTE = 1;

/** A timer as it has to be written for CRIU to arm it as it was; undefined when it is so already. */
function mended(timer: ReadonlyMap<number, number>): ReadonlyMap<number, number> | undefined {
  const of = (field: number): number => timer.get(field) ?? 0;
  const armed = of(SECONDS) !== 0 || of(NANOSECONDS) !== 0;
  const interval = of(INTERVAL_SECONDS) !== 0 || of(INTERVAL_NANOSECONDS) !== 0;
  const relative = of(FLAGS) - (of(FLAGS) & ABSOLUTE);
  // It has fired and nobody has read that yet: the kernel goes on with it when it is read, and tells no time before.
  if (!armed && interval && of(TICKS) > 0) return new Map(timer).set(FLAGS, relative)
    .set(SECONDS, of(INTERVAL_SECONDS)).set(NANOSECONDS, of(INTERVAL_NANOSECONDS));
  if (relative === of(FLAGS)) return undefined;
  // CRIU adds the whole seconds of now to the time that is left: that would be early, and one that is not armed fires.
  if (armed && of(CLOCK) === CLOCK_REALTIME) return new Map(timer).set(SECONDS, of(SECONDS) + 1);
  return new Map(timer).set(FLAGS, relative);
}

function mendTimer(bytes: Uint8Array): Uint8Array {
  const numbers = new Map<number, number>();
  let owner: Uint8Array = new Uint8Array(0);
  for (const reader = new WireReader(bytes, NAME); reader.next();) {
    if (reader.field === FOWN) owner = reader.bytes();
    else numbers.set(reader.field, reader.uint());
  }
  const now = mended(numbers);
  if (now === undefined) return bytes;
  const writer = new WireWriter().bytes(FOWN, owner);
  for (const [field, value] of now) writer.uint(field, value);
  return writer.result();
}

function isTimer(entry: Uint8Array): boolean {
  const reader = new WireReader(entry, NAME);
  return reader.next() && reader.field === TYPE && reader.uint() === TIMERFD;
}

/** Before a restore: those of its images that would not be armed as they were. */
export async function mendTimers(imageDir: string): Promise<void> {
  const sizes = new Map((await listImages(imageDir)).map(({ name, size }) => [name, size]));
  const bytes = await readImage(imageDir, sizes, NAME);
  if (bytes === undefined) return;
  const entries = [...imageEntries(bytes, 'files', NAME)];
  if (!entries.some(isTimer)) return;
  const frames = entries.map((entry) => frame(isTimer(entry) ? edited(entry, NAME, TIMER, mendTimer) : entry));
  writeFileSync(join(imageDir, NAME), Buffer.concat([imageHeader('files'), ...frames]));
}
