/** A tree's worker thread: everything that makes many system calls one after the other. Entry of the thread. */
import { parentPort, type MessagePort } from 'node:worker_threads';
import { invariant } from '../../core/assert.ts';
import { StasisError, asStasisError } from '../../core/errors.ts';
import { TreeBuilder } from './build.ts';
import { decodeIndex } from './decode.ts';
import type { DecodedTree } from './decode.ts';
import { encodeIndex } from './encode.ts';
import { describe } from './describe.ts';
import { decodeMemory, encodeMemory, recall } from './memory.ts';
import { BATCH_PIECES } from './limits.ts';
import type { Batch, Calls, Request, SaveSetup, WorkerSetup } from './port.ts';
import { TreeScan } from './scan.ts';

type Handlers = { [K in keyof Calls]?: (args: Calls[K]['args']) => Calls[K]['result'] };

interface Work {
  readonly handlers: Handlers;
  /** Entries of the tree so far. */
  entries(): number;
  /** Closes what is open. */
  end?(): void;
}

/** A thread that has seen more keeps more memory than it is worth. */
const KEPT_ENTRIES = 10_000;

function saving(setup: SaveSetup, checkCancelled: () => void): Work {
  const scan = new TreeScan({ root: setup.root, kind: setup.kind, userxattr: setup.userxattr, checkCancelled });
  let steps: Generator<void, void, void> | undefined;
  let remembered: ReturnType<typeof decodeMemory>;
  const next = (): Batch => {
    const { ready } = scan.planner;
    let done = false;
    while (!done && ready.length < BATCH_PIECES) done = steps?.next().done ?? true;
    return { pieces: ready.splice(0), done };
  };
  const handlers: Handlers = {
    readAhead: ({ nowMs }) => void (steps = scan.readAhead(nowMs)),
    delta: ({ nowMs, distrust }) => void (steps = scan.delta(nowMs, distrust)),
    again: () => void (steps = scan.again()),
    next,
    read: ({ number, slices }) => {
      scan.planner.taken(number).forEach((content, i) => {
        const [inode, size, mtime, ctime, torn] = slices.subarray(i * 5, i * 5 + 5) as unknown as [bigint, bigint, bigint, bigint, bigint];
        scan.readings.received(content, torn !== 0n, inode, size, mtime, ctime);
      });
    },
    counts: () => ({ files: scan.readings.roundFiles, bytes: scan.readings.roundBytes }),
    remember: ({ memory, origin }) => {
      remembered = decodeMemory(memory, origin);
      return remembered === undefined ? undefined : { used: remembered.used, dataLength: remembered.memory.dataLength };
    },
    recall: ({ lost }) => {
      invariant(remembered !== undefined, 'what is recalled was remembered');
      recall(remembered.memory, lost, scan);
      remembered = undefined;
      return { files: scan.readings.extents.contents, bytes: scan.readings.extents.length.subarray(0, scan.readings.extents.count).reduce((sum, length) => sum + length, 0) };
    },
    finish: ({ origin }) => {
      const dataLength = scan.planner.dataBytes;
      const encoded = encodeIndex({ table: scan.table, extents: scan.readings.extents, sets: scan.sets, kind: setup.kind, dataLength });
      return { ...encoded, supersededBytes: dataLength - encoded.dataBytes, warnings: scan.warnings, memory: origin === undefined ? undefined : encodeMemory(origin, { table: scan.table, readings: scan.readings, sets: scan.sets, dataLength }) };
    },
  };
  return { handlers, entries: () => scan.table.count, end: () => void steps?.return() };
}

function loading(checkCancelled: () => void): Work {
  let tree: DecodedTree | undefined;
  let builder: TreeBuilder | undefined;
  const handlers: Handlers = {
    decode: ({ index, dataLength }) => {
      tree = decodeIndex(Buffer.from(index), dataLength);
      const files = tree.extents.contents;
      const dataBytes = tree.extents.length.subarray(0, tree.extents.count).reduce((sum, length) => sum + length, 0);
      return { kind: tree.kind, entries: tree.table.count, files, dataBytes };
    },
    page: ({ from, count }) => {
      invariant(tree !== undefined, 'a tree is decoded before it is shown');
      return describe(tree, from, count);
    },
    create: (options) => {
      invariant(tree !== undefined, 'a tree is decoded before it is created');
      builder = new TreeBuilder(tree, { ...options, checkCancelled });
      return builder.create();
    },
    complete: () => {
      invariant(builder !== undefined, 'a tree is created before it is completed');
      builder.complete();
      return { warnings: builder.warnings };
    },
  };
  return { handlers, entries: () => tree?.table.count ?? 0 };
}

/** The first message is the setup: a thread is started, and kept, before anybody knows what for. */
function start(): void {
  const port = parentPort;
  invariant(port !== null, 'worker.ts is the entry of a worker thread');
  port.once('message', (setup: WorkerSetup | { role: 'none' }) => {
    if (setup.role === 'none') port.close();
    else serve(port, setup);
  });
}

function serve(port: MessagePort, setup: WorkerSetup): void {
  const checkCancelled = (): void => {
    if (Atomics.load(setup.cancel, 0) !== 0) throw new StasisError('CANCELLED', 'the work on a tree of files was cancelled');
  };
  const work = setup.role === 'save' ? saving(setup, checkCancelled) : loading(checkCancelled);
  const onMessage = (request: Request | { name: 'end' }): void => {
    if (request.name === 'end') {
      port.off('message', onMessage);
      end(port, work);
      return;
    }
    const { id, name, args } = request;
    try {
      const value = (work.handlers[name] as (args: unknown) => unknown)(args);
      if (id >= 0) port.postMessage({ id, value });
    } catch (error) {
      const { code, message, hint, details } = asStasisError(error, 'a tree of files');
      port.postMessage({ id, error: { code, message, hint, details } });
    }
  };
  port.on('message', onMessage);
}

function end(port: MessagePort, work: Work): void {
  work.end?.();
  if (work.entries() > KEPT_ENTRIES) {
    port.close();
    return;
  }
  start();
  port.postMessage({ ended: true });
}

start();
