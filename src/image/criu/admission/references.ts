/** Numbers by which images name each other: what they name must be there, and be what it is taken for. */
import type { Message } from './message.ts';
import { descriptions, shown } from './rules.ts';

/** What is remembered of the images while they are read. */
export class References {
  /** Type of each open file by its number. */
  readonly files = new Map<number, number>();
  readonly regular = new Map<number, Message>();
  readonly mounts = new Map<number, Message>();
  readonly names = new Set<string>();
  readonly #uses: { readonly image: string; readonly id: number; readonly type: number | undefined }[] = [];
  readonly #unixPeers: number[] = [];
  readonly #unixSockets = new Set<number>();
  readonly #mountUses: { readonly id: number; readonly path: string }[] = [];
  readonly #networks = new Set<number>();
  readonly #remaps: Message[] = [];
  readonly #companions = new Set<string>();
  #network: number | undefined;

  note(m: Message, image: string): void {
    switch (m.name) {
      case 'file': this.files.set(m.number('id'), m.number('type')); break;
      case 'reg': this.regular.set(m.number('id'), m); this.#at(m, m.text('name')); break;
      case 'fdinfo': this.#uses.push({ image, id: m.number('id'), type: m.number('type') }); break;
      case 'fs': this.#regular(image, m.number('cwd_id'), m.number('root_id')); break;
      case 'mm': this.#regular(image, m.number('exe_file_id')); break;
      case 'vma': if ((m.number('status') & FILE_MAPPING) !== 0 && (m.number('status') & MEMFD_MAPPING) === 0) this.#regular(image, Number(m.big('shmid'))); break;
      case 'fifo': case 'tty': if (m.has('regf_id')) this.#regular(image, m.number('regf_id')); break;
      case 'scm': for (const id of m.numbers('rights')) this.#uses.push({ image, id, type: undefined }); break;
      case 'handle': if (m.has('mnt_id')) this.#at(m, m.text('path')); break;
      case 'unix':
        this.#unixSockets.add(m.number('ino'));
        if (m.number('peer') !== 0) this.#unixPeers.push(m.number('peer'));
        if (m.has('mnt_id') && m.number('mnt_id') !== -1) this.#at(m, '');
        if (m.has('ns_id')) this.#networks.add(m.number('ns_id'));
        break;
      case 'inet': case 'netlink': if (m.has('ns_id')) this.#networks.add(m.number('ns_id')); break;
      case 'mount': this.mounts.set(m.number('mnt_id'), m); break;
      case 'remap': this.#remaps.push(m); break;
      case 'ids':
        if (image === 'inventory.img') break;
        this.#companions.add(`fdinfo-${m.number('files_id')}.img`);
        if (m.has('mnt_ns_id')) this.#companions.add(`mountpoints-${m.number('mnt_ns_id')}.img`);
        this.#network ??= m.number('net_ns_id');
        break;
      default:
    }
  }

  #regular(image: string, ...ids: readonly number[]): void {
    for (const id of ids) this.#uses.push({ image, id, type: REG });
  }

  #at(m: Message, path: string): void {
    this.#mountUses.push({ id: m.number('mnt_id'), path });
  }

  *problems(): Generator<string> {
    for (const { image, id, type } of this.#uses) {
      const found = this.files.get(id);
      if (found === undefined) yield `${image} speaks of file ${id}, which is not among the open files`;
      else if (type !== undefined && found !== type) yield `${image} takes file ${id} for one of type ${type}, and it is a ${descriptions[found] ?? found}`;
    }
    for (const peer of this.#unixPeers) if (!this.#unixSockets.has(peer)) yield `a UNIX socket is connected to ${peer}, which is not in the images`;
    for (const { id, path } of this.#mountUses) yield* this.#mounted(id, path);
    for (const id of this.#networks) if (id !== this.#network) yield `a socket is of network ${id}, and not of the container's`;
    for (const name of this.#companions) if (!this.names.has(name)) yield `there is no ${name}`;
    for (const remap of this.#remaps) yield* this.#remapped(remap);
  }

  /** CRIU looks names up from the root of the mount's namespace, and makes deleted files in the mount. */
  *#mounted(id: number, path: string): Generator<string> {
    const mount = this.mounts.get(id);
    if (mount === undefined) {
      if (id !== -1) yield `${path === '' ? 'a socket' : shown(path)} is in mount ${id}, which is not in the images`;
      return;
    }
    const top = plain(mount.text('mountpoint'));
    if (path !== '' && top !== '/' && path !== top && !path.startsWith(`${top}/`)) yield `${shown(path)} is not in mount ${id}, which is at ${shown(top)}`;
  }

  /** Files that were deleted or had another name: made by CRIU, linked, and removed, with the rights of root. */
  *#remapped(remap: Message): Generator<string> {
    const [original, other, type] = [remap.number('orig_id'), remap.number('remap_id'), remap.number('remap_type')];
    const file = this.regular.get(original);
    if (file === undefined) {
      yield `remap-fpath.img speaks of file ${original}, which is no regular one`;
      return;
    }
    if (type === PROCFS) {
      if (other === 0 || other > MAX_PID || !/^\/proc\/\d+/.test(file.text('name'))) yield `remap-fpath.img makes a process ${other} for ${shown(file.text('name'))}`;
      return;
    }
    const mount = this.mounts.get(file.number('mnt_id'));
    if (mount !== undefined && (mount.number('flags') & MS_RDONLY) !== 0) yield `${shown(file.text('name'))} was deleted in a mount that is read-only`;
    if (type === GHOST) {
      if (!this.names.has(`ghost-file-${other.toString(16)}.img`)) yield `there is no ghost-file-${other.toString(16)}.img`;
      return;
    }
    const target = this.regular.get(other);
    // It is removed when all is done: only what CRIU itself has made.
    if (target === undefined || !/\/link_remap\.\d+$/.test(target.text('name'))) yield `remap-fpath.img takes ${shown(target?.text('name') ?? String(other))} for a link that CRIU made`;
  }
}

const plain = (mountpoint: string): string => {
  const path = mountpoint.replace(/^\.(?=\/|$)/, '').replace(/\/+$/, '');
  return path === '' ? '/' : path;
};

const REG = 1;
const GHOST = 1;
const PROCFS = 2;
const MAX_PID = 2 ** 22;
const MS_RDONLY = 1;
/** Status bits of mappings: of a file, private or shared; of a memory file. */
const FILE_MAPPING = 0x40 | 0x80;
const MEMFD_MAPPING = 0x4000;
