/**
 * A test double on purpose: handlers that follow a script instead of touching containers, so that the tests of the
 * transport and of the command line can provoke every answer. The real handlers are tested with real containers elsewhere.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { StasisError } from '../../src/core/errors.ts';
import type { ExportResult, ImportResult } from '../../src/rpc/archives.ts';
import type { AgentHandlers, CallContext, CheckpointInfo, CheckRepositoryReport, PruneRepositoryReport, RepositoryStatsResponse, CheckpointRequest, CheckpointResult, ContainerInfo, GetKeysResponse, LineageKeyInfo, Node, Operation, Progress, RestoreResult, VerifyReport } from '../../src/rpc/api.ts';

export const progress = (more: Partial<Progress> = {}): Progress => ({
  operationId: 'op-1', kind: 'checkpoint', step: 'dump', stepNumber: 3, stepCount: 7,
  bytesDone: 512 * 1024 * 1024, bytesTotal: 2 * 1024 ** 3, bytesPerSecond: 400 * 1024 * 1024, elapsedMs: 1300, frozen: true, ...more,
});

export const checkpointRequest: CheckpointRequest = {
  container: 'web', runtime: 'runc', operationId: 'op-7', reason: 'test', leaveRunning: true, tcpEstablished: true, fileLocks: false, extUnixSk: false, shellJob: false,
  memoryPath: 'page-server', preDump: 'auto', rehearsal: 'always', tcpSkipInFlight: true, allowDifference: ['nice'], freezeBudgetMs: 5000, deadlineMs: 60_000, newLineage: false, keep: false,
};

export const checkpointResult: CheckpointResult = {
  operationId: 'op-1', checkpoint: '0g1k5d7h8wk3m2n4p6q8', lineage: 'ab'.repeat(16), parent: '0g1k5d7h8wk3m2n4p6q7', container: 'web',
  phases: [{ name: 'freeze', ms: 12.5 }, { name: 'dump', ms: 900 }], frozenMs: 912.5, totalMs: 2100.25,
  bytes: { raw: 2 * 1024 ** 3, zero: 1024 ** 3, reused: 1024 ** 2, stored: 300 * 1024 ** 2 }, ratio: 6.8, bytesPerSecond: 1024 ** 3, memoryPath: 'page-server',
  findings: [{ severity: 'warning', kind: 'space', message: 'the repository is nearly full', hint: 'free some space', pid: 7 }],
  notIncluded: ['the bind mount /data of the host'], leftRunning: true, cipher: 'xchacha20-poly1305',
  preDumpRounds: [{ pages: 524_288, ms: 1800.5, frozenMs: 210 }], plainBecause: 'round 2 failed', rehearsal: { done: false, ms: 0, reason: 'not asked for' },
};

export const restoreResult: RestoreResult = {
  operationId: 'op-2', checkpoint: checkpointResult.checkpoint, container: 'web', runtime: 'runc', bundle: '/run/stasis/bundles/web', pid: 4711,
  phases: [{ name: 'extract', ms: 400 }], totalMs: 800, bytes: 2 * 1024 ** 3, bytesRead: 300 * 1024 ** 2, bytesPerSecond: 1024 ** 3, downtimeMs: 5000, findings: [], lazyBytes: 0,
};

export const container: ContainerInfo = {
  id: 'web', name: 'web-1', runtime: 'runc', root: '/run/runc', manager: 'plain', status: 'running', pid: 4711, bundle: '/srv/web', createdMs: 1_700_000_000_000,
  rootfs: 'overlay', processes: 3, memoryBytes: 64 * 1024 ** 2, checkpointable: true, findings: [],
};

export const hopeless: ContainerInfo = {
  ...container, id: 'gpu', name: 'gpu', checkpointable: false, operationId: 'op-9',
  findings: [{ severity: 'fatal', kind: 'io_uring', message: 'pid 9 (db) uses io_uring, descriptor 4', hint: 'turn io_uring off in the program', pid: 9 }],
};

export const checkpointInfo: CheckpointInfo = {
  id: checkpointResult.checkpoint, lineage: checkpointResult.lineage, createdMs: 1_700_000_000_000, node: 'node-1',
  containers: [{ id: 'web', name: 'web-1', runtime: 'runc', manager: 'plain', rootfs: 'overlay' }], reason: 'before the upgrade', principal: 'local',
  cipher: 'xchacha20-poly1305', signer: 'cd'.repeat(32), bytes: checkpointResult.bytes, frozenMs: 912.5, leftRunning: true, imported: false, pinned: false,
};

export const exportResult: ExportResult = { operationId: 'op-3', checkpoint: checkpointResult.checkpoint, bytes: 3, totalMs: 12, notIncluded: ['the volume /data'] };

export const importResult: ImportResult = {
  operationId: 'op-4', checkpoint: checkpointResult.checkpoint, lineage: checkpointResult.lineage, container: 'web', engine: 'podman', archiveBytes: 5, bytes: checkpointResult.bytes, totalMs: 30, notIncluded: ['"ctr.log" of the archive'],
};

export const report: VerifyReport = { checkpoint: checkpointInfo.id, ok: true, objects: 5, chunks: 600, bytes: 300 * 1024 ** 2, problems: [], totalMs: 700 };

export const repositoryStats: RepositoryStatsResponse = {
  checkpoints: 3, lineages: 2, pins: 1, packs: 9, bytes: 400 * 1024 ** 2, packBytes: 399 * 1024 ** 2, loosePacks: 1, looseBytes: 1024, saved: checkpointResult.bytes, unreadable: 1, quotaBytes: 1024 ** 3,
};

export const checkReport: CheckRepositoryReport = {
  checkpoints: 3, sealed: 1, objects: 14, bytes: 400 * 1024 ** 2, totalMs: 900, loosePacks: 2, looseBytes: 2048,
  problems: [{ object: 'packs/0g1k5d7h8wk3m2n4p6q8-0011223344556677', code: 'OBJECT_MISSING', message: 'it is not in the store' }],
};

export const pruneReport: PruneRepositoryReport = {
  dryRun: false, expired: [{ checkpoint: checkpointInfo.id, reason: 'age', storedBytes: 1024 }], packs: 4, bytes: 4 * 1024 ** 2, keys: 1, fenced: 1, marks: 2, manifests: 0,
  kept: [{ lineage: 'ab'.repeat(16), packs: 2, bytes: 2048, reason: 'in use' }], problems: [], totalMs: 300,
};

export const operation: Operation = {
  id: 'op-1', kind: 'checkpoint', state: 'running', container: 'web', checkpoint: checkpointInfo.id, principal: 'local', reason: '', startedMs: 1_700_000_000_000, progress: progress(),
};

export const node: Node = {
  name: 'node-1', agentVersion: '0.1.0', startedMs: 1_700_000_000_000, kernel: '6.12.0', architecture: 'x64', criuVersion: '4.2.1',
  runtimes: [{ name: 'runc', binary: '/usr/sbin/runc', version: '1.3.6', roots: ['/run/runc'] }], features: [{ name: 'mem_dirty_track', available: true }, { name: 'uffd', available: false }],
  problems: [], limits: { parallelOperations: 2, freezeBudgetMs: 60_000, stopBudgetMs: 600_000, ghostLimitBytes: 64 * 1024 ** 2 },
  keys: { signer: 'ab'.repeat(32), recipient: 'cd'.repeat(32), trustedSigners: [] }, staging: { sizeBytes: 1024 ** 3, usedBytes: 0 },
  repository: { description: 'directory:/var/lib/stasis/repository', cipher: 'xchacha20-poly1305', plaintextFor: ['dev/*'], freeBytes: 10 * 1024 ** 3 }, operationsRunning: 0, callerRoles: [],
};

export const nodeKeys: GetKeysResponse = {
  provider: 'key file /var/lib/stasis/keys/node.key', signer: 'ab'.repeat(32), formerSigners: [], own: ['cd'.repeat(32)], recipients: ['cd'.repeat(32), 'ee'.repeat(32)], trustedSigners: ['99'.repeat(32)],
};

export const lineageKey: LineageKeyInfo = {
  lineage: 'ab'.repeat(16), epoch: 1, recipients: ['cd'.repeat(32), '77'.repeat(32)], signer: 'ab'.repeat(32), ended: false, openable: true, checkpoints: [checkpointInfo.id],
};

export interface Script {
  /** What was called, with what, and what became of the signal. */
  readonly calls: { method: string; request: object; context: CallContext }[];
  readonly handlers: AgentHandlers;
}

/**
 * The container (or checkpoint) named in a request chooses what happens: "missing" does not exist, "slow" makes progress
 * until cancelled, "stuck" waits and looks at nothing, "boom" throws a plain Error, "flood" sends without end, "huge"
 * answers more than any client takes, anything else goes well.
 */
export function scriptedAgent(): Script {
  const calls: Script['calls'] = [];
  const cancelled = new Map<string, () => void>();
  const note = (method: string, request: object, context: CallContext): void => void calls.push({ method, request, context });

  async function* play<T extends object>(what: string, operationId: string | undefined, kind: Progress['kind'], last: T, context: CallContext): AsyncGenerator<T | { type: 'progress'; progress: Progress }> {
    const id = operationId ?? 'op-1';
    if (what === 'missing') throw new StasisError('CONTAINER_NOT_FOUND', 'there is no container "missing" on this node', { hint: 'stasis ps lists them', details: { container: 'missing', tries: 2, sure: true } });
    if (what === 'boom') throw new Error('the secret path /root/x');
    if (what === 'stuck') await new Promise(() => undefined);
    if (what === 'damaged') throw new StasisError('OBJECT_CORRUPT', 'pack 17 is damaged at byte 4096');
    const times = what === 'slow' || what === 'flood' ? Infinity : 3;
    for (let i = 1; i <= times; i++) {
      yield { type: 'progress', progress: progress({ operationId: id, kind, stepNumber: Math.min(i, 7), bytesDone: i * 1024 ** 2 }) };
      if (what === 'flood') continue;
      const stop = new AbortController();
      cancelled.set(id, () => stop.abort(new StasisError('CANCELLED', `operation ${id} was cancelled`)));
      await delay(what === 'slow' ? 50 : 5, undefined, { signal: AbortSignal.any([context.signal, stop.signal]) }).catch(() => {
        throw (stop.signal.aborted ? stop.signal : context.signal).reason;
      });
    }
    yield last;
  }

  const handlers: AgentHandlers = {
    checkpoint: (request, context) => {
      note('checkpoint', request, context);
      return play(request.container, request.operationId, 'checkpoint', { type: 'result' as const, result: { ...checkpointResult, operationId: request.operationId ?? 'op-1', ...(request.container === 'open' ? { cipher: 'null' } : {}) } }, context);
    },
    restore: (request, context) => {
      note('restore', request, context);
      return play(request.checkpoint, request.operationId, 'restore', { type: 'result' as const, result: { ...restoreResult, container: request.container ?? 'web' } }, context);
    },
    listContainers: async (request, context) => {
      note('listContainers', request, context);
      if (request.container === 'huge') return { containers: Array.from({ length: 20_000 }, () => ({ ...container, bundle: 'x'.repeat(1000) })) };
      return { containers: request.container === 'none' ? [] : [container, hopeless] };
    },
    listCheckpoints: async (request, context) => {
      note('listCheckpoints', request, context);
      return request.pageToken === ''
        ? { checkpoints: [request.container === 'open' ? { ...checkpointInfo, cipher: 'null' } : checkpointInfo], problems: [], nextPageToken: 'more' }
        : { checkpoints: [{ ...checkpointInfo, id: `${checkpointInfo.id.slice(0, -1)}0` }], problems: [{ object: 'manifests/x', code: 'OBJECT_CORRUPT', message: 'the seal is broken' }], nextPageToken: '' };
    },
    inspectCheckpoint: async (request, context) => {
      note('inspectCheckpoint', request, context);
      if (request.checkpoint === 'missing') throw new StasisError('CHECKPOINT_NOT_FOUND', 'there is no checkpoint "missing"', { hint: 'stasis list shows them' });
      if (request.checkpoint === 'boom') throw new Error('the secret path /root/x');
      return {
        info: checkpointInfo, phases: checkpointResult.phases, findings: checkpointResult.findings, notIncluded: checkpointResult.notIncluded,
        provenance: { agentVersion: '0.1.0', criuVersion: '4.2.1', runtimeVersion: '1.3.6', kernel: '6.12.0', architecture: 'x64', cpuModel: 'a processor', cpuFeatures: ['avx2'], imageDigest: `sha256:${'0'.repeat(64)}` },
        blobs: [{ name: 'containers/0/criu/pages-1.img', length: 2 * 1024 ** 3 }], descriptionJson: '{"version":1}',
      };
    },
    verifyCheckpoint: (request, context) => {
      note('verifyCheckpoint', request, context);
      const problems = request.checkpoint === 'rotten' ? [{ object: 'packs/17', code: 'OBJECT_CORRUPT', message: 'chunk 3 does not open' }] : [];
      return play(request.checkpoint, request.operationId, 'verify', { type: 'report' as const, report: { ...report, ok: problems.length === 0, problems } }, context);
    },
    deleteCheckpoint: async (request, context) => {
      note('deleteCheckpoint', request, context);
      if (request.checkpoint === 'missing') throw new StasisError('CHECKPOINT_NOT_FOUND', 'there is no checkpoint "missing"');
      return { checkpoint: request.checkpoint };
    },
    watchOperations: async function* (request, context) {
      note('watchOperations', request, context);
      yield { type: 'snapshot' as const, snapshot: { operations: [operation] } };
      yield { type: 'changed' as const, changed: { ...operation, state: 'failed' as const, finishedMs: 1_700_000_002_000, error: { code: 'DUMP_FAILED', message: 'pid 9 has a socket', hint: 'use --tcp-established', details: [] } } };
      if (request.operationId === undefined) await delay(60_000, undefined, { signal: context.signal });
    },
    cancelOperation: async (request, context) => {
      note('cancelOperation', request, context);
      const stop = cancelled.get(request.operationId);
      if (stop === undefined) throw new StasisError('OPERATION_NOT_FOUND', `there is no operation ${request.operationId}`);
      stop();
      return { ...operation, id: request.operationId, state: 'cancelled' };
    },
    exportCheckpoint: async function* (request, context) {
      note('exportCheckpoint', request, context);
      yield { type: 'progress' as const, progress: progress({ kind: 'export' }) };
      if (request.checkpoint === 'damaged') {
        yield { type: 'data' as const, data: { bytes: Buffer.from('hal') } };
        throw new StasisError('OBJECT_CORRUPT', 'pack 17 is damaged at byte 4096');
      }
      for (const text of ['a', 'b', 'c']) yield { type: 'data' as const, data: { bytes: Buffer.from(text) } };
      yield { type: 'result' as const, result: exportResult };
    },
    importCheckpoint: async function* (messages, context) {
      let received = '';
      let start: object = {};
      for await (const message of messages) {
        if (message.type === 'start') start = message.start;
        else received += Buffer.from(message.data.bytes).toString();
        if (received.startsWith('bad')) throw new StasisError('ARCHIVE_INVALID', 'the archive is no tar file');
      }
      note('importCheckpoint', { ...start, received }, context);
      yield { type: 'progress' as const, progress: progress({ kind: 'import' }) };
      yield { type: 'result' as const, result: importResult };
    },
    pinCheckpoint: async (request, context) => {
      note('pinCheckpoint', request, context);
      return { checkpoint: request.checkpoint, pinned: request.pinned };
    },
    repositoryStats: async (request, context) => {
      note('repositoryStats', request, context);
      return repositoryStats;
    },
    checkRepository: async function* (request, context) {
      note('checkRepository', request, context);
      yield { type: 'progress' as const, progress: progress({ kind: 'check', step: 'check', frozen: false }) };
      yield { type: 'report' as const, report: checkReport };
    },
    pruneRepository: async function* (request, context) {
      note('pruneRepository', request, context);
      yield { type: 'report' as const, report: { ...pruneReport, dryRun: request.dryRun } };
    },
    getKeys: async (request, context) => {
      note('getKeys', request, context);
      return nodeKeys;
    },
    listLineageKeys: async (request, context) => {
      note('listLineageKeys', request, context);
      return { keys: [lineageKey, { ...lineageKey, lineage: 'ef'.repeat(16), epoch: 4, openable: false, ended: true, checkpoints: [] }], problems: [{ object: `lineages/${'01'.repeat(16)}`, code: 'SIGNER_UNTRUSTED', message: 'it is signed by a stranger' }] };
    },
    changeRecipients: async function* (request, context) {
      note('changeRecipients', request, context);
      yield { type: 'progress' as const, progress: progress({ kind: 'rotate', step: 'rotate', frozen: false }) };
      const damaged = request.reason === 'damaged';
      yield { type: 'report' as const, report: { dryRun: request.dryRun, changed: [lineageKey.lineage], unchanged: 2, sealed: damaged ? ['ef'.repeat(16)] : [], problems: damaged ? [{ object: 'lineages/x', code: 'SIGNER_UNTRUSTED', message: 'it is signed by a stranger' }] : [], totalMs: 20 } };
    },
    shredLineages: async (request, context) => {
      note('shredLineages', request, context);
      return { shredded: request.lineages.map((lineage) => ({ lineage, checkpoints: [checkpointInfo.id], pinned: [checkpointInfo.id] })) };
    },
    probeStore: async (request, context) => {
      note('probeStore', request, context);
      const check = { name: 'put', required: true, outcome: 'passed' as const, message: 'objects can be written', tookMs: 12 };
      return {
        store: 's3:bucket/prefix', usable: false, putLatencyUs: 4000, getLatencyUs: 2000, putBytesPerSecond: 1 << 20, getBytesPerSecond: 2 << 20,
        checks: [check, { name: 'conditional put', required: false, outcome: 'absent' as const, message: 'the store does not have it', tookMs: 1 }, { ...check, name: 'delete', outcome: 'failed' as const, message: 'cannot delete packs/a: AccessDenied' }],
      };
    },
    getNode: async (request, context) => {
      note('getNode', request, context);
      return { ...node, callerRoles: [...context.caller.roles] };
    },
  };
  return { calls, handlers };
}
