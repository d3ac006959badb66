/** What the node, its CRIU and the container's specification allow at all. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CRIU_CONFIG_ANNOTATION, CRIU_CONFIG_FILE, CRIU_CONFIG_TEXT } from '../bundle/restore-spec.ts';
import type { Finding } from '../types.ts';
import { atLeast, parseVersion } from '../toolchain.ts';
import { fatal, warning, type Scene } from './findings.ts';

/** The first CRIU that dumps containers whose cgroup is already frozen, which is how Stasis freezes them. */
const OLDEST_CRIU = [4, 1] as const;
/** Kernels from here on have a vDSO layout that older CRIUs refuse. */
const KERNEL_WITH_NEW_VDSO = [6, 13] as const;
/** Kernels from here on do not answer SO_PASSCRED on inet sockets, which CRIU before 4.2 asks. */
const KERNEL_WITHOUT_INET_PASSCRED = [6, 16] as const;

export function checkVersions({ toolchain, container }: Scene): Finding[] {
  const { criu, kernel, runtimes } = toolchain;
  const findings: Finding[] = [];
  if (!atLeast(criu.version, OLDEST_CRIU)) {
    const newKernel = atLeast(parseVersion(kernel) ?? [0, 0, 0], KERNEL_WITH_NEW_VDSO);
    findings.push(newKernel
      ? fatal('kernel', `criu ${criu.text} does not work on kernel ${kernel}`, 'install criu 4.2 or newer: kernels from 6.13 on need at least 4.1')
      : fatal('criu', `criu ${criu.text} cannot dump a container that is already frozen`, 'install criu 4.2 or newer'));
  }
  const { runtime } = container.at;
  if (!runtimes.some((candidate) => candidate.name === runtime)) {
    findings.push(fatal('runtime', `${runtime}, the container's runtime, is not installed where the agent looks`, `put ${runtime} on the agent's PATH, or name it in the configuration (runtimes.${runtime}.binary)`));
  }
  return findings;
}

export function hasInetTrouble({ toolchain }: Scene): boolean {
  return !atLeast(toolchain.criu.version, [4, 2]) && atLeast(parseVersion(toolchain.kernel) ?? [0, 0, 0], KERNEL_WITHOUT_INET_PASSCRED);
}

/** The file that a rebuilt bundle has, unchanged. */
function isOurs(path: string, bundle: string): boolean {
  try {
    return path === join(bundle, CRIU_CONFIG_FILE) && readFileSync(path, 'utf8') === CRIU_CONFIG_TEXT;
  } catch {
    return false;
  }
}

export function checkSpecification({ container }: Scene): Finding[] {
  const { spec } = container;
  const findings: Finding[] = [];
  const criuConfig = spec.annotations?.[CRIU_CONFIG_ANNOTATION];
  if (criuConfig && !isOurs(criuConfig, container.bundle)) {
    findings.push(fatal('criu-config', 'the annotation org.criu.config names a CRIU configuration file of the user', 'create the container without that annotation: such a file can run any program as root'));
  }
  if (spec.process?.terminal === true) {
    findings.push(fatal('tty', 'the container has a terminal, which no restore can give back to the person who held it', 'start the container without a terminal (no -t, process.terminal false)'));
  }
  const seccomp = spec.linux?.['seccomp'] as { listenerPath?: unknown } | undefined;
  if (typeof seccomp?.listenerPath === 'string' && seccomp.listenerPath !== '') {
    findings.push(fatal('seccomp-listener', `its seccomp profile asks a supervisor at ${seccomp.listenerPath}`, 'use a seccomp profile without listenerPath: the supervisor cannot be checkpointed'));
  }
  return findings;
}

export function checkStatus({ container }: Scene): Finding[] {
  if (container.status === 'running' || container.status === 'paused') {
    return container.freezer === undefined
      ? [fatal('cgroup', 'the container has no cgroup of its own that could be frozen', 'start it with linux.cgroupsPath, or mount the freezer or cgroup v2 hierarchy where the agent sees it')]
      : [];
  }
  return [fatal('status', `the container is ${container.status}`, container.status === 'created' ? 'start it first' : 'only a running container can be checkpointed')];
}

export function checkProblems({ toolchain }: Scene): Finding[] {
  const [first] = toolchain.problems;
  return first === undefined ? [] : [warning('criu', `criu check complains: ${first}`, 'run criu check on the node; a dump may fail')];
}
