/**
 * /etc/hosts and its like, which the manager of the old container wrote for it and may have removed with it: made again, so
 * that a container of podman or containerd can be restored without its manager.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isBindMount } from '../spec.ts';
import type { OciSpec } from '../types.ts';

function nodeFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

const contents: Readonly<Record<string, (spec: OciSpec) => string>> = {
  '/etc/hosts': ({ hostname }) => `127.0.0.1 localhost\n::1 localhost\n${hostname === undefined || /\s/.test(hostname) ? '' : `127.0.1.1 ${hostname}\n`}`,
  '/etc/hostname': ({ hostname }) => `${hostname ?? 'localhost'}\n`,
  '/etc/resolv.conf': () => nodeFile('/etc/resolv.conf'),
  '/run/.containerenv': () => '',
  '/dev/termination-log': () => '',
};

/** Destinations of bind mounts whose source is gone and whose file can be made again. */
export function replaceableFiles(spec: OciSpec): string[] {
  return (spec.mounts ?? []).filter((mount) => isBindMount(mount) && Object.hasOwn(contents, mount.destination) && !existsSync(mount.source ?? '')).map(({ destination }) => destination);
}

/** Writes them below `directory`. Returns their paths by destination. */
export function makeProvidedFiles(directory: string, destinations: readonly string[], spec: OciSpec): Map<string, string> {
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  return new Map(destinations.map((destination) => {
    const path = join(directory, destination.replaceAll('/', '_'));
    writeFileSync(path, contents[destination]!(spec), { mode: 0o644 });
    return [destination, path];
  }));
}
