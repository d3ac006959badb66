/**
 * The text of a CRIU configuration file for one operation: one long option a line, without dashes (criu(8),
 * CONFIGURATION FILES). It reaches CRIU through CRIU_CONFIG_FILE in the environment of runc or crun, which is read
 * before the options of the runtime: it adds what the runtimes have no flag for.
 */
import { StasisError } from '../core/errors.ts';

export interface CriuConfigOptions {
  /** Bound on collecting and freezing the processes; CRIU's own is 10 seconds. */
  readonly timeoutSeconds: number;
  /** Largest deleted but open file that goes into the images, bytes. */
  readonly ghostLimitBytes: number;
  /** Run at each stage with the stage's name in CRTOOLS_SCRIPT_ACTION; absolute path. */
  readonly actionScript?: string | undefined;
  /** Leave pages that may come later to whoever listens in the working directory; for restores by crun, which has no flag for it. */
  readonly lazyPages?: boolean | undefined;
  /** Restore connected TCP sockets as closed ones; for restores only. */
  readonly tcpClose?: boolean | undefined;
  /** Leave connections that were not accepted yet out of the images: their peers see a reset. */
  readonly tcpSkipInFlight?: boolean | undefined;
  /** nftables needs no xtables programs on the node; "skip" is for callers with a lock of their own. */
  readonly networkLock?: 'nftables' | 'iptables' | 'skip' | undefined;
  /** For dumps: paths in the container's root, below which CRIU looks for watched files that handles do not lead back to. */
  readonly watched?: readonly string[] | undefined;
  /** Directory of CRIU's plugins. */
  readonly libdir?: string | undefined;
}

const MiB = 1024 * 1024;

/** CRIU splits lines at blanks and takes "#" for a comment; quotes protect both, and nothing protects a quote. */
export function namesInCriuConfig(path: string): boolean {
  return /^\/[^"\\\n\r\0]*$/.test(path);
}

function quoted(path: string): string {
  if (!namesInCriuConfig(path)) {
    throw new StasisError('USAGE', `${JSON.stringify(path)} cannot be named in a CRIU configuration file`, { hint: 'use an absolute path without quotes, backslashes and line breaks' });
  }
  return /[\s#]/.test(path) ? `"${path}"` : path;
}

export function criuConfig(options: CriuConfigOptions): string {
  const lines = [
    `network-lock ${options.networkLock ?? 'nftables'}`,
    `timeout ${Math.max(1, Math.ceil(options.timeoutSeconds))}`,
    `ghost-limit ${Math.max(1, Math.ceil(options.ghostLimitBytes / MiB))}M`,
    'link-remap',
    ...(options.actionScript === undefined ? [] : [`action-script ${quoted(options.actionScript)}`]),
    ...(options.lazyPages === true ? ['lazy-pages'] : []),
    ...(options.tcpClose === true ? ['tcp-close'] : []),
    ...(options.tcpSkipInFlight === true ? ['skip-in-flight'] : []),
    ...(options.watched ?? []).map((path) => `irmap-scan-path ${quoted(path)}`),
    ...(options.libdir === undefined ? [] : [`libdir ${quoted(options.libdir)}`]),
  ];
  return `${lines.join('\n')}\n`;
}
