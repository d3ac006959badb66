/** Which program a name stands for now: another file after an upgrade, also one that calls itself the same version. */
import { statSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

/** Of the first file of that name on the PATH, or of the path itself; "missing" when there is none. */
export function programStamp(name: string): string {
  // oxlint-disable-next-line node/no-process-env
  const directories = (process.env['PATH'] ?? '').split(delimiter);
  const candidates = isAbsolute(name) ? [name] : directories.map((directory) => join(directory, name));
  for (const path of candidates) {
    const stamp = fileStamp(path);
    if (stamp !== 'missing') return stamp;
  }
  return 'missing';
}

export function fileStamp(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? 'missing' : `${path} ${stat.dev}:${stat.ino} ${stat.size} ${stat.mtimeMs}`;
}
