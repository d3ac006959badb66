/** What a probe of the store found; stasis.agent.v1.ProbeStoreResponse. */
export type ProbeStoreRequest = Readonly<Record<never, never>>;

export interface ProbeStoreResponse {
  readonly store: string;
  readonly usable: boolean;
  readonly checks: readonly StoreCheck[];
  readonly putLatencyUs: number;
  readonly getLatencyUs: number;
  readonly putBytesPerSecond: number;
  readonly getBytesPerSecond: number;
}

export interface StoreCheck {
  readonly name: string;
  readonly required: boolean;
  readonly outcome: 'passed' | 'failed' | 'absent' | 'skipped';
  readonly message: string;
  readonly tookMs: number;
}
