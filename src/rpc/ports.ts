/** What the server needs of log and metrics; the rooms do not know each other, telemetry's own objects fit. */

export interface ServerLog {
  event(name: 'rpc.listening' | 'rpc.finished' | 'rpc.denied' | 'rpc.failed' | 'rpc.terminated' | 'rpc.reloaded' | 'rpc.stale', fields?: Readonly<Record<string, unknown>>): void;
}

type Labels = Readonly<Record<string, string>>;

export interface ServerMetrics {
  counter(name: string, help: string): { add(amount: number, labels?: Labels): void };
  sampled(name: string, help: string, sample: () => number): void;
  histogram(name: string, help: string, buckets: readonly number[]): { observe(value: number, labels?: Labels): void };
}
