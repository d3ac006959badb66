/** Reading config.json of a bundle (OCI runtime specification 1.x). */
import { readFile, stat } from 'node:fs/promises';
import { join, normalize, resolve } from 'node:path';
import type { OciSpec } from './types.ts';

/** A config.json or a state file is some ten kilobytes; seccomp profiles make it more. */
const MAX_JSON_BYTES = 16 * 1024 * 1024;

export type Json = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Throws a plain Error that says what is wrong, without the path. */
export async function readJson(path: string): Promise<Json> {
  const { size } = await stat(path);
  if (size > MAX_JSON_BYTES) throw new Error(`has ${size} bytes, more than the ${MAX_JSON_BYTES} it may have`);
  const value: unknown = JSON.parse(await readFile(path, 'utf8'));
  if (!isObject(value)) throw new Error('is not a JSON object');
  return value;
}

function requireShape(condition: boolean, what: string): void {
  if (!condition) throw new Error(`${what} has the wrong type`);
}

function optionalStrings(value: unknown, what: string): void {
  requireShape(value === undefined || value === null || (Array.isArray(value) && value.every((item) => typeof item === 'string')), what);
}

/** Checks the parts that Stasis reads. Throws a plain Error naming the first that is wrong. */
export function checkSpec(value: Json): OciSpec {
  const { root, mounts, annotations, linux } = value;
  requireShape(root === undefined || (isObject(root) && typeof root['path'] === 'string'), 'root.path');
  requireShape(mounts === undefined || mounts === null || Array.isArray(mounts), 'mounts');
  for (const mount of (mounts ?? []) as unknown[]) {
    requireShape(isObject(mount) && typeof mount['destination'] === 'string', 'mounts[].destination');
    const { type, source, options } = mount as Json;
    requireShape(type === undefined || typeof type === 'string', 'mounts[].type');
    requireShape(source === undefined || typeof source === 'string', 'mounts[].source');
    optionalStrings(options, 'mounts[].options');
  }
  const texts = annotations === undefined || annotations === null || (isObject(annotations) && Object.values(annotations).every((text) => typeof text === 'string'));
  requireShape(texts, 'annotations');
  requireShape(linux === undefined || isObject(linux), 'linux');
  const namespaces = isObject(linux) ? linux['namespaces'] : undefined;
  requireShape(namespaces === undefined || namespaces === null || (Array.isArray(namespaces) && namespaces.every((entry) => isObject(entry) && typeof entry['type'] === 'string')), 'linux.namespaces');
  return value;
}

/** Go and C write empty lists as null; here they are absent. */
function withoutNulls(value: Json): Json {
  return Object.fromEntries(Object.entries(value).flatMap(([key, entry]) => {
    if (entry === null) return [];
    return [[key, key === 'linux' && isObject(entry) ? withoutNulls(entry) : entry]];
  }));
}

export async function readSpec(bundle: string): Promise<OciSpec> {
  return checkSpec(withoutNulls(await readJson(join(bundle, 'config.json'))));
}

/** A specification that came as JSON. Throws a plain Error that says what is wrong. */
export function parseSpec(value: unknown): OciSpec {
  if (!isObject(value)) throw new Error('is not a JSON object');
  return checkSpec(withoutNulls(value));
}

/** The root directory of a bundle: relative paths count from the bundle. */
export function rootPath(bundle: string, spec: OciSpec): string {
  return resolve(bundle, spec.root?.path ?? 'rootfs');
}

/** Small files that every manager provides anew for its containers. */
export const PROVIDED = /^\/(etc\/(hosts|hostname|resolv\.conf)|dev\/termination-log|run\/\.containerenv|run\/secrets(\/.*)?|var\/run\/secrets\/.*|proc\/.*|sys(\/.*)?)$/;

/** Of its own, or one that it joins by path. */
export function hasUserNamespace({ linux }: OciSpec): boolean {
  return linux?.namespaces?.some(({ type }) => type === 'user') === true;
}

export function isBindMount(mount: { readonly type?: string; readonly options?: readonly string[] }): boolean {
  return mount.type === 'bind' || (mount.options ?? []).some((option) => option === 'bind' || option === 'rbind');
}

/** A destination of config.json as mountinfo writes it. */
export function mountPointOf(destination: string): string {
  return normalize(join('/', destination)).replace(/(.)\/$/, '$1');
}
