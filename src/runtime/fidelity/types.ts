/** What the kernel says of a container's tasks at one instant, in a form that a later one can be compared with. */

/**
 * kept: CRIU brings it back. put-back: Stasis does. lost: nobody can; it is said before a checkpoint, and refuses
 * nothing.
 */
export type Keeper = 'kept' | 'put-back' | 'lost';

export interface Attribute {
  /** As --allow-difference takes it. */
  readonly name: string;
  readonly meaning: string;
  readonly keeper: Keeper;
  /** A difference is told and refuses nothing, because a node may have reasons of its own for it. */
  readonly noted?: true;
  /** It comes back when criu has ended, and is looked at there: criu counts among the container's processes. */
  readonly afterwards?: true;
  /** Only the process itself can ask for it: it is in no record, and cannot be compared. */
  readonly untold?: true;
  /** Of one that is in no record: how a difference is found nevertheless. */
  readonly instead?: string;
  /** Of what is lost: the kind of preflight's finding that says so before a checkpoint (docs/LIMITS.md). */
  readonly finding?: string;
}

/** A value that only the images of criu tell (blockedFromImages). */
export const FOR_A_CALL = 'for a call';

/**
 * Of one attribute: the value that most subjects have, and those that have another. A subject is a task by its pid inside the
 * container ("7"), a thread of it ("7/9"), a mount point, or "" for the container.
 */
export interface Observation {
  readonly usual: string;
  readonly others?: Readonly<Record<string, string>>;
}

/** Kept in the description of a checkpoint (docs/FORMAT-IMAGE.md). */
export interface FidelityRecord {
  readonly version: 1;
  readonly tasks: readonly string[];
  readonly threads: readonly string[];
  readonly mounts: readonly string[];
  readonly attributes: Readonly<Record<string, Observation>>;
  /** Tasks, threads or mounts beyond the bounds were left out. */
  readonly cut?: true;
}

export interface Difference {
  readonly attribute: string;
  /** As in an observation. */
  readonly subject: string;
  /** Undefined where there was, or is, nothing. */
  readonly was: string | undefined;
  readonly is: string | undefined;
}
