/** Before the freeze: is this checkpoint rehearsed, and if not, why? */
import { freemem } from 'node:os';
import { StasisError } from '../../core/errors.ts';
import { MiB, formatBytes, formatDuration } from '../../core/units.ts';
import { whyNeverLazy, whyNoScratch } from '../../runtime/index.ts';
import type { Container, Verdict } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';
import type { LineageId } from '../../core/ids.ts';
import { shapeOf } from '../rehearsals.ts';
import type { CheckpointRequest } from './checkpoint.ts';

export type RehearsalMode = 'auto' | 'always' | 'never';

export interface RehearsalPlan {
  /** Why there is none; undefined: there is. */
  readonly skipped: string | undefined;
  /** It was to be, and cannot be: the next stop is to be rehearsed if that one can. */
  readonly impossible: boolean;
  /** A rehearsal that turns out to be impossible fails the checkpoint. */
  readonly required: boolean;
  /** Memory that can be left out is: otherwise all of it is rebuilt. */
  readonly lazy: boolean;
  readonly shape: string;
}

export interface PlanRequest {
  readonly container: Container;
  readonly verdict: Verdict;
  readonly request: CheckpointRequest;
  readonly lineage: LineageId;
  readonly stop: boolean;
  readonly budgetMs: number;
  readonly memoryPath: 'directory' | 'page-server';
  /** Memory is read in rounds before the freeze. */
  readonly rounds: boolean;
}

/** Left to the node when pages that cannot be left out are there twice for a moment. */
const MEMORY_MARGIN_BYTES = 256 * MiB;

/** At which criu fills memory on a busy node, with room to spare: one that turns out too slow would refuse the stop. */
const EAGER_BYTES_PER_MS = 250_000;

/** Throws REHEARSAL_FAILED when one was asked for and is not possible: nothing was frozen. */
export function planRehearsal(agent: AgentContext, plan: PlanRequest): RehearsalPlan {
  const mode = plan.request.rehearsal ?? agent.settings.rehearsal;
  const shape = shapeOf(agent, plan);
  const lazy = whyNeverLazy(plan.container.spec) === undefined;
  const skip = (reason: string, impossible = false): RehearsalPlan => (
    { skipped: reason, impossible, required: false, lazy, shape }
  );
  if (mode === 'never') return skip('not asked for');
  if (mode === 'auto' && !plan.stop) return skip('the container is left running');
  if (mode === 'auto' && agent.rehearsals.knows(plan.lineage, shape)) return skip('nothing that matters has changed since the last one');
  const impossible = whyImpossible(agent, plan, lazy);
  if (impossible === undefined) return {
    skipped: undefined, impossible: false, required: mode === 'always', lazy, shape,
  };
  if (mode === 'auto') return skip(impossible, true);
  throw new StasisError('REHEARSAL_FAILED', `the checkpoint of container ${plan.container.id} cannot be rehearsed: ${impossible}`, { hint: 'nothing was touched; let the rehearsal be auto or never' });
}

function whyImpossible(agent: AgentContext, { container, verdict, budgetMs, memoryPath, rounds }: PlanRequest, lazy: boolean): string | undefined {
  const { bytes, shared } = verdict.memory;
  const expectedMs = agent.rehearsals.expectedMs + (lazy ? 0 : bytes / EAGER_BYTES_PER_MS);
  if (budgetMs < expectedMs) return `it may need ${formatDuration(expectedMs)}, and the freeze budget is ${formatDuration(budgetMs)}`;
  if (!lazy && (memoryPath === 'page-server' || rounds)) {
    return 'all memory of a container in a user namespace is needed, and it does not stay on the node when it comes '
      + 'over the page server or in rounds before the freeze';
  }
  const free = freemem();
  // What cannot be left out is in the images and in the rebuilt tasks.
  if (lazy && free < shared + MEMORY_MARGIN_BYTES) return `shared memory would be there twice, and the node has ${formatBytes(free)} left`;
  if (!lazy && free < 2 * bytes + MEMORY_MARGIN_BYTES) return `all memory of a container in a user namespace would be there three times, and the node has ${formatBytes(free)} left`;
  return whyNoScratch(container.spec);
}
