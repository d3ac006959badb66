/**
 * What a caller who may only look is told of a checkpoint's description. Fields are chosen one by one: what is added to the
 * description later is not shown before it is named here. Whoever may restore gets the whole document, secrets and all.
 */
import type { PodDescription, SavedContainer } from '../description.ts';
import type { OciSpec } from '../../runtime/types.ts';

/** Options of mount(8) that are words; those with a value may hold anything, and credentials. */
const PLAIN_OPTION = /^(r?bind|rr?o|rr?w|r?(no)?(suid|dev|exec|atime|diratime|symfollow)|r?(relatime|strictatime|sync|async|dirsync)|r?(private|shared|slave|unbindable)|tmpcopyup|(no)?copy)$/;

export function shownDescription(description: PodDescription): object {
  const { version, mode, memoryPath, preDump, frozenAtMs, frozenMs, phases, pod, containers, notSaved, provenance, imported } = description;
  const { by, reason, operation, node, stasis, kernel, architecture, cpu, criu, image, parent } = provenance;
  const findings = description.findings.map(({ severity, kind, message, hint, pid }) => ({ severity, kind, message, hint, pid }));
  return {
    version, mode, memoryPath, preDump, frozenAtMs, frozenMs, phases, findings, pod: { name: pod.name, namespace: pod.namespace }, containers: containers.map(shownContainer), notSaved,
    provenance: { by, reason, operation, node, stasis, kernel, architecture, cpu, criu, image, parent }, imported,
  };
}

function shownContainer(saved: SavedContainer): object {
  const { index, id, name, manager, image, runtime, runtimeVersion, root, bundle, flags, volumes, pidAtDump } = saved;
  const { saved: kept, prefix, layout, entries, bytes } = saved.rootfs;
  const shownLayout = layout.kind === 'overlay' ? { kind: layout.kind, merged: layout.merged, lower: layout.lower, upper: layout.upper, work: layout.work } : layout;
  return {
    index, id, name, manager, image, runtime, runtimeVersion, root, bundle, flags, rootfs: { saved: kept, prefix, layout: shownLayout, entries, bytes }, volumes, pidAtDump,
    images: shownImages(saved.images), spec: shownSpec(saved.spec),
  };
}

function shownImages({ prefix, files, metadataBytes, pagesBytes, lazyPages, pages, processes, plugins, tcpClose, report }: SavedContainer['images']): object {
  const counts = { prefix, files, metadataBytes, pagesBytes, lazyPages, pages, processes, plugins, tcpClose };
  if (report === undefined) return counts;
  const { imageVersion, lsm, networkLock, memory, tcp, ghostFiles, stdio, cpu } = report;
  const tasks = report.processes.map(({ pid, ppid, threads, comm, state, memoryBytes, lazyBytes, mapped }) => ({ pid, ppid, threads, comm, state, memoryBytes, lazyBytes, mapped }));
  return { ...counts, report: { imageVersion, lsm, networkLock, processes: tasks, memory, tcp, ghostFiles, stdio, cpu } };
}

function shownSpec({ hostname, root, process: program = {}, mounts = [], linux = {} }: OciSpec): object {
  const env: unknown = (program as { env?: unknown }).env;
  const names = Array.isArray(env) ? env.map((entry) => String(entry).split('=')[0]) : [];
  return {
    hostname, ...(root === undefined ? {} : { root: { path: root.path, readonly: root.readonly } }),
    process: { terminal: program.terminal, cwd: program.cwd, args: (program.args ?? []).slice(0, 1), argumentCount: program.args?.length ?? 0, env: names },
    mounts: mounts.map(({ destination, type, source, options = [] }) => ({
      destination, type, ...(source?.startsWith('/') === true ? { source } : {}), options: options.filter((option) => PLAIN_OPTION.test(option)),
    })),
    linux: { cgroupsPath: linux.cgroupsPath, namespaces: linux.namespaces?.map(({ type, path }) => ({ type, path })) },
  };
}
