/**
 * Checkpoint archives of other tools: a tar file with CRIU's images and JSON beside them. Writing and reading them as
 * bytes; what the JSON means, and who may do what with it, is not decided here.
 */
export { planDiff, treePaths } from './diff-tar.ts';
export type { DiffPlan } from './diff-tar.ts';
export { archiveLength, writeArchive } from './write.ts';
export type { ArchiveContents } from './write.ts';
export { receiveArchive } from './receive.ts';
export type { Received, ReceiveOptions } from './receive.ts';
