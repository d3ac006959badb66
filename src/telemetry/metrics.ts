/**
 * Prometheus metrics: counters, gauges and histograms in the text exposition format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Base units in the names (_bytes, _seconds, _total).
 * Labels have few values by design (no ids); a metric that gets more than MAX_SERIES of them is a bug and drops the rest.
 */
import { invariant } from '../core/assert.ts';

export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(amount: number, labels?: Labels): void;
}

export interface Gauge {
  set(value: number, labels?: Labels): void;
}

export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

export interface Metrics {
  counter(name: string, help: string): Counter;
  gauge(name: string, help: string): Gauge;
  /** A gauge whose value is asked for at each scrape. */
  sampled(name: string, help: string, sample: () => number): void;
  histogram(name: string, help: string, buckets: readonly number[]): Histogram;
  /** The text that a scrape gets. */
  render(): string;
}

export const contentType = 'text/plain; version=0.0.4; charset=utf-8';

/** Seconds, for whatever takes between a millisecond and a quarter of an hour. */
export const durationBuckets = [0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900] as const;

const MAX_SERIES = 200;

interface Metric {
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  lines(name: string): string[];
}

export function createMetrics(): Metrics {
  const metrics = new Map<string, Metric>();
  const register = <T extends Metric>(name: string, metric: T): T => {
    invariant(/^[a-z][a-z0-9_]*$/.test(name), `${name} is not a metric name`);
    invariant(!metrics.has(name), `the metric ${name} exists already`);
    metrics.set(name, metric);
    return metric;
  };
  return {
    counter: (name, help) => {
      invariant(name.endsWith('_total'), `the counter ${name} must end in _total`);
      const series = new Series(() => ({ value: 0 }));
      register(name, { help, type: 'counter', lines: (as) => series.map((labels, { value }) => sample(as, labels, value)) });
      return {
        add: (amount, labels = {}) => {
          invariant(amount >= 0, `the counter ${name} cannot go down`);
          series.change(labels, (state) => { state.value += amount; });
        },
      };
    },
    gauge: (name, help) => {
      const series = new Series(() => ({ value: 0 }));
      register(name, { help, type: 'gauge', lines: (as) => series.map((labels, { value }) => sample(as, labels, value)) });
      return { set: (value, labels = {}) => series.change(labels, (state) => { state.value = value; }) };
    },
    sampled: (name, help, ask) => {
      register(name, { help, type: 'gauge', lines: (as) => [sample(as, {}, ask())] });
    },
    histogram: (name, help, buckets) => {
      const bounds = [...buckets].sort((a, b) => a - b);
      const series = new Series(() => ({ counts: bounds.map(() => 0), sum: 0, count: 0 }));
      register(name, { help, type: 'histogram', lines: (as) => series.map((labels, state) => histogramLines(as, labels, bounds, state).join('\n')) });
      return {
        observe: (value, labels = {}) => series.change(labels, (state) => {
          bounds.forEach((bound, i) => { if (value <= bound) state.counts[i] = (state.counts[i] ?? 0) + 1; });
          state.sum += value;
          state.count += 1;
        }),
      };
    },
    render: () => [...metrics].map(([name, metric]) =>
      [`# HELP ${name} ${metric.help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`, `# TYPE ${name} ${metric.type}`, ...metric.lines(name)].join('\n')).join('\n') + '\n',
  };
}

/** One state per set of labels. */
class Series<State> {
  readonly #states = new Map<string, { labels: Labels; state: State }>();
  readonly #fresh: () => State;

  constructor(fresh: () => State) {
    this.#fresh = fresh;
  }

  change(labels: Labels, apply: (state: State) => void): void {
    const id = JSON.stringify(Object.entries(labels).sort());
    const known = this.#states.get(id);
    if (known === undefined && this.#states.size >= MAX_SERIES) return;
    const entry = known ?? { labels, state: this.#fresh() };
    if (known === undefined) this.#states.set(id, entry);
    apply(entry.state);
  }

  map(line: (labels: Labels, state: State) => string): string[] {
    return [...this.#states.values()].map(({ labels, state }) => line(labels, state));
  }
}

function histogramLines(name: string, labels: Labels, bounds: readonly number[], state: { counts: number[]; sum: number; count: number }): string[] {
  return [
    ...bounds.map((bound, i) => sample(`${name}_bucket`, { ...labels, le: String(bound) }, state.counts[i] ?? 0)),
    sample(`${name}_bucket`, { ...labels, le: '+Inf' }, state.count),
    sample(`${name}_sum`, labels, state.sum),
    sample(`${name}_count`, labels, state.count),
  ];
}

function sample(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`);
  const shown = Number.isFinite(value) ? String(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
  return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${shown}`;
}
