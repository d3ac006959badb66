/** A part of the bench: something that is measured by itself and has its own table and promises. */
import type { Target } from './targets.ts';

export interface Measured {
  readonly table: string;
  /** All figures of all runs, as they go into the JSON. */
  readonly results: unknown;
  readonly targets: readonly Target[];
}

export interface Part {
  /** What --only calls it. */
  readonly name: string;
  measure(runs: number, say: (line: string) => void): Promise<Measured>;
}
