/** Terminals that were made inside the container (tmux, screen, script), and who uses them by /dev/tty. */
import { statLink } from '../../host/still-files.ts';
import type { Finding } from '../types.ts';
import { inDumpOrder } from './epoll-checks.ts';
import { fatal, who, type ProcessView, type Scene } from './findings.ts';

/** Majors 136 to 143 are the pseudo terminals. */
const FIRST_PTS_MAJOR = 136;

/** "/dev/pts/3" from the device number of /proc/PID/stat. */
function terminalOf({ tty }: ProcessView): string | undefined {
  const major = (tty >>> 8) & 0xfff;
  const minor = (tty & 0xff) | ((tty >>> 12) & 0xfff00);
  return major >= FIRST_PTS_MAJOR && major < FIRST_PTS_MAJOR + 8 ? `/dev/pts/${(major - FIRST_PTS_MAJOR) * 2 ** 20 + minor}` : undefined;
}

function controllingDescriptor(process: ProcessView): number | undefined {
  return process.descriptors.find(({ fd, target }) => {
    if (target !== '/dev/tty') return false;
    const stat = statLink(process.pid, `fd/${fd}`);
    return stat?.deviceMajor === 5 && stat.deviceMinor === 0;
  })?.fd;
}

/**
 * /dev/tty is saved only in the process that also holds the terminal itself, before all others do, as leader of the session
 * in the foreground.
 */
export function checkControllingTerminals({ tree }: Scene): Finding[] {
  const ordered = inDumpOrder(tree.processes);
  return ordered.flatMap((process) => {
    const fd = controllingDescriptor(process);
    if (fd === undefined) return [];
    const terminal = terminalOf(process);
    const holder = ordered.find(({ session, descriptors }) => session === process.session && descriptors.some(({ target }) => target === terminal));
    if (holder === process && process.foreground === process.session) return [];
    const what = terminal === undefined ? 'its terminal' : `the terminal ${terminal}`;
    return [fatal('tty', `${who(process)} uses ${what} by /dev/tty, descriptor ${fd}, which CRIU saves only in the process that leads the session in the foreground`, 'end the programs in that terminal (tmux, screen, script), or start the service without one', process)];
  }).slice(0, 1);
}
