/** Whether a restore is lazy: what was asked for, what this node can, and where it pays. */
import { StasisError } from '../../core/errors.ts';
import { MiB } from '../../core/units.ts';
import type { CriuImageSummary } from '../../image/types.ts';
import type { LazyMode } from '../../rpc/api.ts';
import type { RuntimeRoot } from '../../runtime/types.ts';
import type { AgentContext } from '../context.ts';

const PAGE = 4096;
/** Below this an eager restore has brought all pages before a lazy one is under way. */
const LEAST_BYTES = 256 * MiB;
/** Of all pages. What is eager has to be brought first anyway. */
const LEAST_SHARE = 0.5;

/** Throws RESTORE_INCOMPATIBLE when laziness was asked for and cannot be had. */
export function chooseLazy(agent: AgentContext, mode: LazyMode, at: RuntimeRoot, { lazyPages, pages }: CriuImageSummary): boolean {
  if (mode === 'never') return false;
  const problem = obstacle(agent, at);
  if (mode === 'auto') return problem === undefined && lazyPages * PAGE >= LEAST_BYTES && lazyPages >= pages * LEAST_SHARE;
  if (problem !== undefined) throw new StasisError('RESTORE_INCOMPATIBLE', `this container cannot be restored lazily: ${problem}`, { hint: 'leave --lazy out, or write --lazy-auto to be lazy only where it can be' });
  return lazyPages > 0;
}

function obstacle({ toolchain }: AgentContext, at: RuntimeRoot): string | undefined {
  if (at.runtime !== 'runc') return `${at.runtime} has no lazy restore, runc has`;
  if (toolchain.features['uffd'] === false || toolchain.features['uffd-noncoop'] === false) return 'the kernel has no userfaultfd for it (criu check --feature uffd-noncoop)';
  return undefined;
}
