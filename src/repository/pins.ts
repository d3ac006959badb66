/** Pins: small objects beside the manifests that keep checkpoints from being deleted. Not signed: who owns the store can delete anyway. */
import { StasisError } from '../core/errors.ts';
import type { CheckpointId } from '../core/ids.ts';
import { parseCheckpointId } from '../core/ids.ts';
import { asBuffer } from './format/bytes.ts';
import { PINS, pinName } from './format/names.ts';
import type { Store } from './store/store.ts';
import type { Pin } from './types.ts';

interface Options {
  readonly signal: AbortSignal | undefined;
}

const MAX_PIN_BYTES = 8192;

export async function writePin(store: Store, { checkpoint, by, reason, atMs }: Pin, { signal }: Options): Promise<void> {
  const bytes = Buffer.from(JSON.stringify({ by, reason, atMs }));
  if (bytes.length > MAX_PIN_BYTES) throw new StasisError('USAGE', 'the reason of the pin is too long', { hint: 'write less than 8,000 characters' });
  await store.put(pinName(checkpoint), [bytes], { signal });
}

/** A pin that cannot be read pins all the same. */
export async function readPins(store: Store, { signal }: Options): Promise<Pin[]> {
  const pins: Pin[] = [];
  for await (const { name, size, modifiedMs } of store.list(PINS, { signal })) {
    const checkpoint = idOf(name);
    if (checkpoint === undefined) continue;
    let fields: Record<string, unknown> = {};
    try {
      if (size <= MAX_PIN_BYTES) fields = (JSON.parse(asBuffer(await store.get(name, { offset: 0, length: size }, { signal })).toString()) ?? {}) as Record<string, unknown>;
    } catch (error) {
      if (!(error instanceof SyntaxError) && (error as { code?: unknown }).code !== 'OBJECT_MISSING') throw error;
    }
    const text = (value: unknown): string => (typeof value === 'string' ? value : '');
    pins.push({ checkpoint, by: text(fields['by']), reason: text(fields['reason']), atMs: Number.isSafeInteger(fields['atMs']) ? Number(fields['atMs']) : Math.round(modifiedMs) });
  }
  return pins;
}

function idOf(name: string): CheckpointId | undefined {
  try {
    return parseCheckpointId(name.slice(PINS.length));
  } catch {
    return undefined;
  }
}
