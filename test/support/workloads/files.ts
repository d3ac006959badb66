/** A tree of 92,000 files in a container's root: Debian's source of Linux 6.12, or one of that shape when it is not there. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where scripts/bench shows what it fetched. */
const ARCHIVE = '/mnt/linux-source.tar';
const PLACE = 'usr/src/tree';

/** Unpacks through the container's own root, so all of it lies in its upper layer. Returns how many files there are. */
export function unpackTree(pid: number): number {
  const place = `/proc/${pid}/root/${PLACE}`;
  mkdirSync(place, { recursive: true });
  unpackTreeInto(place);
  return countFiles(pid);
}

export function unpackTreeInto(place: string): void {
  if (existsSync(ARCHIVE)) execFileSync('tar', ['--extract', '--file', ARCHIVE, '--directory', place, '--strip-components', '1', '--no-same-owner']);
  else generate(place, 92_000);
}

export function countFiles(pid: number): number {
  return Number(execFileSync('sh', ['-c', `find /proc/${pid}/root/${PLACE} -type f | wc -l`], { encoding: 'utf8' }));
}

/** One number for names, modes and contents of the whole tree. */
export function treeDigest(pid: number): string {
  const tar = `tar --create --sort=name --mtime=@0 --directory /proc/${pid}/root/${PLACE} . | sha256sum`;
  return execFileSync('sh', ['-c', tar], { encoding: 'utf8' }).slice(0, 64);
}

/** Sizes as in a source tree: most of some KiB, some of a hundred; text, of which a tenth is unlike any other. */
function generate(place: string, count: number): void {
  for (let n = 0; n < count; n++) {
    const directory = join(place, String(n % 61), String(n % 1409));
    if (n < 61 * 1409) mkdirSync(directory, { recursive: true });
    const lines = n % 23 === 0 ? 2500 : 20 + (n % 300);
    writeFileSync(join(directory, `file-${n}.c`), Array.from({ length: lines }, (_, line) => `static int value_${(n * 31 + line) % 9973} = ${line % 10 === 0 ? n * 7919 : line};\n`).join(''));
  }
}
