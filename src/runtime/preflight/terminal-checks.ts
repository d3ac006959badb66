/** Terminals that were made inside the container (tmux, screen, script), and who uses them by /dev/tty. */
import { statLink } from '../../host/still-files.ts';
import type { Finding } from '../types.ts';
import { inDumpOrder } from './epoll-checks.ts';
import { descriptorInfo, fatal, who, type ProcessView, type Scene } from './findings.ts';

/** Majors 136 to 143 are the pseudo terminals. */
const FIRST_PTS_MAJOR = 136;

/** The number N of the terminal /dev/pts/N that controls a process, from the device number of /proc/PID/stat. */
function terminalOf({ tty }: ProcessView): number | undefined {
  const major = (tty >>> 8) & 0xfff;
  const minor = (tty & 0xff) | ((tty >>> 12) & 0xfff00);
  return major >= FIRST_PTS_MAJOR && major < FIRST_PTS_MAJOR + 8 ? (major - FIRST_PTS_MAJOR) * 2 ** 20 + minor : undefined;
}

/** Whether a process holds one of the two ends of a terminal. */
function holds(process: ProcessView, terminal: number): boolean {
  return process.descriptors.some(({ fd, target }) => (
    target === `/dev/pts/${terminal}` || (target.endsWith('/ptmx') && Number(/^tty-index:\s*(\d+)$/m.exec(descriptorInfo(process, fd) ?? '')?.[1] ?? -1) === terminal)
  ));
}

function controllingDescriptor(process: ProcessView): number | undefined {
  return process.descriptors.find(({ fd, target }) => {
    if (target !== '/dev/tty') return false;
    const stat = statLink(process.pid, `fd/${fd}`);
    return stat?.deviceMajor === 5 && stat.deviceMinor === 0;
  })?.fd;
}

/**
 * /dev/tty is saved only in the process that leads the session in the foreground, and only when CRIU comes by it before all
 * others that hold one of the ends of its terminal. Whoever made the terminal (tmux, screen, script) is its parent, so that is rare.
 */
export function checkControllingTerminals({ tree }: Scene): Finding[] {
  const ordered = inDumpOrder(tree.processes);
  return ordered.flatMap((process) => {
    const fd = controllingDescriptor(process);
    if (fd === undefined) return [];
    const terminal = terminalOf(process);
    const holder = terminal === undefined ? undefined : ordered.find((candidate) => holds(candidate, terminal));
    if (holder === process && process.foreground === process.session) return [];
    const what = terminal === undefined ? 'its terminal' : `the terminal /dev/pts/${terminal}`;
    return [fatal('tty', `${who(process)} uses ${what} by /dev/tty, descriptor ${fd}, which CRIU cannot give back to a program below the one that made the terminal`, 'end the programs in that terminal (tmux, screen, script), or start the service without one', process)];
  }).slice(0, 1);
}
