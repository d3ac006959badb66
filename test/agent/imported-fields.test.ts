/**
 * Every field of every message that an imported container may have, set to something else in a real dump, and every number that no
 * table has: refused, unless the table says why any value will do.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { requireGranted } from '../../src/agent/restore/granted.ts';
import { isStasisError } from '../../src/core/errors.ts';
import { admitImages, readPrivileges } from '../../src/image/criu/index.ts';
import { judgeImage } from '../../src/image/criu/admission/admit.ts';
import { ruleFor, tables } from '../../src/image/criu/admission/catalog.ts';
import type { FieldRule } from '../../src/image/criu/admission/message.ts';
import { readSpec } from '../../src/runtime/index.ts';
import type { OciSpec } from '../../src/runtime/types.ts';
import { RuncContainer } from '../support/runc-container.ts';
import { decode, encode, text, type Field } from '../support/wire-edit.ts';
import { manyKinds } from '../support/workloads/many-kinds.ts';

/** Numbers that are tried beside those of the tables. */
const HIGHEST_FIELD = 40;
/** Tables of other processors and of what this program does not have. */
const unreached = /^(?:seccomp_filter$|aarch64|pac_|x86_cet|aio|plugins|socket_file|extent|userns|sysctl|netdev|netns|pidns|ghost_chunk|ipc_msg$|tty_data|cpuinfo|cg_|termios|winsize|cgroup)/;

/** What is judged, and may still be anything here, each with the reason. */
const anything: Readonly<Record<string, string>> = {
  'rlimit.max': 'the first limit is of processor time, which this bundle does not bound',
  'thread.seccomp_filter': 'this bundle has no filter; imported-privileges.test.ts has one',
  'creds.lsm_profile': 'this bundle names no profile, so that its own program is confined by none',
  'creds.no_new_privs': 'whatever is not 0 forbids new privileges',
  'fown.pid': 'the bundle has a pid namespace, and CRIU looks for the process there',
  'socket.bound_dev': 'the bundle has a network of its own',
  'ghost.rdev': 'the deleted file is no device',
  'ids.pid_ns_id': 'any namespace but the one of CRIU is the container\'s own', 'ids.ipc_ns_id': 'the same', 'ids.uts_ns_id': 'the same', 'ids.cgroup_ns_id': 'the same', 'ids.time_ns_id': 'the same',
  'ipc_var.shm_ctlmax': 'as large as a kernel begins with', 'ipc_var.shm_ctlall': 'as large as a kernel begins with',
};

/** A message somewhere in the dump. */
interface Place {
  readonly image: string;
  readonly index: number;
  /** Positions of the fields that lead to it. */
  readonly path: readonly number[];
  readonly table: string;
  readonly fields: readonly Field[];
}

let base: string;
let images: string;
let spec: OciSpec;
const places = new Map<string, Place>();

before(async () => {
  base = mkdtempSync('/srv/imported-fields-');
  images = join(base, 'images');
  for (const name of ['images', 'work']) mkdirSync(join(base, name));
  await using container = await RuncContainer.start('imported-fields', ['python3', '-W', 'ignore', '-c', manyKinds], { tmp: true });
  await container.nextLine();
  await container.checkpoint(images, join(base, 'work'), ['--tcp-established', '--file-locks']);
  for (const name of readdirSync(images).filter((file) => file.startsWith('stats-') || file.startsWith('pages-'))) rmSync(join(images, name));
  spec = await readSpec(container.directory);
  for (const image of readdirSync(images)) collect(image);
});

after(() => rmSync(base, { recursive: true, force: true }));

/** The first message of each table. */
function collect(image: string): void {
  const rule = ruleFor(image);
  if (rule?.magic === undefined) return;
  const { messages } = split(image, readFileSync(join(images, image)));
  messages.forEach((message, index) => enter({ image, index, path: [], table: index === 0 && rule.head !== undefined ? rule.head : rule.message, fields: decode(message) }));
}

function enter(place: Place): void {
  const { table, fields, path } = place;
  if (!places.has(table)) places.set(table, place);
  fields.forEach(([number, value], position) => {
    const type = tables.rule(table).get(number)?.type ?? '';
    if (tables.has(type)) enter({ ...place, path: [...path, position], table: type, fields: decode(value as Buffer) });
  });
}

/** Where payloads follow messages, the first message only. */
function split(image: string, bytes: Buffer): { head: Buffer; messages: Buffer[]; rest: Buffer } {
  const headBytes = image === 'inventory.img' ? 4 : 8;
  const messages: Buffer[] = [];
  let at = headBytes;
  while (at < bytes.length && (messages.length === 0 || ruleFor(image)?.payload === 'none')) {
    const length = bytes.readUInt32LE(at);
    messages.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return { head: bytes.subarray(0, headBytes), messages, rest: bytes.subarray(at) };
}

function changed({ image, index, path }: Place, change: (fields: Field[]) => void): Buffer {
  const { head, messages, rest } = split(image, readFileSync(join(images, image)));
  const at = (message: Buffer, [position, ...more]: readonly number[]): Buffer => {
    const fields = decode(message);
    if (position === undefined) change(fields);
    else fields[position] = [fields[position]?.[0] ?? 0, at(fields[position]?.[1] as Buffer, more)];
    return encode(fields);
  };
  messages[index] = at(messages[index] ?? Buffer.alloc(0), path);
  return Buffer.concat([head, ...messages.flatMap((message) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(message.length);
    return [length, message];
  }), rest]);
}

/** What is wrong with the dump when one image is this; undefined: nothing. */
async function verdict(image: string, bytes: Buffer): Promise<string | undefined> {
  const path = join(images, image);
  const original = readFileSync(path);
  writeFileSync(path, bytes);
  try {
    judgeImage(images, { name: image, size: statSync(path).size });
    requireGranted(await readPrivileges(images), await admitImages(images), spec);
    return undefined;
  } catch (error) {
    assert.ok(isStasisError(error) && ['OBJECT_CORRUPT', 'RESTORE_INCOMPATIBLE'].includes(error.code), String((error as Error).stack));
    return error.message;
  } finally {
    writeFileSync(path, original);
  }
}

/** Values that no container has by chance. */
function others({ type }: FieldRule): readonly (bigint | Buffer)[] {
  switch (type) {
    case 'bool': return [1n, 2n];
    case 'text': return [text('/../outside'), text('a,b=c;d')];
    case 'bytes': return [text('/../outside'), Buffer.alloc(200, 1)];
    case 's32': return [39n, 0xfffffffen];
    case 'i32': case 'i64': return [2n ** 64n - 1000n, 0x7fffffffn];
    case 'u64': case 's64': return [2n ** 64n - 2n, 0x7fff_ffffn];
    default: return [0xfffffffen, 0x7fff_fff7n];
  }
}

void describe('fields of imported images', () => {
  void it('a dump as it is passes', async () => {
    requireGranted(await readPrivileges(images), await admitImages(images), spec);
    const missing = tables.names.filter((name) => !places.has(name) && !unreached.test(name));
    assert.deepEqual(missing, [], 'the dump has a message of every table');
  });

  void it('numbers that no table has are refused in every message', async () => {
    for (const place of places.values()) {
      const known = tables.rule(place.table);
      for (let number = 1; number <= HIGHEST_FIELD; number += 1) {
        if (known.has(number)) continue;
        assert.match((await verdict(place.image, changed(place, (fields) => fields.push([number, 1n])))) ?? 'accepted', /has field|of another version/, `field ${number} of ${place.table}`);
      }
    }
  });

  void it('known fields have their type, and are there once', async () => {
    for (const place of places.values()) {
      for (const { number, type, repeated } of tables.rule(place.table).values()) {
        const scalar = !tables.has(type) && type !== 'text' && type !== 'bytes';
        assert.ok(await verdict(place.image, changed(place, (fields) => fields.push([number, scalar ? Buffer.from('xx') : 7n]))), `field ${number} of ${place.table} with another type`);
        const there = place.fields.find(([field]) => field === number);
        if (!repeated && there !== undefined) assert.match((await verdict(place.image, changed(place, (fields) => fields.push(there)))) ?? 'accepted', /twice/, `field ${number} of ${place.table} twice`);
      }
    }
  });

  void it('whatever else a field says is refused, unless it grants nothing', async () => {
    const accepted: string[] = [];
    for (const place of places.values()) {
      for (const rule of tables.rule(place.table).values()) {
        const name = `${place.table}.${rule.name}`;
        if (rule.free !== undefined || name in anything || tables.has(rule.type)) continue;
        for (const value of others(rule)) {
          if (place.fields.some(([number, old]) => number === rule.number && old === value)) continue;
          const reason = await verdict(place.image, changed(place, (fields) => {
            const at = fields.findIndex(([number]) => number === rule.number);
            if (at < 0) fields.push([rule.number, value]);
            else fields[at] = [rule.number, value];
          }));
          if (reason === undefined) accepted.push(`${name} = ${typeof value === 'bigint' ? value : JSON.stringify(value.toString('latin1').slice(0, 20))} in ${place.image}`);
        }
      }
    }
    assert.deepEqual(accepted, []);
  });
});
