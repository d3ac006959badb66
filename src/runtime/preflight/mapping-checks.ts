/** Memory mappings that CRIU cannot save. */
import { statLink } from '../../host/still-files.ts';
import type { Finding } from '../types.ts';
import { IO_URING_HINT, deviceHint } from './descriptor-checks.ts';
import { fatal, who, type Mapping, type Scene } from './findings.ts';
import { printable } from '../text.ts';

/** Mappings of these are plain memory. */
const HARMLESS = /^\/dev\/(zero|shm\/|hugepages\/|null$)/;

function judge(mapping: Mapping): { kind: string; what: string; hint: string } | undefined {
  const { name } = mapping;
  if (name.startsWith('anon_inode:[io_uring]')) return { kind: 'io_uring', what: 'has an io_uring mapped', hint: IO_URING_HINT };
  if (name === '[uprobes]') return { kind: 'uprobes', what: 'is traced by uprobes', hint: 'stop the eBPF tracer or profiler that instruments it' };
  if (name.startsWith('anon_inode:')) return { kind: 'mapping', what: `has ${printable(name)} mapped`, hint: 'CRIU cannot save this kind of memory' };
  if (name.startsWith('/secretmem')) return { kind: 'mapping', what: 'has secret memory (memfd_secret) mapped', hint: 'the kernel does not let anybody read it: switch its use off' };
  if (!name.startsWith('/dev/') || HARMLESS.test(name)) return undefined;
  const path = name.replace(/ \(deleted\)$/, '');
  const kind = path.startsWith('/dev/infiniband/') ? 'rdma' : 'device';
  return { kind, what: `has the device ${printable(path)} mapped`, hint: deviceHint(path) };
}

/** One finding for each process and kind of mapping. */
export function checkMappings({ tree }: Scene): Finding[] {
  const findings: Finding[] = [];
  const seen = new Set<string>();
  for (const process of tree.processes) {
    for (const mapping of process.mappings) {
      const judged = judge(mapping);
      const key = `${process.pid} ${judged?.what}`;
      if (judged === undefined || seen.has(key)) continue;
      seen.add(key);
      findings.push(fatal(judged.kind, `${who(process)} ${judged.what}`, judged.hint, process));
    }
  }
  return findings;
}

const PAGE = 4096;

/** A SysV segment must be attached as a whole: one that was unmapped in part is dumped, and then not restored. */
export function checkSharedSegments({ tree }: Scene): Finding[] {
  return tree.processes.flatMap((process) => {
    const segments = Map.groupBy(process.mappings.filter(({ name }) => name.startsWith('/SYSV')), ({ inode }) => inode);
    return [...segments.values()].flatMap((pieces) => {
      const { start, length, name } = pieces[0]!;
      const size = statLink(process.pid, `map_files/${start.toString(16)}-${(start + BigInt(length)).toString(16)}`)?.size;
      const mapped = pieces.reduce((sum, piece) => sum + piece.length, 0);
      if (size === undefined || mapped % (Math.ceil(size / PAGE) * PAGE) === 0) return [];
      return [fatal('shared-memory', `${who(process)} has the SysV shared memory ${printable(name.slice(1, 13))} mapped in part only`, 'let the program attach it as a whole (shmat), or detach it', process)];
    });
  });
}
