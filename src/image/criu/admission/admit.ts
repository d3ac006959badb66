/**
 * Whether images that nobody vouches for are such as any unprivileged container may have: known files, known messages, known
 * fields, values that grant nothing by themselves. What is not known is refused. The rest, what depends on the bundle, is
 * returned.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { StasisError } from '../../../core/errors.ts';
import { listImages } from '../directory.ts';
import type { ImageFile } from '../directory.ts';
import { ruleFor, tables } from './catalog.ts';
import type { ImageRule } from './catalog.ts';
import { corrupt } from './message.ts';
import type { Message } from './message.ts';
import { References } from './references.ts';
import { rules, shown, socketPath } from './rules.ts';
import { walkImage } from './walk.ts';

/** What the images hold that is harmless in some containers only. */
export interface Admitted {
  /** Names of open files, programs, mappings and directories, as of the container's root: absolute and normal. */
  readonly paths: ReadonlySet<string>;
  /** Sockets of the internet. */
  readonly sockets: readonly { readonly port: number; readonly established: boolean }[];
  /** Of any socket. */
  readonly options: { readonly mark: boolean; readonly priority: number; readonly device: boolean };
  /** Somebody gets a signal when a file can be read. */
  readonly signals: boolean;
  /** SELinux labels that sockets would get. */
  readonly labels: ReadonlySet<string>;
  /** SELinux and AppArmor aside: limits of the IPC namespace. */
  readonly ipc: Message | undefined;
  /** Names of network devices other than the loopback. */
  readonly networkDevices: readonly string[];
  /** Namespaces that are given from outside. */
  readonly external: ReadonlySet<string>;
}

/** Of runtimes and engines, beside the images: read by nobody here. */
const notes = /^(?:stats-(?:dump|restore)|(?:dump|restore|criu)\.log|ctr\.log|config\.json)$/;
/** Written by runc and crun: what the three standard streams were. */
const STREAMS = 3;
const LOOPBACK = 1;

/**
 * What can be said without a bundle and without the other images: known files, of what their names say, messages of known fields.
 * Values are judged by {@link admitImages}. Throws OBJECT_CORRUPT.
 */
export async function examineImages(imageDir: string): Promise<void> {
  for (const file of await listImages(imageDir)) {
    const rule = knownRule(file.name);
    if (rule?.magic !== undefined) walkImage(join(imageDir, file.name), file, rule, () => {}, false);
  }
}

/** Throws OBJECT_CORRUPT with the first thing that is more than a container needs. */
export async function admitImages(imageDir: string): Promise<Admitted> {
  const files = await listImages(imageDir);
  const seen = new Judgement();
  for (const { name } of files) seen.references.names.add(name);
  for (const file of files) judgeImage(imageDir, file, seen);
  for (const wanted of ['inventory.img', 'pstree.img', 'files.img']) if (!seen.references.names.has(wanted)) throw corrupt(wanted, 'is missing');
  for (const problem of seen.references.problems()) throw new StasisError('OBJECT_CORRUPT', problem);
  return seen.admitted();
}

/** One file by itself. Throws OBJECT_CORRUPT. */
export function judgeImage(imageDir: string, file: ImageFile, seen = new Judgement()): void {
  const rule = knownRule(file.name);
  if (rule === undefined) return;
  if (rule.magic === undefined) bytes(imageDir, file, rule);
  else walkImage(join(imageDir, file.name), file, rule, (message) => seen.judge(message, file.name));
}

/** Undefined for what nobody reads. Throws OBJECT_CORRUPT. */
function knownRule(name: string): ImageRule | undefined {
  const rule = ruleFor(name);
  if (rule === undefined && !notes.test(name)) throw corrupt(name, 'is an image that containers do not need');
  return rule;
}

/** What has been read so far. */
class Judgement {
  readonly references = new References();
  readonly #labels = new Set<string>();
  readonly #external = new Set<string>();
  readonly #devices: string[] = [];
  readonly #sockets: { port: number; established: boolean }[] = [];
  readonly #watched: string[] = [];
  #options = { mark: false, priority: 0, device: false };
  #signals = false;
  #ipc: Message | undefined;

  /** A message, and all that are in it. */
  judge(message: Message, image: string): void {
    for (const problem of rules[message.name]?.(message) ?? []) throw corrupt(image, problem);
    this.references.note(message, image);
    this.#note(message);
    for (const { name, type } of tables.rule(message.name).values()) {
      if (!tables.has(type)) continue;
      for (const inner of message.messages(name)) this.judge(inner, image);
    }
  }

  #note(m: Message): void {
    if (m.name === 'inet') this.#sockets.push({ port: m.number('src_port'), established: m.number('type') === STREAM && !IDLE.has(m.number('state')) });
    else if (m.name === 'socket') {
      const { mark, priority, device } = this.#options;
      this.#options = { mark: mark || m.number('mark') !== 0, priority: Math.max(priority, m.number('priority')), device: device || m.text('bound_dev') !== '' };
    } else if (m.name === 'fown') this.#signals ||= m.number('pid') !== 0;
    else if (m.name === 'fdinfo' && m.has('xattr_security_selinux')) this.#labels.add(m.text('xattr_security_selinux'));
    else if (m.name === 'ipc_var') this.#ipc = m;
    else if (m.name === 'netdev' && m.number('type') !== LOOPBACK) this.#devices.push(m.text('name'));
    else if (m.name === 'handle') this.#watched.push(m.text('path'));
    else if (m.name === 'unix') this.#watched.push(...socketPath(m));
    else if ((m.name === 'netns' || m.name === 'pidns') && m.has('ext_key')) this.#external.add(m.name === 'netns' ? 'network' : 'pid');
  }

  admitted(): Admitted {
    return {
      paths: new Set([...[...this.references.regular.values()].map((file) => file.text('name')), ...this.#watched]), sockets: this.#sockets, options: this.#options,
      signals: this.#signals, labels: this.#labels, ipc: this.#ipc, networkDevices: this.#devices, external: this.#external,
    };
  }
}

const STREAM = 1;
/** TCP_CLOSE and TCP_LISTEN. */
const IDLE = new Set([7, 10]);

function bytes(imageDir: string, { name, size }: { readonly name: string; readonly size: number }, rule: ImageRule): void {
  if (rule.kind === 'descriptors') streams(readFileSync(join(imageDir, name), 'utf8'), name);
  else if (rule.kind === 'packet-filter' && size > 0) ownFilters(readFileSync(join(imageDir, name), 'latin1'), name);
}

/** The runtime gives descriptor n of its own to whatever has the name of the nth: of its standard streams, and of nothing else. */
function streams(text: string, name: string): void {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (error) {
    throw new StasisError('OBJECT_CORRUPT', `${name} is no JSON`, { cause: error });
  }
  const plainList = Array.isArray(list) && list.length <= STREAMS && list.every((item) => typeof item === 'string' && item.length < 4096);
  if (!plainList) throw corrupt(name, 'is more than the names of three streams');
}

/**
 * A container that set filters of its own would come back without them. Those that CRIU locks the network with are not
 * its own: iptables-nft writes them into tables of everybody, nftables into one of CRIU's.
 */
const CRIU_FILTER = new RegExp(`^(?:${[
  'table ip6? filter \\{', 'chain CRIU \\{', 'meta mark 0x0000c114 counter packets \\d+ bytes \\d+ accept',
  'counter packets \\d+ bytes \\d+ (?:drop|jump CRIU)', 'chain (?:INPUT|OUTPUT) \\{',
  'type filter hook (?:input|output) priority filter; policy accept;',
  'table inet CRIU-[0-9a-f-]+ \\{', 'chain (?:input|output) \\{', 'meta mark 0x0000c114 accept',
  'type filter hook (?:input|output) priority filter; policy drop;', '\\}',
].join('|')})?$`);

function ownFilters(text: string, name: string): void {
  const line = text.replaceAll('\0', '').split('\n').find((one) => !CRIU_FILTER.test(one.trim()));
  if (line !== undefined) throw corrupt(name, `has packet filters of its own, which are not brought back: ${shown(line.trim())}`);
}
