/**
 * The files in which runtimes keep their containers: runc's ROOT/ID/state.json (libcontainer State) and crun's
 * ROOT/ID/status. Both keep an `exec.fifo` beside it between create and start.
 */
import { access } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { errnoCode } from '../core/errors.ts';
import { readJson, type Json } from './spec.ts';
import type { RuntimeName } from './types.ts';

export interface ContainerState {
  readonly runtime: RuntimeName;
  readonly pid: number;
  readonly pidStart: number;
  readonly bundle: string;
  readonly createdMs: number;
  /** Where the runtime put the container: an absolute v1 freezer or v2 directory, or a path below the hierarchy's mount. */
  readonly cgroup: string | undefined;
  readonly started: boolean;
}

const files: Readonly<Record<RuntimeName, string>> = { runc: 'state.json', crun: 'status' };

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ENOTDIR') return false;
    throw error;
  }
}

/** Which runtime wrote the directory; podman and containerd may use either with any root. */
export async function stateOwner(directory: string): Promise<RuntimeName | undefined> {
  for (const runtime of ['runc', 'crun'] as const) {
    if (await exists(join(directory, files[runtime]))) return runtime;
  }
  return undefined;
}

function field<T>(json: Json, name: string, type: 'string' | 'number'): T {
  const value = json[name];
  if (typeof value !== type) throw new Error(`has no ${name}`);
  return value as T;
}

function optionalText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function runcState(json: Json): Omit<ContainerState, 'started'> {
  const config = (json['config'] ?? {}) as Json;
  const labels = Array.isArray(config['labels']) ? (config['labels'] as unknown[]) : [];
  const bundle = labels.find((label): label is string => typeof label === 'string' && label.startsWith('bundle='));
  if (bundle === undefined) throw new Error('names no bundle');
  const cgroups = (json['cgroup_paths'] ?? {}) as Json;
  return {
    runtime: 'runc', pid: field<number>(json, 'init_process_pid', 'number'), pidStart: field<number>(json, 'init_process_start', 'number'),
    bundle: bundle.slice('bundle='.length), createdMs: Date.parse(field<string>(json, 'created', 'string')),
    cgroup: optionalText(cgroups['freezer']) ?? optionalText(cgroups['']),
  };
}

function crunState(json: Json): Omit<ContainerState, 'started'> {
  return {
    runtime: 'crun', pid: field<number>(json, 'pid', 'number'), pidStart: field<number>(json, 'process-start-time', 'number'),
    bundle: field<string>(json, 'bundle', 'string'), createdMs: Date.parse(field<string>(json, 'created', 'string')),
    cgroup: optionalText(json['cgroup-path']),
  };
}

/** Throws a plain Error that says what is wrong with the file. */
export async function readState(directory: string, runtime: RuntimeName): Promise<ContainerState> {
  const json = await readJson(join(directory, files[runtime]));
  const state = runtime === 'runc' ? runcState(json) : crunState(json);
  if (!isAbsolute(state.bundle) || state.bundle.includes('\0')) throw new Error('names a bundle that is not an absolute path');
  if (!Number.isSafeInteger(state.pid) || state.pid < 0) throw new Error('holds no valid pid');
  return { ...state, started: !(await exists(join(directory, 'exec.fifo'))) };
}
