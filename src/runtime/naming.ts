/** Who made a container, and the name that a person knows it by. */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Container, OciSpec } from './types.ts';
import { isObject } from './spec.ts';
import { printable } from './text.ts';

export function managerOf(spec: OciSpec, bundle: string): Container['manager'] {
  const annotations = spec.annotations ?? {};
  if (annotations['io.container.manager'] === 'libpod') return 'podman';
  if (annotations['io.container.manager'] === 'cri-o' || 'io.kubernetes.cri-o.ContainerID' in annotations) return 'cri-o';
  if (bundle.includes('/io.containerd.runtime.') || 'io.kubernetes.cri.container-type' in annotations) return 'containerd';
  return 'plain';
}

/** podman keeps names in its storage: GRAPHROOT/overlay-containers/{,volatile-}containers.json beside ID/userdata. */
async function podmanName(bundle: string): Promise<string | undefined> {
  const directory = dirname(bundle);
  for (const file of ['containers.json', 'volatile-containers.json']) {
    try {
      const list: unknown = JSON.parse(await readFile(join(dirname(directory), file), 'utf8'));
      const entry: unknown = Array.isArray(list) ? list.find((item) => isObject(item) && item['id'] === basename(directory)) : undefined;
      const name: unknown = isObject(entry) && Array.isArray(entry['names']) ? entry['names'][0] : undefined;
      if (typeof name === 'string') return name;
    } catch {
      // A name is a comfort: without it the id will do.
    }
  }
  return undefined;
}

export async function nameOf(id: string, manager: Container['manager'], spec: OciSpec, bundle: string): Promise<string> {
  const annotations = spec.annotations ?? {};
  const name = manager === 'podman' ? await podmanName(bundle)
    : annotations['io.kubernetes.cri.container-name'] ?? annotations['io.kubernetes.container.name'];
  return name === undefined || name === '' ? id : printable(name);
}

/** "namespace/pod/container" of a Kubernetes container: unlike the name, unique on a node. */
export function qualifiedName(container: Container): string | undefined {
  const annotations = container.spec.annotations ?? {};
  const namespace = annotations['io.kubernetes.cri.sandbox-namespace'] ?? annotations['io.kubernetes.pod.namespace'];
  const pod = annotations['io.kubernetes.cri.sandbox-name'] ?? annotations['io.kubernetes.pod.name'];
  return namespace === undefined || pod === undefined ? undefined : `${namespace}/${pod}/${container.name}`;
}
