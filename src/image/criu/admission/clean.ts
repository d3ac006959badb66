/**
 * Takes out of imported images what is not theirs to say, so that CRIU leaves it as the runtime makes it from the bundle: the set-up
 * of the network, and whom the kernel's audit holds responsible.
 */
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { listImages } from '../directory.ts';
import { frame, imageHeader, singleEntry } from '../framing.ts';
import { edited } from './edit.ts';
import { ruleFor } from './catalog.ts';

const TASK = 3;
const LOGINUID = 13;

/** The images have been admitted. `external`: the network is given from outside, so that its image only says that. */
export async function cleanImages(imageDir: string, { external }: { readonly external: ReadonlySet<string> }): Promise<void> {
  for (const { name } of await listImages(imageDir)) {
    const path = join(imageDir, name);
    const kind = ruleFor(name)?.kind ?? '';
    if (kind === 'core') writeFileSync(path, core(readFileSync(path), name));
    else if (networkImages.has(kind) && !(kind === 'netns' && external.has('network'))) unlinkSync(path);
  }
}

/** Without them CRIU makes a namespace and leaves it as it is. */
const networkImages = new Set(['netns', 'netdev', 'network', 'packet-filter']);

function core(bytes: Uint8Array, name: string): Uint8Array {
  const message = edited(singleEntry(bytes, 'core', name), name, TASK, (task) => edited(task, name, LOGINUID, () => undefined));
  return Buffer.concat([imageHeader('core'), frame(message)]);
}
