/** The version of this installation, out of its package.json. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The sources and the compiled files lie at different depths below the package: climb until package.json is seen. */
export function packageVersion(): string {
  for (let directory = import.meta.dirname; directory !== dirname(directory); directory = dirname(directory)) {
    try {
      const { version } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as { version?: unknown };
      if (typeof version === 'string') return version;
    } catch {
      // Not in this directory.
    }
  }
  return 'unknown';
}
