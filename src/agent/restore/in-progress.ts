/** A restore between prepare and finish: one method for each step. Disposing of it undoes an unfinished one. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../core/errors.ts';
import { removeTree } from '../../host/files.ts';
import { loadImages } from '../../image/criu/index.ts';
import { loadTree, loadTreeMerged } from '../../image/tree/index.ts';
import { criuConfig, findContainer, openBundle, remove, removeBundle, restore as runtimeRestore } from '../../runtime/index.ts';
import type { Bundle } from '../../runtime/index.ts';
import type { Container } from '../../runtime/types.ts';
import type { StagingArea } from '../../host/staging.ts';
import type { AgentContext } from '../context.ts';
import type { Operation } from '../operation.ts';
import { containerDirectory, outputFiles } from './container-directory.ts';
import { openLogDirectory } from '../operation-logs.ts';
import type { RestorePlan } from './restore.ts';

interface Parts {
  readonly agent: AgentContext;
  readonly plan: RestorePlan;
  readonly operation: Operation;
  readonly staging: StagingArea;
  readonly directories: { readonly images: string; readonly work: string; readonly container: string };
  readonly undo: AsyncDisposableStack;
}

/** CRIU needs this much beyond the images themselves. */
const MEMORY_MARGIN = 1.05;

/** criu and the runtime, however slow the machine, for the smallest container. */
const RUNTIME_BASE_MS = 20_000;
/** criu restores about 1 GB a second (docs/BENCHMARKS.md); a machine in trouble may take twenty times as long. */
const RUNTIME_BYTES_PER_MS = 50_000;

/**
 * criu waits for ever when a task that it is rebuilding is killed (by the kernel, for want of memory): the task is
 * the runtime's child, and criu never hears of its end.
 */
function runtimeDeadlineMs({ saved }: RestorePlan): number {
  return RUNTIME_BASE_MS + saved.images.pagesBytes / RUNTIME_BYTES_PER_MS;
}

export class RestoreInProgress implements AsyncDisposable {
  readonly #parts: Parts;
  #bundle: Bundle | undefined;

  private constructor(parts: Parts) {
    this.#parts = parts;
  }

  static async prepare(agent: AgentContext, plan: RestorePlan, operation: Operation, signal: AbortSignal): Promise<RestoreInProgress> {
    await using undo = new AsyncDisposableStack();
    const staging = undo.use(await agent.staging.open(operation.id));
    const images = plan.saved.images;
    operation.expectBytes(plan.reader.summary.bytes.raw);
    await staging.require((images.pagesBytes + images.metadataBytes) * MEMORY_MARGIN, { signal });
    const container = containerDirectory(agent, plan.id);
    undo.defer(async () => agent.journal.remove(operation.id));
    const directories = { images: join(staging.directory, 'images'), work: openLogDirectory(agent, operation.id), container };
    agent.journal.write({
      kind: 'restore', operation: operation.id, step: 'prepare', checkpoint: plan.request.checkpoint, container: { id: plan.id, at: plan.at },
      bundle: plan.request.bundle ?? container, rebuilt: plan.request.bundle === undefined, stagingDirectory: staging.directory, workDirectory: directories.work,
    });
    mkdirSync(directories.images, { mode: 0o700 });
    mkdirSync(container, { recursive: true, mode: 0o700 });
    undo.defer(() => removeBundle(container));
    return new RestoreInProgress({ agent, plan, operation, staging, directories, undo: undo.move() });
  }

  /** The overlay's upper directory is written before it is mounted: below a mounted overlay that would be undefined. */
  async files(signal: AbortSignal): Promise<void> {
    const { agent, plan, directories, operation, undo } = this.#parts;
    const { reader, saved } = plan;
    const how = { signal, threads: agent.treeThreads, onBytes: (count: number): void => operation.addBytes(count) };
    const bundle = await openBundle({
      given: plan.request.bundle, directory: directories.container, id: plan.id, spec: saved.spec, rootfs: saved.rootfs.layout,
      volumes: saved.volumes.map(({ destination, fstype }) => ({ destination, fstype })),
    });
    this.#bundle = bundle;
    undo.defer(() => bundle.remove());
    if (saved.rootfs.saved) {
      if (bundle.upper !== undefined) await loadTree(reader, saved.rootfs.prefix, bundle.upper, how);
      else await loadTreeMerged(reader, saved.rootfs.prefix, bundle.rootfs, how);
    }
    for (const [index, volume] of saved.volumes.entries()) {
      const target = bundle.volumes[index];
      if (target === undefined) throw new StasisError('RESTORE_INCOMPATIBLE', `the bundle has no mount for the saved volume ${volume.destination}`);
      await loadTree(reader, volume.prefix, target, how);
    }
    await bundle.mount();
  }

  async fetch(signal: AbortSignal): Promise<void> {
    const { plan, directories, operation } = this.#parts;
    await loadImages(plan.reader, plan.saved.images.prefix, directories.images, { signal, onBytes: (count) => operation.addBytes(count) });
  }

  async restore(signal: AbortSignal): Promise<void> {
    const { agent, plan, operation, directories, undo } = this.#parts;
    const config = join(directories.work, 'criu.conf');
    writeFileSync(config, criuConfig({ timeoutSeconds: Math.ceil(agent.settings.operationDeadlineMs / 1000), ghostLimitBytes: agent.settings.ghostLimitBytes, tcpClose: plan.flags.tcpClose }), { mode: 0o600 });
    const bundle = this.#bundle!.directory;
    await runtimeRestore({
      at: plan.at, id: plan.id, bundle, imageDir: directories.images, workDir: directories.work, flags: plan.flags,
      criuConfig: config, operationId: operation.id, pidFile: join(directories.container, 'pid'),
      ...outputFiles(agent, plan.id),
    }, agent.toolchain, { signal, timeoutMs: runtimeDeadlineMs(plan), launcher: agent.settings.scripts.restore });
    // Not before: a failed restore leaves nothing, and a container that somebody else has made under this id is not ours.
    undo.defer(() => remove(plan.at, plan.id, { force: true, bundle, signal: undefined }));
  }

  /** From here on the container is one like any other: only the staging and the journal go. */
  async finish(signal: AbortSignal): Promise<Container> {
    const { agent, plan, operation, staging } = this.#parts;
    const container = await findContainer(agent.roots, plan.id, { signal });
    operation.settle();
    agent.journal.remove(operation.id);
    // What was made stays: the stack is emptied without being run.
    this.#parts.undo.move();
    await staging[Symbol.asyncDispose]();
    if (!plan.request.keep) removeTree(this.#parts.directories.work);
    return container;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.undo.disposeAsync();
  }
}
