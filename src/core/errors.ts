/**
 * The one error table of Stasis. Every failure that reaches a user carries a code from here;
 * docs/ERRORS.md lists the same codes and a test keeps the two equal.
 *
 * `grpc` is the numeric gRPC status (grpc/grpc doc/statuscodes.md), `exit` the exit status of the
 * command line, `retry` tells whether the same request may succeed later without a change.
 */
export const errorTable = {
  INTERNAL: { grpc: 13, exit: 1, retry: false },
  USAGE: { grpc: 3, exit: 2, retry: false },
  CONFIG_INVALID: { grpc: 9, exit: 3, retry: false },
  AGENT_UNREACHABLE: { grpc: 14, exit: 4, retry: true },
  AGENT_ALREADY_RUNNING: { grpc: 6, exit: 5, retry: false },
  HOST_UNSUPPORTED: { grpc: 9, exit: 6, retry: false },
  CONTAINER_NOT_FOUND: { grpc: 5, exit: 10, retry: false },
  CHECKPOINT_NOT_FOUND: { grpc: 5, exit: 10, retry: false },
  OPERATION_NOT_FOUND: { grpc: 5, exit: 10, retry: false },
  CONTAINER_EXISTS: { grpc: 6, exit: 11, retry: false },
  CHECKPOINT_IN_USE: { grpc: 9, exit: 11, retry: false },
  CONTAINER_BUSY: { grpc: 10, exit: 12, retry: true },
  AGENT_BUSY: { grpc: 8, exit: 12, retry: true },
  AGENT_STOPPING: { grpc: 14, exit: 12, retry: true },
  NOT_CHECKPOINTABLE: { grpc: 9, exit: 13, retry: false },
  PERMISSION_DENIED: { grpc: 7, exit: 14, retry: false },
  UNAUTHENTICATED: { grpc: 16, exit: 14, retry: false },
  NO_SPACE: { grpc: 8, exit: 15, retry: true },
  NO_MEMORY: { grpc: 8, exit: 15, retry: true },
  DEADLINE_EXCEEDED: { grpc: 4, exit: 16, retry: true },
  FREEZE_BUDGET_EXCEEDED: { grpc: 4, exit: 16, retry: true },
  CANCELLED: { grpc: 1, exit: 17, retry: false },
  CONTAINER_EXITED: { grpc: 10, exit: 18, retry: false },
  DUMP_FAILED: { grpc: 9, exit: 18, retry: false },
  REHEARSAL_FAILED: { grpc: 9, exit: 21, retry: false },
  RESTORE_FAILED: { grpc: 9, exit: 19, retry: false },
  RESTORE_INCOMPATIBLE: { grpc: 9, exit: 19, retry: false },
  RESTORE_DIFFERS: { grpc: 9, exit: 19, retry: false },
  RUNTIME_FAILED: { grpc: 13, exit: 19, retry: false },
  WRITER_FENCED: { grpc: 10, exit: 20, retry: true },
  STORE_UNAVAILABLE: { grpc: 14, exit: 20, retry: true },
  STORE_READ_ONLY: { grpc: 9, exit: 20, retry: false },
  STORE_UNFIT: { grpc: 9, exit: 20, retry: false },
  OBJECT_CORRUPT: { grpc: 15, exit: 30, retry: false },
  OBJECT_MISSING: { grpc: 15, exit: 30, retry: false },
  FORMAT_UNSUPPORTED: { grpc: 9, exit: 30, retry: false },
  KEY_MISSING: { grpc: 9, exit: 31, retry: false },
  KEY_WRONG: { grpc: 9, exit: 31, retry: false },
  KEY_UNAVAILABLE: { grpc: 14, exit: 31, retry: true },
  SIGNER_UNTRUSTED: { grpc: 7, exit: 31, retry: false },
  SIGNATURE_INVALID: { grpc: 15, exit: 31, retry: false },
  PATH_ESCAPES: { grpc: 3, exit: 32, retry: false },
  ARCHIVE_INVALID: { grpc: 3, exit: 34, retry: false },
  LIMIT_EXCEEDED: { grpc: 8, exit: 33, retry: false },
} as const;

export type ErrorCode = keyof typeof errorTable;

export interface ErrorDetails {
  /** What the reader can do about it, one sentence. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
  /** Machine-readable fields: names of objects, pids, sizes. Never a secret. */
  readonly details?: Readonly<Record<string, string | number | boolean>> | undefined;
}

/** Message: what failed, with the values. Wrap once at each boundary and keep the cause. */
export class StasisError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, string | number | boolean>>;

  constructor(code: ErrorCode, message: string, more: ErrorDetails = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'StasisError';
    this.code = code;
    this.hint = more.hint;
    this.details = more.details ?? {};
  }
}

export function isStasisError(error: unknown, code?: ErrorCode): error is StasisError {
  return error instanceof StasisError && (code === undefined || error.code === code);
}

export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(errorTable, value);
}

/** The system error code (`ENOENT`, `ENOSPC`, …) of an error thrown by Node.js, if it is one. */
export function errnoCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return error instanceof Error && !(error instanceof StasisError) && typeof code === 'string' ? code : undefined;
}

/**
 * Turns whatever was thrown into a StasisError. System errors get the code that fits;
 * anything unknown is INTERNAL, with `what` as the start of the message.
 */
export function asStasisError(error: unknown, what: string): StasisError {
  if (error instanceof StasisError) return error;
  // What went wrong first is the cause; what went wrong while cleaning up after it is not.
  if (error instanceof SuppressedError) return asStasisError(error.suppressed, what);
  const message = `${what}: ${error instanceof Error ? error.message : String(error)}`;
  if (error instanceof Error && error.name === 'AbortError') {
    const reason = (error as { cause?: unknown }).cause;
    if (reason instanceof StasisError) return reason;
    return new StasisError('CANCELLED', message, { cause: error });
  }
  switch (errnoCode(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new StasisError('NO_SPACE', message, { cause: error, hint: 'free space on that file system or raise the quota' });
    case 'EROFS':
      return new StasisError('STORE_READ_ONLY', message, { cause: error, hint: 'the file system is mounted read-only' });
    case 'ENOMEM':
      return new StasisError('NO_MEMORY', message, { cause: error });
    case 'EACCES':
    case 'EPERM':
      return new StasisError('PERMISSION_DENIED', message, { cause: error });
    default:
      return new StasisError('INTERNAL', message, { cause: error });
  }
}
