/** The part of the API that is about keys; see api.ts. */
import type { CallContext, Problem, Progress } from './api.ts';

export type GetKeysRequest = Readonly<Record<never, never>>;

export interface GetKeysResponse {
  readonly provider: string;
  readonly signer: string;
  readonly formerSigners: readonly string[];
  readonly own: readonly string[];
  readonly recipients: readonly string[];
  readonly trustedSigners: readonly string[];
}

export type ListLineageKeysRequest = Readonly<Record<never, never>>;

export interface ListLineageKeysResponse {
  readonly keys: readonly LineageKeyInfo[];
  readonly problems: readonly Problem[];
}

export interface LineageKeyInfo {
  readonly lineage: string;
  readonly epoch: number;
  readonly recipients: readonly string[];
  readonly signer: string;
  readonly ended: boolean;
  readonly openable: boolean;
  readonly checkpoints: readonly string[];
}

export interface ChangeRecipientsRequest {
  readonly lineages: readonly string[];
  readonly add: readonly string[];
  readonly remove: readonly string[];
  readonly rotate: boolean;
  readonly exact: boolean;
  readonly endLineages: boolean;
  readonly dryRun: boolean;
  readonly operationId?: string;
  readonly deadlineMs?: number;
  readonly reason: string;
}

export type ChangeRecipientsEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'report'; readonly report: ChangeRecipientsReport };

export interface ChangeRecipientsReport {
  readonly dryRun: boolean;
  readonly changed: readonly string[];
  readonly unchanged: number;
  readonly sealed: readonly string[];
  readonly problems: readonly Problem[];
  readonly totalMs: number;
}

export interface ShredLineagesRequest {
  readonly lineages: readonly string[];
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly reason: string;
}

export interface ShredLineagesResponse {
  readonly shredded: readonly ShreddedLineage[];
}

export interface ShreddedLineage {
  readonly lineage: string;
  readonly checkpoints: readonly string[];
  readonly pinned: readonly string[];
}

export interface KeysHandlers {
  getKeys(request: GetKeysRequest, context: CallContext): Promise<GetKeysResponse>;
  listLineageKeys(request: ListLineageKeysRequest, context: CallContext): Promise<ListLineageKeysResponse>;
  changeRecipients(request: ChangeRecipientsRequest, context: CallContext): AsyncIterable<ChangeRecipientsEvent>;
  shredLineages(request: ShredLineagesRequest, context: CallContext): Promise<ShredLineagesResponse>;
}
