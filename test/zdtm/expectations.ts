/** Programs that do not pass, what they come to instead, and why. Everything else must pass. */
import type { RuntimeName } from '../../src/runtime/index.ts';
import type { VerdictName } from './suite.ts';

export interface Expectation {
  readonly names: readonly string[];
  readonly verdict: Exclude<VerdictName, 'pass' | 'skip'>;
  /** Only with this runtime, or this way of restoring; undefined: with all. */
  readonly runtime?: RuntimeName;
  readonly memory?: 'eager' | 'lazy';
  readonly reason: string;
}

export const expectations: readonly Expectation[] = [];
