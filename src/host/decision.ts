/**
 * What becomes of a frozen container: the symbolic link `decision` in its guard's directory, made once by whoever comes
 * first.
 */
import { readlinkSync } from 'node:fs';
import { join } from 'node:path';

/** `released` and `commit` are the agent's, `thaw` is the guard's. */
export type Decision = 'released' | 'commit' | 'thaw';

export function readDecision(directory: string): Decision | undefined {
  try {
    return readlinkSync(join(directory, 'decision')) as Decision;
  } catch {
    return undefined;
  }
}
