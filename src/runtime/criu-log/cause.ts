/** One row of the tables that turn CRIU's words into a cause and a remedy. */
export interface Cause {
  readonly match: RegExp;
  /** Stable word for programs; docs/LIMITS.md lists them. */
  readonly kind: string;
  /** $1, $2 stand for the groups of the match. Which process and descriptor CRIU looked at is added behind it. */
  readonly message: string;
  readonly hint: string;
}

/** For what passes by itself: data on its way, connections that nobody has accepted yet. */
export const AGAIN = 'try again in a moment; if it stays, let the program read, accept or close what waits there';
