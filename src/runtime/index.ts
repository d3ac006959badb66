/** The room of container runtimes: finding containers, judging them, and driving runc and crun. */
export { openBundle, removeBundle, type Bundle, type BundleRequest } from './bundle/bundle.ts';
export { explainCriuLog, readLog, type Explanation } from './criu-log/explain.ts';
export { freezerOf } from './cgroup.ts';
export { criuConfig, type CriuConfigOptions } from './criu-config.ts';
export { defaultRoots, expandRoots, findContainer, listContainers, type Listing } from './discovery.ts';
export { checkpointArgs, mustLeaveRunning, restoreArgs } from './driver/args.ts';
export { dump, type DriverOptions } from './driver/dump.ts';
export { kill, remove } from './driver/lifecycle.ts';
export { findLauncher, restore, type RestoreOptions, type RestoredProcess } from './driver/restore.ts';
export { findPodmanImage, namespaceOf } from './naming.ts';
export { examine, type ExamineOptions } from './preflight/examine.ts';
export { parseSpec, readSpec } from './spec.ts';
export { probeToolchain, type ToolchainOptions } from './toolchain.ts';
export type * from './types.ts';
