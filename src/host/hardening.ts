/** What keeps this process's memory, with keys and pages of containers in it, off the disk and away from other processes. */
import { libc, systemError } from './libc.ts';

const raw = {
  prlimit: libc.func('int prlimit64(int pid, int resource, const void* next, void* old)'),
  prctl: libc.func('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)'),
};

const RLIMIT_CORE = 4;
const PR_SET_DUMPABLE = 4;

/**
 * No core dump of this process, nor of any that it starts: setrlimit(2). The hard limit stays, because criu sets the limits
 * of what it restores and cannot raise a hard one without CAP_SYS_RESOURCE. And prctl(2), PR_SET_DUMPABLE: nobody without
 * CAP_SYS_PTRACE reads this process's memory or takes its descriptors, whatever its uid.
 */
export function forbidDumps(): void {
  const limit = Buffer.alloc(16);
  if ((raw.prlimit(0, RLIMIT_CORE, null, limit) as number) !== 0) throw systemError('prlimit');
  limit.writeBigUInt64LE(0n, 0);
  if ((raw.prlimit(0, RLIMIT_CORE, limit, null) as number) !== 0) throw systemError('prlimit');
  if ((raw.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) as number) !== 0) throw systemError('prctl');
}
