/** Sessions that cannot be made again: a process enters one only by being born in it. */
import type { Finding } from '../types.ts';
import { inDumpOrder } from './epoll-checks.ts';
import { fatal, who, type ProcessView, type Scene } from './findings.ts';

/** A process of the restore: one of the container's, or a helper that leads a session whose leader has ended. */
interface Born {
  readonly session: number;
  readonly parent: Born | undefined;
  readonly pid: number;
  /** The session in which it makes its first children, before it leads one of its own. */
  firstSession?: number;
}

/**
 * The tree as CRIU makes it (criu/pstree.c, prepare_pstree_ids): children of the first process whose leader has ended
 * are born by a helper, all others by their parent.
 */
function asRebuilt(processes: readonly ProcessView[]): { readonly process: ProcessView; readonly born: Born }[] {
  const [init] = processes;
  if (init === undefined) return [];
  const root: Born = { pid: init.pid, session: init.session, parent: undefined };
  const made = new Map<number, Born>([[init.pid, root]]);
  const helpers = new Map<number, Born>();
  const helper = (session: number): Born => {
    const known = helpers.get(session) ?? { pid: session, session, parent: root };
    helpers.set(session, known);
    return known;
  };
  const living = new Set(processes.map(({ pid }) => pid));
  return inDumpOrder(processes).slice(1).map((process) => {
    const { pid, ppid, session } = process;
    const orphan = ppid === init.pid && session !== init.session && session !== pid;
    const viaLeader = orphan && living.has(session);
    const parent = orphan && !viaLeader ? helper(session) : made.get(ppid);
    // A helper below the living leader makes it: as if that were its parent.
    const born: Born = { pid, session, parent: viaLeader ? { pid: -1, session, parent: undefined } : parent };
    made.set(pid, born);
    return { process, born };
  });
}

/** Whether all on the way up to the leader can still be in its session when they make the next one. */
function canBeBorn({ pid, session, parent }: Born): boolean {
  if (session === pid || parent?.session === session) return true;
  for (let above = parent; above?.pid !== session; above = above.parent) {
    if (above === undefined || (above.firstSession ?? session) !== session) return false;
    above.firstSession = session;
  }
  return true;
}

export function checkSessions({ tree }: Scene): Finding[] {
  if (tree.unexamined > 0) return [];
  return asRebuilt(tree.processes).filter(({ born }) => !canBeBorn(born)).slice(0, 1).map(({ process }) => (
    fatal(
      'session',
      `${who(process)} belongs to the session of pid ${process.session}, into which it cannot be born again: its `
      + 'leader has ended, or its parent has left that session',
      'let the process that leads the session live on, or end what a daemon has left behind', process,
    )
  ));
}
