/** Lazy restore: what must be there first, and a source of all other pages. */
export { loadLazyImages, type LazyImages } from './load.ts';
export { PageSource } from './page-source.ts';
export { BlockSlots } from './slots.ts';
export { startLazyServer, type LazyServer } from './server.ts';
export { WorkingSet } from './working-set.ts';
