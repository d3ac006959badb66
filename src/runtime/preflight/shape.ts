/** What a container is made of, without what changes from moment to moment: kinds of descriptors and mappings, mounts. */
import type { Scene } from './findings.ts';

/** "socket", "pipe", "anon_inode:[eventpoll]", "/dev/pts", "memfd", "deleted", "file". */
function kindOf(target: string): string {
  if (target.startsWith('anon_inode:')) return target;
  if (target.startsWith('/memfd:')) return 'memfd';
  if (target.startsWith('/dev/')) return target.replace(/\d+/g, '#');
  if (target.endsWith(' (deleted)')) return 'deleted';
  return target.startsWith('/') ? 'file' : target.replace(/:.*/, '');
}

/** Sorted, each once. */
export function shapeOfScene({ tree, mounts }: Scene): string[] {
  const descriptors = tree.processes.flatMap(({ descriptors: open }) => open.map(({ target }) => `descriptor ${kindOf(target)}`));
  const mappings = tree.processes.flatMap(({ mappings: mapped }) => mapped.filter(({ sharedMapping }) => sharedMapping).map(({ name }) => `mapping ${kindOf(name)}`));
  const namespaces = tree.processes.map((process) => `namespaces ${Object.entries(process.namespaces).filter(([name, id]) => tree.processes[0]?.namespaces[name as keyof typeof process.namespaces] !== id).map(([name]) => name).join()}`);
  return [...new Set([...descriptors, ...mappings, ...namespaces, ...mounts.map(({ mountPoint, fsType, root }) => `mount ${mountPoint} ${fsType} ${fsType === 'overlay' ? '' : root.replace(/\d+/g, '#')}`)])].sort();
}
