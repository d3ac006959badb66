/** CRIU's images: reading them, saving them, bringing them back. CRIU itself is run elsewhere. */
export { saveImages, saveRound } from './save.ts';
export { MemoryLayers } from './layers.ts';
export { PE_PRESENT, pagesName } from './pagemap.ts';
export { loadImages } from './load.ts';
export { readNetworkLock } from './network-lock.ts';
export type { NetworkLockOfImages } from './network-lock.ts';
export { parseDescriptors, summarizeImages } from './report.ts';
export { readDumpStats, readRestoreStats } from './stats.ts';
export type { CriuDumpStats, CriuRestoreStats } from './stats.ts';
export { readPrivileges } from './privileges.ts';
export type { IdMapping, ImagePrivileges, NamespaceName } from './privileges.ts';
export type { ImageDevice } from './image-devices.ts';
export type { ImageMount } from './image-mounts.ts';
export type { ThreadPrivileges } from './image-threads.ts';
export { admitImages, examineImages } from './admission/admit.ts';
export type { Admitted } from './admission/admit.ts';
export { putFilterFirst } from './admission/base-filter.ts';
export { cleanImages } from './admission/clean.ts';
