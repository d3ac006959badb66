/** grpc.reflection.v1 and v1alpha (the same messages): tools such as grpcurl ask here what can be called. */
import { status } from '@grpc/grpc-js';
import type { ServerDuplexStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { loadDescriptors } from './definitions.ts';

interface Question {
  readonly host: string;
  readonly fileByFilename?: string;
  readonly fileContainingSymbol?: string;
  readonly fileContainingExtension?: { readonly containingType: string; readonly extensionNumber: number };
  readonly allExtensionNumbersOfType?: string;
  readonly listServices?: string;
}

interface Index {
  readonly services: readonly string[];
  readonly byFile: ReadonlyMap<string, Buffer>;
  readonly bySymbol: ReadonlyMap<string, Buffer>;
}

export function createReflection(): UntypedServiceImplementation {
  let index: Index | undefined;
  return {
    serverReflectionInfo: (call: ServerDuplexStream<Question, object>) => {
      call.on('data', (question: Question) => {
        // Loaded on the first question: most agents are never asked.
        index ??= buildIndex(loadDescriptors());
        call.write({ validHost: question.host, originalRequest: question, ...answer(index, question) });
      });
      call.on('end', () => call.end());
      call.on('error', () => undefined);
    },
  };
}

function answer(index: Index, question: Question): object {
  if (question.listServices !== undefined) return { listServicesResponse: { service: index.services.map((name) => ({ name })) } };
  if (question.fileByFilename !== undefined) return file(index.byFile.get(question.fileByFilename), question.fileByFilename);
  if (question.fileContainingSymbol !== undefined) return file(index.bySymbol.get(question.fileContainingSymbol), question.fileContainingSymbol);
  if (question.allExtensionNumbersOfType !== undefined && index.bySymbol.has(question.allExtensionNumbersOfType)) {
    return { allExtensionNumbersResponse: { baseTypeName: question.allExtensionNumbersOfType, extensionNumber: [] } };
  }
  return missing('extensions of that type');
}

function file(descriptor: Buffer | undefined, what: string): object {
  return descriptor === undefined ? missing(what) : { fileDescriptorResponse: { fileDescriptorProto: [descriptor] } };
}

function missing(what: string): object {
  return { errorResponse: { errorCode: status.NOT_FOUND, errorMessage: `there is no ${what}` } };
}

/** Every file is its own package and imports nothing, so a symbol's file is that of its package. */
function buildIndex(definitions: PackageDefinition): Index {
  const byFile = new Map<string, Buffer>();
  const bySymbol = new Map<string, Buffer>();
  const services: string[] = [];
  const files = Object.values(definitions).flatMap((definition) => ('fileDescriptorProtos' in definition ? (definition.fileDescriptorProtos as Buffer[]) : []));
  for (const bytes of files) byFile.set(textField(bytes, 1), bytes);
  const byPackage = new Map([...byFile.values()].map((bytes) => [textField(bytes, 2), bytes]));
  for (const [name, definition] of Object.entries(definitions)) {
    const bytes = byPackage.get(packageOf(name, byPackage));
    if (bytes === undefined) continue;
    bySymbol.set(name, bytes);
    if ('format' in definition) continue;
    services.push(name);
    for (const method of Object.values(definition as object)) bySymbol.set(`${name}.${(method as { originalName: string; path: string }).path.split('/')[2] ?? ''}`, bytes);
  }
  return { services: services.sort(), byFile, bySymbol };
}

function packageOf(name: string, packages: ReadonlyMap<string, Buffer>): string {
  let prefix = name;
  while (prefix !== '' && !packages.has(prefix)) prefix = prefix.slice(0, Math.max(0, prefix.lastIndexOf('.')));
  return prefix;
}

/** FileDescriptorProto begins with name (1) and package (2), both short texts: tag, one length byte, UTF-8. */
function textField(bytes: Buffer, number: number): string {
  for (let at = 0; at + 1 < bytes.length; at += 2 + (bytes[at + 1] ?? 0)) {
    if (bytes[at] === ((number << 3) | 2)) return bytes.toString('utf8', at + 2, at + 2 + (bytes[at + 1] ?? 0));
  }
  return '';
}
