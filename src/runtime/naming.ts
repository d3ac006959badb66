/** Who made a container, and the name that a person knows it by. */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Container, OciSpec } from './types.ts';
import { isObject, type Json } from './spec.ts';
import { printable } from './text.ts';

export function managerOf(spec: OciSpec, bundle: string): Container['manager'] {
  const annotations = spec.annotations ?? {};
  if (annotations['io.container.manager'] === 'libpod') return 'podman';
  if (annotations['io.container.manager'] === 'cri-o' || 'io.kubernetes.cri-o.ContainerID' in annotations) return 'cri-o';
  if (bundle.includes('/io.containerd.runtime.') || 'io.kubernetes.cri.container-type' in annotations) return 'containerd';
  return 'plain';
}

/** podman keeps names in its storage: GRAPHROOT/overlay-containers/{,volatile-}containers.json beside ID/userdata. */
async function podmanEntry(bundle: string): Promise<Json | undefined> {
  const directory = dirname(bundle);
  for (const file of ['containers.json', 'volatile-containers.json']) {
    try {
      const list: unknown = JSON.parse(await readFile(join(dirname(directory), file), 'utf8'));
      const entry: unknown = Array.isArray(list) ? list.find((item) => isObject(item) && item['id'] === basename(directory)) : undefined;
      if (isObject(entry)) return entry;
    } catch {
      // A name is a comfort: without it the id will do.
    }
  }
  return undefined;
}

/** The name, and the image where the manager tells it. */
export async function identify(id: string, manager: Container['manager'], spec: OciSpec, bundle: string): Promise<Pick<Container, 'name' | 'image'>> {
  const annotations = spec.annotations ?? {};
  const entry = manager === 'podman' ? await podmanEntry(bundle) : undefined;
  const names = entry?.['names'];
  const name: unknown = entry === undefined ? annotations['io.kubernetes.cri.container-name'] ?? annotations['io.kubernetes.container.name'] : Array.isArray(names) ? names[0] : undefined;
  const image = entry === undefined ? imageNamed(annotations['io.kubernetes.cri.image-name'] ?? annotations['io.kubernetes.cri-o.ImageName']) : podmanImage(entry);
  return { name: typeof name !== 'string' || name === '' ? id : printable(name), ...(image === undefined ? {} : { image }) };
}

function imageNamed(name: string | undefined, id?: string): Container['image'] {
  return name === undefined || name === '' ? undefined : { name: printable(name), ...(id === undefined ? {} : { id }) };
}

/** podman's metadata of a container is JSON inside JSON: { "image-name", "image-id", "name" }. */
function podmanImage(entry: Json): Container['image'] {
  try {
    const metadata: unknown = JSON.parse(String(entry['metadata']));
    if (!isObject(metadata) || typeof metadata['image-name'] !== 'string') return undefined;
    const id = metadata['image-id'];
    return imageNamed(metadata['image-name'], typeof id === 'string' ? id : undefined);
  } catch {
    return undefined;
  }
}

/**
 * The namespace of a Kubernetes container. The annotations count only where a manager of Kubernetes writes them itself:
 * elsewhere they are anybody's wish.
 */
export function namespaceOf({ manager, spec: { annotations = {} } }: Container): string | undefined {
  if (manager === 'containerd') return annotations['io.kubernetes.cri.sandbox-namespace'];
  return manager === 'cri-o' ? annotations['io.kubernetes.pod.namespace'] : undefined;
}

/** podman's store of images, where root's containers have theirs. */
const IMAGES = '/var/lib/containers/storage/overlay-images/images.json';

/** An image of podman's on this node by its name; undefined when there is none, or no podman. */
export async function findPodmanImage(name: string): Promise<Container['image']> {
  try {
    const list: unknown = JSON.parse(await readFile(IMAGES, 'utf8'));
    for (const wanted of [name, `${name}:latest`, `localhost/${name}`, `localhost/${name}:latest`]) {
      const found: unknown = Array.isArray(list) ? list.find((item) => isObject(item) && Array.isArray(item['names']) && item['names'].includes(wanted)) : undefined;
      if (isObject(found) && typeof found['id'] === 'string') return imageNamed(wanted, found['id']);
    }
  } catch {
    // Unreadable or absent: as if the image were not here.
  }
  return undefined;
}

/** "namespace/pod/container" of a Kubernetes container: unlike the name, unique on a node. */
export function qualifiedName(container: Container): string | undefined {
  const annotations = container.spec.annotations ?? {};
  const namespace = annotations['io.kubernetes.cri.sandbox-namespace'] ?? annotations['io.kubernetes.pod.namespace'];
  const pod = annotations['io.kubernetes.cri.sandbox-name'] ?? annotations['io.kubernetes.pod.name'];
  return namespace === undefined || pod === undefined ? undefined : `${namespace}/${pod}/${container.name}`;
}
