/** Images of a stranger's on their way into the operator's bundle: admitted, compared with it, and changed where the bundle has the say. */
import { admitImages, cleanImages, putFilterFirst, readPrivileges } from '../../image/criu/index.ts';
import { seccompProgram } from '../../runtime/index.ts';
import type { OciSpec } from '../../runtime/types.ts';
import { requireGranted } from './granted.ts';

/** `scratch`: path of a file that does not exist. Returns the paths of open files. Throws OBJECT_CORRUPT for what no container needs, RESTORE_INCOMPATIBLE for what this one may not have. */
export async function admitImported(imageDir: string, bundle: OciSpec, scratch: string): Promise<ReadonlySet<string>> {
  const admitted = await admitImages(imageDir);
  const privileges = await readPrivileges(imageDir);
  requireGranted(privileges, admitted, bundle);
  await cleanImages(imageDir, admitted);
  const program = seccompProgram(bundle, scratch);
  if (program !== undefined) putFilterFirst(imageDir, program, privileges.threads);
  return admitted.paths;
}
