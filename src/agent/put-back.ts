/** What was put back into a restored container, or could not be. */
import { StasisError } from '../core/errors.ts';

/** Throws RESTORE_FAILED with what the kernel refused. */
export function requireBack(failed: readonly string[]): void {
  if (failed.length === 0) return;
  throw new StasisError('RESTORE_FAILED', `the container would not be what it was: ${failed.slice(0, 5).join('; ')}`, {
    hint: 'what it was when it was saved cannot be set on this node', details: { failed: failed.join('\n').slice(0, 4000) },
  });
}
