/** Whether criu can leave the memory of a container's tasks for later. */
import { readFileSync } from 'node:fs';
import { hasUserNamespace } from './spec.ts';
import type { OciSpec } from './types.ts';

/** The kernel's switch: vm.unprivileged_userfaultfd (Linux: Documentation/admin-guide/sysctl/vm.rst). A kernel without it asks for no privilege. */
const SWITCH = '/proc/sys/vm/unprivileged_userfaultfd';

/** Each task opens its own userfaultfd, with the rights that it has in its user namespace. Undefined: it can. */
export function whyNeverLazy(spec: OciSpec): string | undefined {
  if (!hasUserNamespace(spec)) return undefined;
  return openToAll() ? undefined : 'the kernel gives no userfaultfd to a container in a user namespace (sysctl vm.unprivileged_userfaultfd is 0)';
}

function openToAll(): boolean {
  try {
    return readFileSync(SWITCH, 'utf8').trim() !== '0';
  } catch {
    return true;
  }
}
