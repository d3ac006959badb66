/** CRIU's images: reading them, saving them, bringing them back. CRIU itself is run elsewhere. */
export { saveImages } from './save.ts';
export { loadImages } from './load.ts';
export { parseDescriptors, summarizeImages } from './report.ts';
export { readDumpStats, readRestoreStats } from './stats.ts';
export type { CriuDumpStats, CriuRestoreStats } from './stats.ts';
export { readPrivileges } from './privileges.ts';
export type { ImagePrivileges, NamespaceName } from './privileges.ts';
