/** The description of an imported checkpoint: a few words of the archive's, cut to a size and a shape, for people to read. */
import { basename } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { parseContainerId, type ContainerId, type OperationId } from '../../core/ids.ts';
import type { Received } from '../../image/archive/index.ts';
import type { CriuImageSummary } from '../../image/types.ts';
import type { Description } from '../../repository/types.ts';
import { parseSpec } from '../../runtime/index.ts';
import type { OciSpec, RuntimeName } from '../../runtime/types.ts';
import { IMAGES_PREFIX } from '../checkpoint/in-progress.ts';
import { DESCRIPTION_VERSION, type PodDescription, type SavedContainer } from '../description.ts';
import type { Phase } from '../operation.ts';
import type { ImportRequest } from './import.ts';

export const ROOTFS_PREFIX = 'containers/0/rootfs/';
export const SHM_PREFIX = 'volumes/0/';

/** Words of the archive are kept this long, lists this many. */
const MAX_TEXT = 1000;
const MAX_LISTED = 200;

export interface ImportFacts {
  readonly request: ImportRequest;
  readonly received: Received;
  readonly images: CriuImageSummary;
  readonly archiveBytes: number;
  readonly sha256: string;
  readonly nowMs: number;
  readonly operation: OperationId;
  readonly phases: readonly Phase[];
  readonly node: string;
  readonly stasis: string;
}

export function describeImport(facts: ImportFacts): Description {
  const { request, received, images, nowMs } = facts;
  const config = object(received.documents.get('config.dump'), 'config.dump');
  const spec = displayed(received.documents.get('spec.dump'));
  const engine = engineOf(received);
  const image = text(config['rootfsImageName']);
  const notSaved = [...received.leftOut, 'which processor the programs used: the archive does not tell'];
  const description: PodDescription = {
    version: DESCRIPTION_VERSION, mode: 'stop', memoryPath: 'directory', frozenAtMs: nowMs, frozenMs: 0, phases: facts.phases, findings: [],
    pod: { name: text(config['name']) || 'imported' }, containers: [container(facts, config, spec, engine, image)], notSaved,
    provenance: {
      by: request.by, reason: request.reason, operation: facts.operation, node: facts.node, stasis: facts.stasis, kernel: '', architecture: process.arch,
      cpu: { model: '', features: [] }, criu: images.report === undefined ? '' : 'unknown', image: image === '' ? undefined : image, parent: undefined,
    },
    imported: { source: text(basename(request.source)), engine, atMs: nowMs, archiveBytes: facts.archiveBytes, sha256: facts.sha256 },
  };
  return description as unknown as Description;
}

function container({ request, received, images }: ImportFacts, config: Json, spec: OciSpec, engine: string, image: string): SavedContainer {
  const runtime: RuntimeName = basename(text(config['runtime'])) === 'crun' ? 'crun' : 'runc';
  const { rootfs, shm } = received;
  return {
    index: 0, id: containerId(config, request), name: text(config['name']) || 'imported', manager: engine, ...(image === '' ? {} : { image: { name: image } }),
    runtime, runtimeVersion: '', root: '', bundle: '', spec,
    flags: { leaveRunning: false, tcpEstablished: (images.report?.tcp.established ?? 0) > 0, fileLocks: false, extUnixSk: false, shellJob: false },
    rootfs: { saved: rootfs !== undefined, prefix: rootfs === undefined ? '' : ROOTFS_PREFIX, layout: { kind: 'plain', path: '' }, entries: rootfs?.entries ?? 0, bytes: rootfs?.dataBytes ?? 0 },
    // The one place that podman itself saves; what lies elsewhere is never written anywhere.
    volumes: shm === undefined || shm.entries <= 1 ? [] : [{ destination: '/dev/shm', prefix: SHM_PREFIX, fstype: 'tmpfs', entries: shm.entries, bytes: shm.dataBytes }],
    images: { ...images, prefix: IMAGES_PREFIX }, pidAtDump: 0,
  };
}

type Json = Readonly<Record<string, unknown>>;

function object(value: unknown, what: string): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
  throw new StasisError('ARCHIVE_INVALID', `${what} of the archive is no JSON object`);
}

/** Printable, and not too long: it is shown in terminals and tables. */
function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, MAX_TEXT).replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '?') : '';
}

function containerId(config: Json, request: ImportRequest): ContainerId {
  try {
    return parseContainerId(text(config['id']));
  } catch {
    return parseContainerId(`imported-${request.checkpoint}`);
  }
}

function engineOf({ documents }: Received): string {
  const annotations = object(object(documents.get('spec.dump'), 'spec.dump')['annotations'] ?? {}, 'the annotations in spec.dump');
  const manager = annotations['io.container.manager'];
  if (manager === 'libpod') return 'podman';
  if (manager === 'cri-o') return 'cri-o';
  return 'io.kubernetes.cri.container-name' in annotations || documents.has('status.dump') ? 'containerd' : 'unknown';
}

/** What was run, and where things were mounted: to be looked at, and to be compared with the bundle. Nothing that grants anything. */
function displayed(value: unknown): OciSpec {
  let spec: OciSpec;
  try {
    spec = parseSpec(value);
  } catch (error) {
    throw new StasisError('ARCHIVE_INVALID', `spec.dump of the archive ${(error as Error).message}`, { cause: error });
  }
  const { process: program, mounts = [] } = spec;
  return {
    hostname: text(spec.hostname),
    process: { args: list(program?.args).map(text), cwd: text(program?.cwd) },
    mounts: mounts.slice(0, MAX_LISTED).map(({ destination, type, options }) => ({ destination: text(destination), ...(type === undefined ? {} : { type: text(type) }), options: list(options).map(text) })),
  };
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value.slice(0, MAX_LISTED) : [];
}
