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
import { walledImages } from '../support/walled-images.ts';
import { manyKinds } from '../support/workloads/many-kinds.ts';

/** Numbers that are tried beside those of the tables. */
const HIGHEST_FIELD = 40;
/** Of what criu writes in none of these dumps: an empty one is put in. Images of their own, by the table of their message. */
const madeImages: Readonly<Record<string, string>> = { cpuinfo: 'cpuinfo.img', pidns: 'pidns-8.img' };
/** Refused as a whole, so that what is in it need not be tried. */
const otherProcessor = process.arch === 'x64' ? { table: 'aarch64', within: /^(?:aarch64|pac)_/ } : { table: 'x86', within: /^x86_/ };

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

interface Dump {
  readonly images: string;
  readonly spec: OciSpec;
}

/** A message somewhere in a dump. */
interface Place {
  readonly dump: Dump;
  readonly image: string;
  /** Among the parts of the image. */
  readonly index: number;
  /** Positions of the fields that lead to it. */
  readonly path: readonly number[];
  readonly table: string;
  readonly fields: readonly Field[];
}

let base: string;
const dumps: Dump[] = [];
const places = new Map<string, Place>();

before(async () => {
  base = mkdtempSync('/run/imported-fields-');
  dumps.push(await plainDump(), await walledDump());
  for (const dump of dumps) for (const image of readdirSync(dump.images)) collect(dump, image);
  for (const [table, image] of Object.entries(madeImages)) await makeImageOf(table, image);
  for (const table of tables.names) if (!places.has(table)) await putIn(table);
});

after(() => rmSync(base, { recursive: true, force: true }));

async function plainDump(): Promise<Dump> {
  const images = join(base, 'images');
  for (const name of ['images', 'work']) mkdirSync(join(base, name));
  await using container = await RuncContainer.start('imported-fields', ['python3', '-W', 'ignore', '-c', manyKinds], { tmp: true });
  await container.nextLine();
  await container.checkpoint(images, join(base, 'work'), ['--tcp-established', '--file-locks']);
  return withoutMemory({ images, spec: await readSpec(container.directory) });
}

async function walledDump(): Promise<Dump> {
  const images = join(base, 'walled');
  mkdirSync(images);
  return withoutMemory({ images, spec: await walledImages(images) });
}

function withoutMemory(dump: Dump): Dump {
  for (const name of readdirSync(dump.images)) if (/^(?:stats|pages)-/.test(name)) rmSync(join(dump.images, name));
  return dump;
}

/** The first message of each table. */
function collect(dump: Dump, image: string): void {
  if (ruleFor(image)?.magic === undefined) return;
  split(image, readFileSync(join(dump.images, image))).parts.forEach(({ table, bytes }, index) => {
    if (table !== undefined) enter({ dump, image, index, path: [], table, fields: decode(bytes) });
  });
}

function enter(place: Place): void {
  const { table, fields, path } = place;
  if (!places.has(table)) places.set(table, place);
  fields.forEach(([number, value], position) => {
    const type = tables.rule(table).get(number)?.type ?? '';
    if (tables.has(type)) enter({ ...place, path: [...path, position], table: type, fields: decode(value as Buffer) });
  });
}

/** A message of the fields that there must be. */
function least(table: string): Buffer {
  return encode([...tables.rule(table).values()].filter(({ required }) => required).map(({ number, type }): Field => [
    number, tables.has(type) ? least(type) : type === 'text' || type === 'bytes' ? Buffer.alloc(0) : 0n,
  ]));
}

async function makeImageOf(table: string, image: string): Promise<void> {
  const [dump] = dumps as [Dump];
  if (places.has(table)) return;
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x54564319);
  head.writeUInt32LE(ruleFor(image)?.magic ?? 0, 4);
  writeFileSync(join(dump.images, image), joined(head, [{ table, bytes: least(table) }]));
  assert.equal(await verdict(dump, image, readFileSync(join(dump.images, image))), undefined, image);
  collect(dump, image);
}

/** Into the first message that may have one. */
async function putIn(table: string): Promise<void> {
  for (const place of places.values()) {
    const rule = [...tables.rule(place.table).values()].find(({ type }) => type === table);
    if (rule === undefined) continue;
    const bytes = changed(place, (fields) => fields.push([rule.number, least(table)]));
    if ((await verdict(place.dump, place.image, bytes)) !== undefined) continue;
    writeFileSync(join(place.dump.images, place.image), bytes);
    places.clear();
    for (const dump of dumps) for (const image of readdirSync(dump.images)) collect(dump, image);
    return;
  }
}

interface Part {
  /** Undefined: no message, but what one speaks of. */
  readonly table: string | undefined;
  readonly bytes: Buffer;
}

/** As walk.ts has it; what follows a payload that is no message stays in one part. */
function split(image: string, bytes: Buffer): { head: Buffer; parts: Part[] } {
  const rule = ruleFor(image);
  const headBytes = image === 'inventory.img' ? 4 : 8;
  const parts: Part[] = [];
  let at = headBytes;
  const message = (table: string): Map<string, bigint> => {
    const length = bytes.readUInt32LE(at);
    const found = bytes.subarray(at + 4, at + 4 + length);
    at += 4 + length;
    parts.push({ table, bytes: found });
    const numbers = decode(found).map(([number, value]) => [tables.rule(table).get(number)?.name ?? '', value] as const);
    return new Map(numbers.filter((entry): entry is [string, bigint] => typeof entry[1] === 'bigint'));
  };
  const raw = (count: number): void => {
    parts.push({ table: undefined, bytes: bytes.subarray(at, at + count) });
    at += count;
  };
  if (rule?.head !== undefined) message(rule.head);
  while (at < bytes.length) {
    const fields = message(rule?.message ?? '');
    if (rule?.payload === 'messages') {
      for (let left = Number(fields.get('qnum')); left > 0; left -= 1) raw(Math.ceil(Number(message('ipc_msg').get('msize')) / 8) * 8);
    } else if (rule?.payload === 'ghost' && fields.get('chunks') === 1n) {
      while (at < bytes.length) raw(Number(message('ghost_chunk').get('len')));
    } else if (rule?.payload !== 'none') raw(bytes.length - at);
  }
  return { head: bytes.subarray(0, headBytes), parts };
}

function joined(head: Buffer, parts: readonly Part[]): Buffer {
  return Buffer.concat([head, ...parts.flatMap(({ table, bytes }) => {
    if (table === undefined) return [bytes];
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return [length, bytes];
  })]);
}

function changed({ dump, image, index, path }: Place, change: (fields: Field[]) => void): Buffer {
  const { head, parts } = split(image, readFileSync(join(dump.images, image)));
  const at = (message: Buffer, [position, ...more]: readonly number[]): Buffer => {
    const fields = decode(message);
    if (position === undefined) change(fields);
    else fields[position] = [fields[position]?.[0] ?? 0, at(fields[position]?.[1] as Buffer, more)];
    return encode(fields);
  };
  return joined(head, parts.map((part, number) => (number === index ? { ...part, bytes: at(part.bytes, path) } : part)));
}

/** What is wrong with the dump when one image is this; undefined: nothing. */
async function verdict({ images, spec }: Dump, image: string, bytes: Buffer): Promise<string | undefined> {
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

const tried = (place: Place, change: (fields: Field[]) => void): Promise<string | undefined> => verdict(place.dump, place.image, changed(place, change));

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
  void it('dumps as they are pass, and have a message of every table', async () => {
    for (const { images, spec } of dumps) requireGranted(await readPrivileges(images), await admitImages(images), spec);
    const missing = tables.names.filter((name) => !places.has(name) && name !== otherProcessor.table && !otherProcessor.within.test(name));
    assert.deepEqual(missing, []);
  });

  void it('what belongs to another processor is refused as a whole', async () => {
    const { table } = otherProcessor;
    const core = places.get('core')!;
    const number = [...tables.rule('core').values()].find(({ type }) => type === table)?.number ?? 0;
    assert.match(await tried(core, (fields) => fields.push([number, least(table)])) ?? 'accepted', /another processor/);
  });

  void it('packet filters are those that CRIU locks the network with, and no others', async () => {
    const dump = dumps[1]!;
    const image = readdirSync(dump.images).find((name) => name.startsWith('nftables-')) ?? '';
    const locked = readFileSync(join(dump.images, image));
    assert.match(locked.toString('latin1'), /table inet CRIU-/);
    const own = Buffer.concat([Buffer.from('table inet mine {\n}\n'), locked]);
    assert.match(await verdict(dump, image, own) ?? 'accepted', /packet filters of its own/);
  });

  void it('numbers that no table has are refused in every message', async () => {
    for (const place of places.values()) {
      const known = tables.rule(place.table);
      for (let number = 1; number <= HIGHEST_FIELD; number += 1) {
        if (known.has(number)) continue;
        assert.match((await tried(place, (fields) => fields.push([number, 1n]))) ?? 'accepted', /has field|of another version/, `field ${number} of ${place.table}`);
      }
    }
  });

  void it('known fields have their type, and are there once', async () => {
    for (const place of places.values()) {
      for (const { number, type, repeated } of tables.rule(place.table).values()) {
        const scalar = !tables.has(type) && type !== 'text' && type !== 'bytes';
        assert.ok(await tried(place, (fields) => fields.push([number, scalar ? Buffer.from('xx') : 7n])), `field ${number} of ${place.table} with another type`);
        const there = place.fields.find(([field]) => field === number);
        if (!repeated && there !== undefined) assert.match((await tried(place, (fields) => fields.push(there))) ?? 'accepted', /twice/, `field ${number} of ${place.table} twice`);
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
          const reason = await tried(place, (fields) => {
            const at = fields.findIndex(([number]) => number === rule.number);
            if (at < 0) fields.push([rule.number, value]);
            else fields[at] = [rule.number, value];
          });
          if (reason === undefined) accepted.push(`${name} = ${typeof value === 'bigint' ? value : JSON.stringify(value.toString('latin1').slice(0, 20))} in ${place.image}`);
        }
      }
    }
    assert.deepEqual(accepted, []);
  });
});
