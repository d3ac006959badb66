/** The services out of proto/, loaded at run time; nothing is generated. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { MethodDefinition } from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import type { PackageDefinition } from '@grpc/proto-loader';
import { invariant } from '../core/assert.ts';

export const agentService = 'stasis.agent.v1.Agent';
export const healthService = 'grpc.health.v1.Health';
export const reflectionServices = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'] as const;

export type Methods = Readonly<Record<string, MethodDefinition<object, object>>>;

const agentFiles = ['stasis/agent/v1/agent.proto'];
export const serverFiles = [...agentFiles, 'grpc/health/v1/health.proto', 'grpc/reflection/v1/reflection.proto', 'grpc/reflection/v1alpha/reflection.proto'] as const;

export interface Definitions {
  /** By the names of the proto file ("Checkpoint"). */
  service(name: string): Methods;
  readonly types: PackageDefinition;
}

export function loadDefinitions(files: readonly string[] = agentFiles): Definitions {
  const types = protoLoader.loadSync([...files], { includeDirs: [protoDirectory()], longs: Number, enums: String, defaults: true, oneofs: true });
  return { types, service: (name) => pick(types, name) };
}

/** With the names as they are written in the files, which is what reflection must tell. */
export function loadDescriptors(): PackageDefinition {
  return protoLoader.loadSync([...serverFiles], { includeDirs: [protoDirectory()], keepCase: true });
}

function pick(types: PackageDefinition, name: string): Methods {
  const service = types[name];
  invariant(service !== undefined && !('format' in service), `proto/ has no service ${name}`);
  return service;
}

/** The sources and the compiled files lie at different depths below the package: climb until proto/ is seen. */
function protoDirectory(): string {
  for (let directory = import.meta.dirname; directory !== dirname(directory); directory = dirname(directory)) {
    const candidate = join(directory, 'proto');
    if (existsSync(join(candidate, 'stasis/agent/v1/agent.proto'))) return candidate;
  }
  throw new Error(`no proto/ beside or above ${import.meta.dirname}: the installation is not complete`);
}
