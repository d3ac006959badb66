/** grpc.health.v1: what kubelet's gRPC probes and load balancers ask. Nobody needs a role for it. */
import { status } from '@grpc/grpc-js';
import type { UntypedServiceImplementation, sendUnaryData, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { agentService } from './definitions.ts';

type Answer = { readonly status: 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN' };
type Question = { readonly service: string };

export interface Health {
  readonly implementation: UntypedServiceImplementation;
  set(serving: boolean): void;
  /** Ends the open watches. */
  close(): void;
}

/** Whoever watches more often than this is not a load balancer. */
const MAX_WATCHES = 256;

export function createHealth(): Health {
  let serving = true;
  const watches = new Set<ServerWritableStream<Question, Answer>>();
  const known = (service: string): boolean => service === '' || service === agentService;
  const answer = (service: string): Answer => ({ status: !known(service) ? 'SERVICE_UNKNOWN' : serving ? 'SERVING' : 'NOT_SERVING' });
  return {
    implementation: {
      check: (call: ServerUnaryCall<Question, Answer>, callback: sendUnaryData<Answer>) => {
        if (known(call.request.service)) callback(null, answer(call.request.service));
        else callback({ code: status.NOT_FOUND, details: `there is no service ${call.request.service}` });
      },
      watch: (call: ServerWritableStream<Question, Answer>) => {
        if (watches.size >= MAX_WATCHES) {
          call.emit('error', Object.assign(new Error('too many watches'), { code: status.RESOURCE_EXHAUSTED }));
          return;
        }
        watches.add(call);
        call.on('cancelled', () => watches.delete(call));
        call.write(answer(call.request.service));
      },
    },
    set: (now) => {
      if (now === serving) return;
      serving = now;
      for (const call of watches) if (known(call.request.service)) call.write(answer(call.request.service));
    },
    close: () => {
      for (const call of watches) call.end();
      watches.clear();
    },
  };
}
