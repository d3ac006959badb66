/** What every use case of the agent works with, built once by bin/agent.ts. */
import type { Clock } from '../core/clock.ts';
import type { Failpoints } from '../core/failpoint.ts';
import type { Staging } from '../host/staging.ts';
import type { BlockSlots } from '../image/lazy/index.ts';
import type { TreeThreads } from '../image/tree/index.ts';
import type { StoreReport } from '../repository/index.ts';
import type { Repository } from '../repository/types.ts';
import type { RuntimeRoot, Toolchain } from '../runtime/types.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Fills } from './fills.ts';
import type { Journal } from './journal.ts';
import type { Lineages } from './lineages.ts';
import type { OpenedKeys } from './node-keys.ts';
import type { TreeMemories } from './tree-memories.ts';
import type { Rehearsals } from './rehearsals.ts';
import type { Operations } from './operations.ts';
import type { Holdings } from './retention/holdings.ts';
import type { RetentionPolicy } from './retention/policy.ts';
import type { Quota } from './retention/quota.ts';
import type { Selector } from './retention/selector.ts';
import type { StoreSpeed } from './store-speed.ts';
import type { WorkingSets } from './working-sets.ts';

export interface AgentSettings {
  readonly nodeName: string;
  readonly version: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly memoryPath: 'auto' | 'directory' | 'page-server';
  readonly preDump: 'auto' | 'never';
  /** Whether stops are rehearsed. */
  readonly rehearsal: 'auto' | 'always' | 'never';
  /** Bounds of one freeze, for checkpoints that leave the container running and for those that stop it. */
  readonly freezeBudgetMs: number;
  readonly stopBudgetMs: number;
  /** Deadline of an operation whose caller set none. */
  readonly operationDeadlineMs: number;
  /** How long an import waits for the next piece of its archive. */
  readonly stallMs: number;
  readonly ghostLimitBytes: number;
  /** Whose checkpoints are not encrypted. */
  readonly plaintextFor: readonly Selector[];
  readonly parallel: number;
  /** 0 for none. */
  readonly quotaBytes: number;
  readonly retention: RetentionPolicy;
  /** Program of criu. */
  readonly criu: string;
  readonly scripts: { readonly guard: string; readonly hook: string; readonly restore: string; readonly lazyGuard: string; readonly restoreHook: string; readonly rehearse: string; readonly network: string };
}

export interface AgentContext {
  readonly settings: AgentSettings;
  readonly clock: Clock;
  readonly log: Logger;
  readonly failpoints: Failpoints;
  readonly repository: Repository;
  readonly quota: Quota;
  readonly holdings: Holdings;
  readonly staging: Staging;
  readonly treeThreads: TreeThreads;
  readonly toolchain: Toolchain;
  /** Where containers are looked for; the last part of a root may be "*". */
  readonly roots: readonly RuntimeRoot[];
  readonly operations: Operations;
  readonly journal: Journal;
  readonly lineages: Lineages;
  readonly rehearsals: Rehearsals;
  readonly workingSets: WorkingSets;
  readonly fills: Fills;
  /** Memory of containers that fill. */
  readonly blockSlots: BlockSlots;
  readonly storeSpeed: StoreSpeed;
  readonly treeMemories: TreeMemories;
  /** Of this node, and whom it trusts. */
  readonly keys: OpenedKeys & { readonly trustedSigners: readonly string[] };
  readonly storeDescription: string;
  /** Tries the store of the repository. */
  readonly probeStore: (options: { signal: AbortSignal | undefined }) => Promise<StoreReport>;
  readonly startedMs: number;
}
