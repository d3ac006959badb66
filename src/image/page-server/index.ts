/** Memory in over CRIU's page-server protocol. */
export { startPageServer } from './server.ts';
export type { PageServer, PageServerOptions } from './server.ts';
export { SlabPool } from './slab-pool.ts';
