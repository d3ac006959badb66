/** What a command may touch of the outside: two streams, a clock, a terminal. Data goes to stdout, talk to stderr. */
import type { Clock } from '../core/clock.ts';

export interface Io {
  /** Data: whole lines. */
  out(text: string): void;
  /** Talk: whole lines. */
  talk(text: string): void;
  /** Raw talk, for the progress bar. */
  raw(text: string): void;
  /** Whether stderr, on which the progress bar is drawn, is a terminal. */
  readonly terminal: boolean;
  readonly columns: () => number;
  readonly colour: boolean;
  readonly clock: Clock;
  /** Ctrl-C and SIGTERM; returns how to stop listening. */
  onInterrupt(listener: (signal: 'SIGINT' | 'SIGTERM') => void): () => void;
}

export function systemIo(clock: Clock, colour: boolean): Io {
  // Whoever reads our output has enough of it (stasis list | head): end quietly, as a program killed by SIGPIPE does.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(141);
      throw error;
    });
  }
  return {
    out: (text) => void process.stdout.write(`${text}\n`),
    talk: (text) => void process.stderr.write(`${text}\n`),
    raw: (text) => void process.stderr.write(text),
    terminal: process.stderr.isTTY,
    // A terminal that does not know its width says 0.
    columns: () => process.stderr.columns || 80,
    colour: colour && process.stderr.isTTY,
    clock,
    onInterrupt: (listener) => {
      process.on('SIGINT', listener);
      process.on('SIGTERM', listener);
      return () => {
        process.off('SIGINT', listener);
        process.off('SIGTERM', listener);
      };
    },
  };
}
