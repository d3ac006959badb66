/** What is compared: somebody who can save a container, leave it running or not, and bring it back. */

export interface Command {
  /** Unique among running containers. */
  readonly id: string;
  readonly args: readonly string[];
}

export interface Saved {
  /** From the request until the answer, in milliseconds. */
  readonly ms: number;
  /** How long the container stood still by the system's own account, when it has one. */
  readonly frozenMs: number | undefined;
  /** What the checkpoint takes on the store. */
  readonly bytes: number;
}

export interface Running {
  /** Host pid of the container's first process, also after a restore. */
  readonly pid: number;
  /** Saves it, lets it run on, and throws the checkpoint away. */
  snapshot(): Promise<Saved>;
  /** Saves and ends it. */
  stop(): Promise<Saved>;
  /** Brings back what stop() saved; milliseconds until it runs. */
  restore(): Promise<number>;
  remove(): Promise<void>;
}

export interface System {
  readonly name: string;
  /** Peak resident memory in MiB since the start, for those that have a process of their own. */
  peakMiB?(): number;
  start(command: Command): Promise<Running>;
  close(): Promise<void>;
}
