/**
 * Errors on the wire: the gRPC status of the error table, and in the trailers "stasis-error-bin" with code, message,
 * hint and details (stasis.agent.v1.Error). What other software answers is mapped by its status alone.
 */
import { Metadata, status } from '@grpc/grpc-js';
import { errorTable, isErrorCode, StasisError } from '../core/errors.ts';
import type { ErrorCode } from '../core/errors.ts';
import type { Detail, ErrorInfo } from './api.ts';

const TRAILER = 'stasis-error-bin';

/** Trailers are HTTP/2 headers, which peers bound to 8 or 16 KiB: longer texts are cut, the log has them whole. */
const MAX_TEXT = 2000;
const MAX_DETAILS = 16;
const MAX_DETAIL_TEXT = 200;

/** What grpc-js takes and gives for a failed call. */
export interface Failure extends Error {
  readonly code: number;
  readonly details: string;
  readonly metadata?: Metadata;
}

export interface ErrorCodec {
  encode(info: ErrorInfo): Buffer;
  decode(bytes: Buffer): ErrorInfo;
}

/** An error as it goes into messages (Operation.error) and trailers. */
export function errorInfo(error: StasisError): ErrorInfo {
  const hint = error.hint === undefined ? {} : { hint: cut(error.hint, MAX_TEXT) };
  const details = Object.entries(error.details).slice(0, MAX_DETAILS).map(([name, value]) => detail(name, value));
  return { code: error.code, message: cut(error.message, MAX_TEXT), ...hint, details };
}

/** Back again. A code that this version does not know becomes INTERNAL and stays in the message. */
export function errorOfInfo(info: ErrorInfo): StasisError {
  const code: ErrorCode = isErrorCode(info.code) ? info.code : 'INTERNAL';
  const details = Object.fromEntries(info.details.map((item) => [item.name, valueOf(item)]));
  return new StasisError(code, code === info.code ? info.message : `${info.code}: ${info.message}`, { hint: info.hint, details });
}

export function statusOf(error: StasisError, codec: ErrorCodec): Failure {
  const metadata = new Metadata();
  metadata.set(TRAILER, codec.encode(errorInfo(error)));
  // The table has the numbers, so that core need not know gRPC.
  const code: number = errorTable[error.code].grpc;
  const fields = { code, details: cut(error.message, MAX_TEXT), metadata };
  return Object.assign(new Error(error.message), fields);
}

const codesByStatus: Readonly<Partial<Record<number, ErrorCode>>> = {
  [status.CANCELLED]: 'CANCELLED',
  [status.INVALID_ARGUMENT]: 'USAGE',
  [status.DEADLINE_EXCEEDED]: 'DEADLINE_EXCEEDED',
  [status.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [status.RESOURCE_EXHAUSTED]: 'LIMIT_EXCEEDED',
  [status.UNAVAILABLE]: 'AGENT_UNREACHABLE',
  [status.UNAUTHENTICATED]: 'UNAUTHENTICATED',
};

/** What a client makes of a failed call; `peer` is the address that it called. */
export function errorOf(failure: Failure, peer: string, codec: ErrorCodec): StasisError {
  const [bytes] = failure.metadata?.get(TRAILER) ?? [];
  if (Buffer.isBuffer(bytes)) {
    try {
      return errorOfInfo(codec.decode(bytes));
    } catch {
      // Not ours after all: the status has to do.
    }
  }
  if (failure.code === UNAVAILABLE) return unreachable(failure, peer);
  if (failure.code === UNIMPLEMENTED) {
    return new StasisError('INTERNAL', `the agent at ${peer} does not know this call`, { cause: failure, hint: 'agent and client are of different versions' });
  }
  return new StasisError(codesByStatus[failure.code] ?? 'INTERNAL', `${peer}: ${failure.details || failure.message}`, { cause: failure });
}

/** Plain numbers, as they come with a failure. */
const UNAVAILABLE: number = status.UNAVAILABLE;
const UNIMPLEMENTED: number = status.UNIMPLEMENTED;

const certificateTrouble = /certificate|alert|self[- ]signed|ssl routines|altname|handshake/i;

function unreachable(failure: Failure, peer: string): StasisError {
  const text = failure.details || failure.message;
  const why = /\b(ENOENT|EACCES|ECONNREFUSED|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN)\b/.exec(text)?.[1];
  if (why === undefined && certificateTrouble.test(text)) {
    return new StasisError('UNAUTHENTICATED', `no TLS connection to the agent at ${peer}: ${text}`, { cause: failure, hint: 'check that both certificates are valid now, signed by the other side\'s CA, and that the name fits (--tls-server-name)' });
  }
  const hint = why === 'EACCES' ? 'only root may use the agent\'s socket: use sudo'
    : why === 'ENOENT' || why === 'ECONNREFUSED' ? 'is stasis-agent running there? (--socket or --address name another place)'
    : 'check the address, the network and that stasis-agent is running';
  return new StasisError('AGENT_UNREACHABLE', `no agent answers at ${peer}: ${why ?? text}`, { cause: failure, hint });
}

function detail(name: string, value: string | number | boolean): Detail {
  if (typeof value === 'number') return { name, type: 'number', number: value };
  if (typeof value === 'boolean') return { name, type: 'flag', flag: value };
  return { name, type: 'text', text: cut(value, MAX_DETAIL_TEXT) };
}

function valueOf(item: Detail): string | number | boolean {
  return item.type === 'text' ? item.text : item.type === 'number' ? item.number : item.flag;
}

/** Messages may quote what strangers chose: no terminal escapes, no turned writing direction. */
function cut(text: string, length: number): string {
  const clean = text.slice(0, length).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
  return text.length <= length ? clean : `${clean.slice(0, length - 1)}…`;
}
