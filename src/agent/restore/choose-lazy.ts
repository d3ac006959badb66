/** Whether a restore is lazy: what was asked for, what this node can, and where it pays. */
import { StasisError } from '../../core/errors.ts';
import { MiB, formatBytes, formatDuration } from '../../core/units.ts';
import type { CriuImageSummary } from '../../image/types.ts';
import type { CheckpointReader } from '../../repository/types.ts';
import type { LazyMode } from '../../rpc/api.ts';
import { whyNeverLazy } from '../../runtime/index.ts';
import type { OciSpec, RuntimeRoot } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';

const PAGE = 4096;
/** What a lazy restore takes before the program runs. All memory that can be had in this time had better be there. */
const LEAST_MS = 500;
/** Of all pages. What is eager has to be brought first anyway. */
const LEAST_SHARE = 0.5;
/** Opened by us and taken by criu, however fast the store is (docs/BENCHMARKS.md). */
const RESTORE_BYTES_PER_MS = 1_000_000;
/** What is read to measure a store of which nothing is known, and how long at most. */
const SAMPLE_BYTES = 4 * MiB;
const SAMPLE_MS = 1000;

export interface LazyChoice {
  readonly lazy: boolean;
  /** For the user; undefined when it is as they asked. */
  readonly reason: string | undefined;
}

export interface LazyQuestion {
  readonly mode: LazyMode;
  readonly at: RuntimeRoot;
  /** Of the container that was saved. */
  readonly spec: OciSpec;
  readonly images: CriuImageSummary & { readonly prefix: string };
  readonly reader: CheckpointReader;
}

/** Throws RESTORE_INCOMPATIBLE when laziness was asked for and cannot be had. */
export async function chooseLazy(agent: AgentContext, question: LazyQuestion, signal: AbortSignal): Promise<LazyChoice> {
  const { mode, at, spec, images } = question;
  if (mode === 'never') return { lazy: false, reason: undefined };
  const problem = obstacle(agent, at);
  // A property of the container: it is restored as it can be, whatever was asked for.
  const never = whyNeverLazy(spec);
  if (mode === 'auto') {
    const reason = problem ?? never;
    return reason === undefined ? whatPays(agent, question, signal) : { lazy: false, reason };
  }
  if (problem !== undefined) throw new StasisError('RESTORE_INCOMPATIBLE', `this container cannot be restored lazily: ${problem}`, { hint: 'leave --lazy out, or write --lazy-auto to be lazy only where it can be' });
  if (never !== undefined) return { lazy: false, reason: never };
  return { lazy: images.lazyPages > 0, reason: undefined };
}

function obstacle({ toolchain }: AgentContext, at: RuntimeRoot): string | undefined {
  if (at.runtime !== 'runc') return `${at.runtime} has no lazy restore, runc has`;
  if (toolchain.features['uffd'] === false || toolchain.features['uffd-noncoop'] === false) return 'the kernel has no userfaultfd for it (criu check --feature uffd-noncoop)';
  return undefined;
}

async function whatPays(agent: AgentContext, { images, reader }: LazyQuestion, signal: AbortSignal): Promise<LazyChoice> {
  const share = images.lazyPages / Math.max(1, images.pages);
  if (share < LEAST_SHARE) return { lazy: false, reason: `only ${Math.floor(share * 100)} % of its memory can come later` };
  const bytes = images.lazyPages * PAGE;
  const { raw, stored } = reader.summary.bytes;
  const wanted = (bytes / Math.max(1, raw)) * stored;
  if (agent.storeSpeed.bytesPerSecond === undefined) await readSample(agent, reader, images.prefix, signal);
  const speed = agent.storeSpeed.bytesPerSecond;
  const readMs = speed === undefined ? 0 : speed === 0 ? Number.POSITIVE_INFINITY : (wanted * 1000) / speed;
  const lazy = readMs + bytes / RESTORE_BYTES_PER_MS > LEAST_MS;
  const how = speed === undefined ? 'nearly nothing has to be read' : `the store gives ${speed === 0 ? `less than ${formatBytes(SAMPLE_BYTES)}` : formatBytes(speed)} a second`;
  const time = Number.isFinite(readMs) ? ` in about ${formatDuration(readMs + bytes / RESTORE_BYTES_PER_MS)}` : '';
  return { lazy, reason: `${formatBytes(bytes)} of its memory can come later, and ${how}: ${lazy ? `all would be there${time === '' ? ' much later' : time}` : `all is there${time}`}` };
}

/** Nothing was read from the store yet, or not for long: the beginning of the memory tells how fast it is. */
async function readSample({ clock }: AgentContext, reader: CheckpointReader, prefix: string, signal: AbortSignal): Promise<void> {
  const [blob, length] = [...reader.blobs].filter(([name]) => name.startsWith(prefix) && /\/?pages-\d+\.img$/.test(name)).sort(([, a], [, b]) => b - a)[0] ?? ['', 0];
  if (length === 0) return;
  const buffer = new SharedArrayBuffer(Math.min(SAMPLE_BYTES, length));
  const enough = new AbortController();
  const timer = clock.sleep(SAMPLE_MS, { signal: enough.signal }).then(() => enough.abort(), () => undefined);
  try {
    await reader.extract([{ blob, offset: 0, length: buffer.byteLength, sink: ({ offset }) => ({ kind: 'memory', buffer, offset }) }], { signal: AbortSignal.any([signal, enough.signal]) });
  } catch {
    // What is slow was measured so; what is wrong is found by whoever needs it.
    signal.throwIfAborted();
  } finally {
    enough.abort();
    await timer;
  }
}
