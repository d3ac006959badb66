/** Programs that a restore cannot start again from their files. */
import { formatBytes } from '../../core/units.ts';
import { readProcLink } from '../../host/proc.ts';
import { statLink, type StillStat } from '../../host/still-files.ts';
import type { Finding } from '../types.ts';
import { printable } from '../text.ts';
import { fatal, who, type ProcessView, type Scene } from './findings.ts';

const EXECUTABLE = 0o111;
const DELETED = ' (deleted)';

function judge(process: ProcessView, path: string, program: StillStat, scene: Scene): Finding | undefined {
  if (path.startsWith('/memfd:')) {
    return fatal('program', `${who(process)} was started from a memory file (${printable(path.slice('/memfd:'.length).replace(DELETED, ''))}), which no restore can start`, 'start it from a file of the container', process);
  }
  if ((program.mode & EXECUTABLE) === 0) {
    return fatal('program', `the program of ${who(process)}, ${printable(path)}, is not executable any more`, 'give the file its execute permission back (chmod +x): a restore must be allowed to run it', process);
  }
  const mount = scene.mounts.find(({ id }) => id === program.mountId);
  if (mount?.options.includes('noexec') === true) {
    return fatal('program', `the program of ${who(process)}, ${printable(path)}, lies on ${printable(mount.mountPoint)}, which is mounted noexec`, 'mount it without noexec: a restore must be allowed to run it', process);
  }
  return undefined;
}

export function checkPrograms(scene: Scene): Finding[] {
  return scene.tree.processes.flatMap((process) => {
    const path = readProcLink(process.pid, 'exe');
    const program = path === undefined ? undefined : statLink(process.pid, 'exe');
    return path === undefined || program === undefined ? [] : judge(process, path, program, scene) ?? [];
  });
}

/** Deleted programs and libraries (after an update) travel in the images, up to the ghost limit. */
export function checkDeletedPrograms(scene: Scene): Finding[] {
  const seen = new Set<string>();
  const findings: Finding[] = [];
  for (const process of scene.tree.processes) {
    const deleted = process.mappings.filter(({ name }) => name.endsWith(DELETED) && name.startsWith('/') && !/^\/(memfd:|SYSV|dev\/zero|dev\/shm\/|secretmem|\[)/.test(name));
    for (const { name, start, length } of deleted) {
      if (seen.has(`${name} ${process.namespaces.mnt}`)) continue;
      seen.add(`${name} ${process.namespaces.mnt}`);
      const stat = statLink(process.pid, `map_files/${start.toString(16)}-${(start + BigInt(length)).toString(16)}`);
      if (stat === undefined || stat.links > 0 || stat.allocated <= scene.ghostLimitBytes) continue;
      const what = `${who(process)} has the deleted file ${printable(name.slice(0, -DELETED.length))} of ${formatBytes(stat.allocated)} mapped, more than the ghost limit of ${formatBytes(scene.ghostLimitBytes)}`;
      findings.push(fatal('deleted-file', what, 'raise the ghost limit in the configuration (criu.ghostLimit), or start the program again: an update has replaced its file', process));
    }
  }
  return findings;
}
