/**
 * The description that the agent seals into a manifest (docs/FORMAT-IMAGE.md, "Description"): what was saved, from
 * where, and what a restore needs to know. A checkpoint describes a pod; outside Kubernetes a pod of one container.
 */
import { StasisError } from '../core/errors.ts';
import type { ContainerId } from '../core/ids.ts';
import type { CheckpointFlags, Finding, OciSpec, Rootfs, RuntimeName, VolumeMount } from '../runtime/types.ts';
import type { KernelState } from '../runtime/index.ts';
import type { FidelityRecord } from '../runtime/fidelity/index.ts';
import type { CheckpointSummary } from '../repository/types.ts';
import type { CriuImageSummary } from '../image/types.ts';

export const DESCRIPTION_VERSION = 1;

export interface SavedVolume {
  /** Mount point inside the container. */
  readonly destination: string;
  /** Blob prefix of its tree. */
  readonly prefix: string;
  readonly fstype: string;
  /** What it was mounted with in the freeze; absent in checkpoints of older versions. */
  readonly mount?: VolumeMount;
  readonly entries: number;
  readonly bytes: number;
}

export interface SavedContainer {
  readonly index: number;
  readonly id: ContainerId;
  readonly name: string;
  readonly manager: string;
  /** The image that its manager made it from. */
  readonly image?: { readonly name: string; readonly id?: string };
  readonly runtime: RuntimeName;
  readonly runtimeVersion: string;
  readonly root: string;
  readonly bundle: string;
  readonly spec: OciSpec;
  readonly flags: CheckpointFlags;
  readonly rootfs: { readonly saved: boolean; readonly prefix: string; readonly layout: Rootfs; readonly entries: number; readonly bytes: number };
  readonly volumes: readonly SavedVolume[];
  readonly images: CriuImageSummary & { readonly prefix: string };
  /** What neither CRIU nor the runtime brings back, and a restore does. */
  readonly kernel?: KernelState;
  /** What the kernel said of its tasks in the freeze; absent in checkpoints of older versions and in imported ones. */
  readonly fidelity?: FidelityRecord;
  readonly pidAtDump: number;
}

export interface Provenance {
  readonly by: string;
  readonly reason: string;
  readonly operation: string;
  readonly node: string;
  readonly stasis: string;
  readonly kernel: string;
  readonly architecture: string;
  readonly cpu: { readonly model: string; readonly features: readonly string[] };
  readonly criu: string;
  readonly image: string | undefined;
  readonly parent: string | undefined;
}

/** Where an imported checkpoint comes from. Nobody vouches for what is in it: its spec is for display, and a restore needs a bundle. */
export interface Imported {
  /** What the archive was called when it came. */
  readonly source: string;
  /** podman, cri-o, containerd or unknown: the archive's own word. */
  readonly engine: string;
  readonly atMs: number;
  readonly archiveBytes: number;
  /** SHA-256 of the archive as it came, hexadecimal. */
  readonly sha256: string;
}

export interface PodDescription {
  readonly version: typeof DESCRIPTION_VERSION;
  readonly mode: 'stop' | 'leave-running';
  readonly memoryPath: 'directory' | 'page-server';
  /** Rounds before the freeze that the memory was read in; absent when there were none. */
  readonly preDump?: readonly { readonly pages: number; readonly ms: number; readonly frozenMs: number }[];
  /** Whether it was rebuilt in a scratch place before the commit, in how many milliseconds, or why not. */
  readonly rehearsal?: { readonly done: true; readonly ms: number } | { readonly done: false; readonly reason: string };
  readonly frozenAtMs: number;
  /** Until the thaw; of a container that was stopped: until the manifest was written. */
  readonly frozenMs: number;
  readonly phases: readonly { readonly name: string; readonly ms: number }[];
  readonly findings: readonly Finding[];
  readonly pod: { readonly name: string; readonly namespace?: string; readonly uid?: string };
  readonly containers: readonly SavedContainer[];
  /** In plain words, what a restore will not bring back. */
  readonly notSaved: readonly string[];
  readonly provenance: Provenance;
  readonly imported?: Imported;
}

/** The manifest is signed by a trusted node, so its shape is trusted too; only the version is checked. */
export function podDescription(summary: CheckpointSummary): PodDescription {
  const description = summary.description as unknown as PodDescription;
  if (description.version !== DESCRIPTION_VERSION) {
    throw new StasisError('FORMAT_UNSUPPORTED', `checkpoint ${summary.id} has a description of version ${String(description.version)}`, { hint: 'a newer Stasis wrote it: use that version to restore' });
  }
  return description;
}

