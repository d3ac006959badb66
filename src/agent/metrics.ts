/** What the agent counts: operations by kind and outcome, their duration, frozen time and bytes. */
import { durationBuckets, type Metrics } from '../telemetry/metrics.ts';
import type { AgentContext } from './context.ts';

export function recordMetrics(metrics: Metrics, agent: AgentContext): Disposable {
  const ended = metrics.counter('stasis_operations_total', 'Operations that ended, by kind and outcome.');
  const duration = metrics.histogram('stasis_operation_duration_seconds', 'Duration of operations that ended, by kind.', durationBuckets);
  metrics.sampled('stasis_operations_running', 'Operations in progress.', () => agent.operations.list().filter((status) => status.state === 'running').length);
  metrics.sampled('stasis_staging_used_bytes', 'Memory used by the staging area.', () => agent.staging.usedBytes());
  return agent.operations.subscribe((status) => {
    if (status.state === 'running' || status.endedMs === undefined) return;
    ended.add(1, { kind: status.kind, outcome: status.state });
    duration.observe((status.endedMs - status.startedMs) / 1000, { kind: status.kind });
  });
}
