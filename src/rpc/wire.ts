/** The agent's service as both sides use it: its methods, and the way between their messages and the types of api.ts. */
import { requestBounds } from './bounds.ts';
import { createCodec } from './codec.ts';
import { agentService } from './definitions.ts';
import type { Definitions, Methods } from './definitions.ts';
import type { ErrorInfo } from './api.ts';
import type { MethodName } from './roles.ts';
import type { ErrorCodec } from './status.ts';

const packageName = 'stasis.agent.v1';

export interface WireMethod {
  readonly name: MethodName;
  /** For grpc-js: path, kind, and the serializers of protobuf messages. */
  readonly definition: Methods[string];
  readonly encodeRequest: (value: object) => object;
  readonly decodeRequest: (message: object) => object;
  readonly encodeResponse: (value: object) => object;
  readonly decodeResponse: (message: object) => object;
}

export interface Wire {
  readonly methods: readonly WireMethod[];
  readonly errors: ErrorCodec;
}

export function agentWire(definitions: Definitions): Wire {
  const codec = createCodec(definitions.types, packageName);
  const error = definitions.types[`${packageName}.Error`] as { serialize: (value: object) => Buffer; deserialize: (bytes: Buffer) => object };
  return {
    methods: Object.entries(definitions.service(agentService)).map(([name, definition]) => {
      const request = messageName(definition, 'requestType');
      const response = messageName(definition, 'responseType');
      return {
        name: `${name.charAt(0).toLowerCase()}${name.slice(1)}` as MethodName,
        definition,
        encodeRequest: (value) => codec.toWire(request, value),
        decodeRequest: (message) => codec.fromWire(request, message, requestBounds),
        encodeResponse: (value) => codec.toWire(response, value),
        decodeResponse: (message) => codec.fromWire(response, message),
      };
    }),
    errors: {
      encode: (info) => error.serialize(codec.toWire('Error', info)),
      decode: (bytes) => codec.fromWire('Error', error.deserialize(bytes)) as ErrorInfo,
    },
  };
}

function messageName(method: object, side: 'requestType' | 'responseType'): string {
  return (method as Record<typeof side, { type: { name: string } }>)[side].type.name;
}
