/**
 * Between the messages of protobuf and the types of api.ts: enum names lose their prefix (MEMORY_PATH_PAGE_SERVER is
 * 'page-server', …_UNSPECIFIED is absent), absent messages and the marks of optional fields are left out, integers must
 * be safe. A oneof is called "type" in our files, so that a decoded message tells its variant as the types do.
 */
import type { PackageDefinition } from '@grpc/proto-loader';
import { invariant } from '../core/assert.ts';
import { StasisError } from '../core/errors.ts';
import type { Bounds } from './bounds.ts';

export interface Codec {
  toWire(message: string, value: object): object;
  /** Throws USAGE for what the types do not allow, or is beyond the bounds. */
  fromWire(message: string, value: object, bounds?: Bounds): object;
}

interface Field {
  readonly name: string;
  readonly label: string;
  readonly type: string;
  readonly typeName: string;
}

type Plain = Readonly<Record<string, unknown>>;

const integers = new Set(['TYPE_INT32', 'TYPE_INT64', 'TYPE_UINT32', 'TYPE_UINT64']);

/** Messages are named without the package ("CheckpointRequest"). */
export function createCodec(types: PackageDefinition, packageName: string): Codec {
  const fields = new Map<string, readonly Field[]>();
  const fieldsOf = (message: string): readonly Field[] => {
    const known = fields.get(message);
    if (known !== undefined) return known;
    const definition = types[`${packageName}.${message}`];
    invariant(definition !== undefined && 'format' in definition, `proto/ has no message ${message}`);
    const list = (definition as unknown as { type: { field: Field[] } }).type.field;
    fields.set(message, list);
    return list;
  };

  const convert = (message: string, value: object, scalar: (field: Field, value: unknown) => unknown, bounds?: Bounds): Record<string, unknown> => {
    const result: Record<string, unknown> = {};
    const variant = (value as Plain)['type'];
    if (typeof variant === 'string' && (value as Plain)[variant] !== undefined) result['type'] = variant;
    for (const field of fieldsOf(message)) {
      const given = (value as Plain)[field.name];
      if (given === undefined || given === null) continue;
      if (field.label === 'LABEL_REPEATED') bounds?.repeated(message, field.name, (given as unknown[]).length);
      const one = (item: unknown): unknown => {
        if (field.type === 'TYPE_MESSAGE') return convert(field.typeName, item as object, scalar, bounds);
        if (typeof item === 'string') bounds?.text(message, field.name, item);
        return scalar(field, item);
      };
      const converted = field.label === 'LABEL_REPEATED' ? (given as unknown[]).map(one) : one(given);
      if (converted !== undefined) result[field.name] = converted;
    }
    return result;
  };

  return {
    toWire: (message, value) => convert(message, value, scalarToWire),
    fromWire: (message, value, bounds) => convert(message, value, scalarFromWire, bounds),
  };
}

function scalarToWire(field: Field, value: unknown): unknown {
  if (field.type === 'TYPE_ENUM') return `${prefix(field)}${String(value).replaceAll('-', '_').toUpperCase()}`;
  if (integers.has(field.type)) return Math.round(safe(field, value));
  return value;
}

function scalarFromWire(field: Field, value: unknown): unknown {
  if (integers.has(field.type)) return safe(field, value);
  if (field.type !== 'TYPE_ENUM') return value;
  // A value that this version does not know arrives as its number.
  if (typeof value !== 'string') throw new StasisError('USAGE', `${field.name} has the unknown value ${String(value)}`, { hint: 'agent and client are of different versions' });
  const name = value.slice(prefix(field).length);
  return name === 'UNSPECIFIED' ? undefined : name.replaceAll('_', '-').toLowerCase();
}

function safe(field: Field, value: unknown): number {
  const number = Number(value);
  if (Math.abs(number) <= Number.MAX_SAFE_INTEGER) return number;
  throw new StasisError('USAGE', `${field.name} cannot be ${String(value)}: it is beyond what is counted exactly`, { hint: `the largest is ${Number.MAX_SAFE_INTEGER}` });
}

/** "OperationKind" → "OPERATION_KIND_". */
function prefix(field: Field): string {
  return `${field.typeName.replaceAll(/(?<=[a-z])[A-Z]/g, '_$&').toUpperCase()}_`;
}
