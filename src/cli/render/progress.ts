/** Progress of an operation: a bar on a terminal, a line every few seconds elsewhere, JSON lines with --json. */
import { formatBytes, formatDuration } from '../../core/units.ts';
import type { Progress } from '../../rpc/api.ts';
import type { Io } from '../io.ts';
import { jsonLine } from './json.ts';
import { printable } from './text.ts';

export interface ProgressView {
  update(progress: Progress): void;
  /** Removes the bar, so that whatever comes next begins on a clean line. */
  end(): void;
}

/** A person sees no more, and a slow terminal should not slow anything down. */
const FRAME_MS = 100;
/** In a log a line now and then is enough to see that it goes on. */
const LINE_MS = 5_000;
const BAR_CELLS = 24;

/** `subject` is what the operation works on. */
export function progressView(io: Io, subject: string, json: boolean): ProgressView {
  if (json) return { update: (progress) => io.out(jsonLine({ type: 'progress', ...progress })), end: () => undefined };
  return io.terminal ? bar(io, subject) : lines(io, subject);
}

function bar(io: Io, subject: string): ProgressView {
  let drawn = Number.NEGATIVE_INFINITY;
  let step = -1;
  return {
    update: (progress) => {
      const now = io.clock.monotonic();
      if (now - drawn < FRAME_MS && progress.stepNumber === step) return;
      [drawn, step] = [now, progress.stepNumber];
      io.raw(`\r\u001b[2K${barLine(progress, subject, io.columns() - 1)}`);
    },
    end: () => {
      if (drawn !== Number.NEGATIVE_INFINITY) io.raw('\r\u001b[2K');
      drawn = Number.NEGATIVE_INFINITY;
    },
  };
}

function lines(io: Io, subject: string): ProgressView {
  let written = io.clock.monotonic();
  return {
    update: (progress) => {
      const now = io.clock.monotonic();
      if (now - written < LINE_MS) return;
      written = now;
      io.talk(`${progress.kind} ${printable(subject)}: ${numbers(progress).join(', ')}`);
    },
    end: () => undefined,
  };
}

export function barLine(progress: Progress, subject: string, width: number): string {
  const share = progress.bytesTotal > 0 ? Math.min(1, progress.bytesDone / progress.bytesTotal) : undefined;
  const filled = Math.round((share ?? 0) * BAR_CELLS);
  const cells = share === undefined ? '' : `${'█'.repeat(filled)}${'░'.repeat(BAR_CELLS - filled)} ${String(Math.floor(share * 100)).padStart(3)} %`;
  const text = [`${progress.kind} ${printable(subject)}`, cells, ...numbers(progress)].filter((part) => part !== '').join('  ');
  return Array.from(text).slice(0, Math.max(0, width)).join('');
}

function numbers(progress: Progress): string[] {
  const { stepNumber, stepCount, step, bytesDone, bytesTotal, bytesPerSecond, frozen, elapsedMs } = progress;
  const left = bytesTotal > bytesDone && bytesPerSecond > 0 ? `${formatDuration(Math.ceil((bytesTotal - bytesDone) / bytesPerSecond) * 1000)} left` : '';
  return [
    stepNumber === 0 ? printable(step) : `step ${stepNumber}/${stepCount} ${printable(step)}`,
    bytesDone === 0 ? '' : bytesTotal === 0 ? formatBytes(bytesDone) : `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`,
    bytesPerSecond === 0 ? '' : `${formatBytes(bytesPerSecond)}/s`,
    left,
    formatDuration(elapsedMs),
    frozen ? 'frozen' : '',
  ].filter((part) => part !== '');
}
