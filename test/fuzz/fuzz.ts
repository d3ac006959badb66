/**
 * Every parser gets good inputs with some bytes changed, for STASIS_FUZZ_MS milliseconds each. What comes out is a value, or
 * a StasisError of the codes that the parser may throw: no TypeError, no RangeError, no wait without end, no memory without bounds.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { it } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import { generator, mutated, type Random } from '../support/mutations.ts';

export interface Parser {
  readonly good: readonly Buffer[] | (() => Promise<readonly Buffer[]>);
  readonly parse: (bytes: Buffer, random: Random) => unknown;
  /** Codes of refusals; none: what is bad counts as absent. */
  readonly codes: readonly string[];
}

/** One input never takes longer: what is slow for 2 KB is endless for 64 MiB. */
const SLOWEST_MS = 3000;
/** Beyond what the good inputs take: nothing that is declared is believed. */
const MOST_BYTES = 512 * 1024 ** 2;

const budgetMs = (): number => Number(process.env['STASIS_FUZZ_MS'] || 400);

export function fuzz(name: string, { good, parse, codes }: Parser): void {
  void it(`${name}: a value, or ${codes.length === 0 ? 'nothing' : codes.join(', ')}`, async () => {
    const seed = Number(process.env['STASIS_TEST_SEED'] || randomBytes(4).readUInt32LE());
    const random = generator(seed);
    const inputs = typeof good === 'function' ? await good() : good;
    for (const input of inputs) await parse(Buffer.from(input), random);
    const [started, memory] = [performance.now(), process.memoryUsage.rss()];
    let [count, refused] = [0, 0];
    for (; performance.now() - started < budgetMs(); count += 1) {
      const bytes = mutated(inputs, random);
      const what = (): string => `seed ${seed}, input ${count}: ${bytes.subarray(0, 4096).toString('base64')}`;
      const began = performance.now();
      try {
        await parse(bytes, random);
      } catch (error) {
        refused += 1;
        assert.ok(isStasisError(error) && codes.includes(error.code), `${what()} led to ${(error as Error).stack ?? String(error)}`);
      }
      assert.ok(performance.now() - began < SLOWEST_MS, `${what()} took ${Math.round(performance.now() - began)} ms`);
    }
    assert.ok(process.memoryUsage.rss() - memory < MOST_BYTES, `seed ${seed}: the process grew by ${process.memoryUsage.rss() - memory} bytes`);
    assert.ok(codes.length === 0 || refused > 0, 'some inputs were refused');
    console.log(`${name}: ${count} inputs, ${refused} refused, seed ${seed}`);
  });
}
