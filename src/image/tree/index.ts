/** Trees of files in a checkpoint: the changes of a container's root file system, and volumes. docs/FORMAT-TREE.md has the bytes. */
export { TreeSaver } from './save.ts';
export type { DeltaOptions, SavedTreeCounts, TreeSaverOptions } from './save.ts';
export { loadTree, loadTreeMerged, readTreeIndex } from './load.ts';
export type { LoadTreeOptions, LoadedTreeCounts } from './load.ts';
export type { TreeKind } from './table.ts';
export type { TreeEntry } from './port.ts';
export { TreeThreads } from './threads.ts';
