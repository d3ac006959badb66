/**
 * The node's keys behind a command: a KMS, a vault, a hardware module. The command is run once for each question, gets it as one
 * line of JSON on its standard input and answers on its standard output: docs/KEYS.md, "A command". No answer is ever in a message.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../../core/clock.ts';
import { StasisError } from '../../core/errors.ts';
import type { LineageId } from '../../core/ids.ts';
import { KEY_BYTES, SIGNATURE_BYTES } from '../crypto/port.ts';
import { loadSodium } from '../crypto/sodium.ts';
import type { Sodium } from '../crypto/port.ts';
import { MAX_RECIPIENTS } from '../format/limits.ts';
import { isKeyDocument, keysOfSecrets, parseSecrets } from './document.ts';
import type { KeyProvider, NodeKeys, WrappedKey } from './port.ts';
import { Refreshing } from './refreshing.ts';

export interface CommandKeysOptions {
  /** "key command /usr/lib/stasis/kms". */
  readonly description: string;
  /** Runs the command: standard input to standard output. Throws KEY_UNAVAILABLE. */
  readonly run: (input: Uint8Array) => Promise<Uint8Array>;
  /** Signs when the command does not: the node's own key file. */
  readonly signing: () => Promise<NodeKeys>;
  /** How long public keys, and data keys that were unwrapped, are used again. */
  readonly cacheMs: number;
  readonly clock: Clock;
  readonly onProblem: (error: StasisError) => void;
}

export const PROTOCOL = 'stasis-keys-1';
const MAX_REMEMBERED = 1000;

export async function commandKeyProvider(options: CommandKeysOptions): Promise<KeyProvider> {
  const sodium = await loadSodium('auto');
  const command = new KeyCommand(options, sodium);
  const keys = await Refreshing.start(() => command.describe(), { clock: options.clock, everyMs: options.cacheMs, onProblem: options.onProblem });
  return { description: options.description, keys: () => keys.get() };
}

type Answer = Readonly<Record<string, unknown>>;

class KeyCommand {
  readonly #options: CommandKeysOptions;
  readonly #sodium: Sodium;
  readonly #opened = new Map<string, { readonly dataKey: Promise<Uint8Array | undefined>; readonly atMs: number }>();

  constructor(options: CommandKeysOptions, sodium: Sodium) {
    this.#options = options;
    this.#sodium = sodium;
  }

  async describe(): Promise<NodeKeys> {
    const { description } = this.#options;
    const { answer, text } = await this.#ask({ request: 'describe' });
    if (isKeyDocument(answer)) return keysOfSecrets(this.#sodium, description, [parseSecrets(description, text)]);
    const listed: unknown = answer['recipients'];
    const own = Array.isArray(listed) ? listed.map((key: unknown) => this.#hex(key, 'recipients')) : [];
    if (own.length === 0 || own.length > MAX_RECIPIENTS) throw this.#wrong('describe', `"recipients" is not a list of 1 to ${MAX_RECIPIENTS} keys`);
    const unwrap = (recipients: readonly WrappedKey[], lineage: LineageId): Promise<Uint8Array | undefined> => this.#unwrap(recipients, own, lineage);
    const [first] = own;
    const common = { description, recipients: first === undefined ? [] : [first], own, unwrap };
    if (answer['signer'] === undefined) {
      const { signer, formerSigners, sign } = await this.#options.signing();
      return { ...common, signer, formerSigners, sign };
    }
    const signer = this.#hex(answer['signer'], 'signer');
    return { ...common, signer, formerSigners: [], sign: (message) => this.#sign(message, signer) };
  }

  async #sign(message: Uint8Array, signer: Uint8Array): Promise<Uint8Array> {
    const { answer } = await this.#ask({ request: 'sign', message: Buffer.from(message).toString('base64') });
    const signature = base64(answer['signature']);
    if (signature.length !== SIGNATURE_BYTES || !this.#sodium.verify(signature, message, signer)) throw this.#wrong('sign', '"signature" is not the Ed25519 signature of the message by "signer"');
    return signature;
  }

  async #unwrap(recipients: readonly WrappedKey[], own: readonly Uint8Array[], lineage: LineageId): Promise<Uint8Array | undefined> {
    const mine = recipients.filter(({ recipient }) => own.some((key) => Buffer.compare(key, recipient) === 0));
    if (mine.length === 0) return undefined;
    const dataKey = await this.#remembered(mine, lineage);
    // The caller wipes what it gets.
    return dataKey === undefined ? undefined : Buffer.from(dataKey);
  }

  #remembered(mine: readonly WrappedKey[], lineage: LineageId): Promise<Uint8Array | undefined> {
    const { clock, cacheMs } = this.#options;
    const now = clock.monotonic();
    for (const [name, { atMs, dataKey }] of this.#opened) {
      if (now - atMs < cacheMs && this.#opened.size < MAX_REMEMBERED) break;
      this.#opened.delete(name);
      void dataKey.then((key) => key?.fill(0), () => undefined);
    }
    const name = createHash('sha256').update(lineage).update(Buffer.concat(mine.map(({ sealed }) => sealed))).digest('hex');
    const known = this.#opened.get(name);
    if (known !== undefined) return known.dataKey;
    const dataKey = this.#open(mine, lineage);
    this.#opened.set(name, { dataKey, atMs: now });
    dataKey.catch(() => this.#opened.delete(name));
    return dataKey;
  }

  async #open(mine: readonly WrappedKey[], lineage: LineageId): Promise<Uint8Array | undefined> {
    const keys = mine.map(({ recipient, sealed }) => ({ recipient: Buffer.from(recipient).toString('hex'), sealed: Buffer.from(sealed).toString('base64') }));
    const { answer } = await this.#ask({ request: 'unwrap', lineage, keys });
    if (answer['dataKey'] === null) throw new StasisError('KEY_WRONG', `${this.#options.description} does not open the key of lineage ${lineage} for this node`, { hint: 'ask who runs it for access' });
    const dataKey = base64(answer['dataKey']);
    if (dataKey.length !== KEY_BYTES) throw this.#wrong('unwrap', `"dataKey" is not ${KEY_BYTES} bytes in base64`);
    return dataKey;
  }

  async #ask(question: Readonly<Record<string, unknown>> & { readonly request: string }): Promise<{ answer: Answer; text: string }> {
    const output = await this.#options.run(Buffer.from(`${JSON.stringify({ protocol: PROTOCOL, ...question })}\n`));
    const text = Buffer.from(output).toString('utf8');
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch {
      // The parser's own message would quote what may be a secret.
      throw this.#wrong(question.request, `${output.length} bytes that are not JSON`);
    }
    if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) throw this.#wrong(question.request, 'JSON that is not an object');
    return { answer: answer as Answer, text };
  }

  #hex(value: unknown, name: string): Buffer {
    if (typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)) return Buffer.from(value, 'hex');
    throw this.#wrong('describe', `"${name}" is not 64 hexadecimal digits`);
  }

  #wrong(request: string, what: string): StasisError {
    return new StasisError('KEY_UNAVAILABLE', `${this.#options.description} answered "${request}" with what is not understood: ${what}`, { hint: 'docs/KEYS.md has what a key command answers' });
  }
}

function base64(value: unknown): Buffer {
  return Buffer.from(typeof value === 'string' ? value : '', 'base64');
}
