/** The masks of tasks that waited in a call with a mask of its own when they were read. */
import { valueOf } from './compare.ts';
import { FOR_A_CALL, type FidelityRecord } from './types.ts';

const ROW = 'signals-blocked';

/**
 * `read`: what the images of criu say of a thread, by its id inside. Where they do not say it the row is passed over.
 */
export function blockedFromImages(record: FidelityRecord, read: (tid: number) => string | undefined): FidelityRecord {
  const row = record.attributes[ROW];
  if (row === undefined) return record;
  const values = [...record.tasks, ...record.threads].map((subject): [string, string] => {
    const value = valueOf(record, ROW, subject) ?? '';
    return [subject, value === FOR_A_CALL ? read(Number(subject.split('/').at(-1))) ?? value : value];
  });
  const others = Object.fromEntries(values.filter(([, value]) => value !== row.usual));
  return { ...record, attributes: { ...record.attributes, [ROW]: { usual: row.usual, others } } };
}
