/**
 * What this node knows of the keys of lineages, whatever the store says later. A key object is signed, but a store can put an
 * older one back: then recipients that were removed would be there again, and an ended lineage would go on.
 * One line for each change, appended: "<lineage> <epoch>" or "<lineage> <epoch> ended". Keys that were never wrapped anew
 * (epoch 1) have no line: nothing is older than they are.
 */
import { closeSync, fdatasyncSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoCode, StasisError } from '../core/errors.ts';
import type { LineageId } from '../core/ids.ts';

export interface KnownKey {
  readonly epoch: number;
  readonly ended: boolean;
}

const FIRST: KnownKey = { epoch: 1, ended: false };
const LINE = /^([0-9a-f]{32}) ([1-9]\d{0,9})( ended)?$/;

export class KeyMemory {
  readonly #known = new Map<string, KnownKey>();
  readonly #path: string | undefined;
  readonly #onUnwritten: (error: Error) => void;
  /** Lines that could not be written yet. */
  #unwritten = '';

  /** Without a path it lasts as long as the process. What cannot be written is told, and tried again with the next change. */
  constructor(path?: string, onUnwritten: (error: Error) => void = () => undefined) {
    this.#path = path;
    this.#onUnwritten = onUnwritten;
    for (const line of path === undefined ? [] : readLines(path)) {
      // A line that was torn by a crash was never acted on.
      const [, lineage, epoch, ended] = LINE.exec(line) ?? [];
      if (lineage !== undefined) this.#keep(lineage, { epoch: Number(epoch), ended: ended !== undefined });
    }
  }

  /** Of a lineage that was never heard of: any key can be its newest. */
  of(lineage: LineageId): KnownKey {
    return this.#known.get(lineage) ?? FIRST;
  }

  /** Throws OBJECT_CORRUPT when `key`, which the store gave after `known` was known, is older. */
  requireNotOlder(object: string, key: KnownKey, known: KnownKey): void {
    if (key.epoch >= known.epoch && (key.ended || !known.ended)) return;
    const what = known.ended && !key.ended ? 'that goes on, but this node knows that the lineage has ended' : `of epoch ${key.epoch}, but this node knows one`;
    throw new StasisError('OBJECT_CORRUPT', `${object} is a key ${what} (epoch ${known.epoch}): the store gives an older copy`, {
      hint: `somebody put the older object back: bring back the newer one. If the whole repository was brought back from a backup, stop the agent, take the line of the lineage out of ${this.#path ?? 'its memory'}, and remove its recipients again (docs/KEYS.md)`,
      details: { object, epoch: key.epoch, known: known.epoch },
    });
  }

  /** Durable when it returns, unless the state directory cannot be written. */
  learn(lineage: LineageId, key: KnownKey): void {
    if (!this.#keep(lineage, key) || this.#path === undefined) return;
    const known = this.of(lineage);
    this.#unwritten += `${lineage} ${known.epoch}${known.ended ? ' ended' : ''}\n`;
    try {
      append(this.#path, this.#unwritten);
      this.#unwritten = '';
    } catch (error) {
      this.#onUnwritten(error as Error);
    }
  }

  /** An end is for ever, whatever a later key says. */
  #keep(lineage: string, { epoch, ended }: KnownKey): boolean {
    const known = this.#known.get(lineage) ?? FIRST;
    if (epoch <= known.epoch && (known.ended || !ended)) return false;
    this.#known.set(lineage, { epoch: Math.max(epoch, known.epoch), ended: ended || known.ended });
    return true;
  }
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return [];
    throw new StasisError('CONFIG_INVALID', `${path} cannot be read: ${(error as Error).message}`, { cause: error, hint: 'it tells older keys of lineages from newer ones; make it readable for the agent' });
  }
}

function append(path: string, lines: string): void {
  const file = openSync(path, 'a', 0o600);
  try {
    // The line before may be torn.
    writeSync(file, `\n${lines}`);
    fdatasyncSync(file);
  } finally {
    closeSync(file);
  }
  const directory = openSync(dirname(path), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
