import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { OperationId } from '../../src/core/ids.ts';
import { MNT_DETACH, umount } from '../../src/host/libc.ts';
import { readMountinfo } from '../../src/host/mountinfo.ts';
import { openStaging } from '../../src/host/staging.ts';

const MiB = 1024 * 1024;
const signal = undefined;
const operation = (name: string): OperationId => name as OperationId;

void describe('staging', () => {
  const base = mkdtempSync(join(tmpdir(), 'staging-'));
  after(() => rmSync(base, { recursive: true }));
  let count = 0;
  const place = (): string => join(base, `s${count++}`);
  const mounts = (directory: string): number => readMountinfo('self').filter(({ mountPoint }) => mountPoint === directory).length;

  void it('is a private, bounded tmpfs that cannot be swapped, and goes away', async () => {
    const directory = place();
    const staging = await openStaging(directory, { sizeBytes: 64 * MiB });
    const mounted = readMountinfo('self').find(({ mountPoint }) => mountPoint === directory);
    assert.equal(mounted?.fsType, 'tmpfs');
    assert.equal(staging.unswappable, true);
    for (const option of ['nosuid', 'nodev', 'noexec']) assert.ok(mounted.options.includes(option), option);
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    assert.equal(staging.availableBytes(), 64 * MiB);
    await staging[Symbol.asyncDispose]();
    assert.equal(mounts(directory), 0);
  });

  void it('takes no more for small files than they hold: CRIU writes about eight for each process', async () => {
    await using staging = await openStaging(place(), { sizeBytes: 256 * MiB });
    const area = await staging.open(operation('a'));
    for (let count = 0; count < 200; count++) writeFileSync(join(area.directory, `core-${count}.img`), Buffer.alloc(300, 1));
    assert.ok(staging.usedBytes() <= 2 * MiB, `${staging.usedBytes()} bytes`);
  });

  void it('holds what is reserved and hands it over', async () => {
    const directory = place();
    await using staging = await openStaging(directory, { sizeBytes: 64 * MiB });
    const area = await staging.open(operation('a'));
    assert.equal(statSync(area.directory).mode & 0o777, 0o700);
    const reservation = await area.reserve(48 * MiB, { signal });
    assert.ok(staging.usedBytes() >= 48 * MiB);
    assert.ok(staging.availableBytes() <= 16 * MiB);
    const other = await staging.open(operation('b'));
    await assert.rejects(other.reserve(17 * MiB, { signal }), { code: 'NO_SPACE' });
    await assert.rejects(other.require(17 * MiB, { signal }), { code: 'NO_SPACE' });
    await reservation.release();
    await reservation.release();
    assert.equal(staging.usedBytes(), 0);
    // The space is still that operation's.
    await assert.rejects(other.reserve(17 * MiB, { signal }), { code: 'NO_SPACE' });
    writeFileSync(join(area.directory, 'pages-1.img'), Buffer.alloc(48 * MiB, 1));
    await other.require(10 * MiB, { signal });
    await area[Symbol.asyncDispose]();
    assert.ok(!existsSync(area.directory));
    assert.equal(staging.usedBytes(), 0);
    assert.equal(staging.availableBytes(), 54 * MiB);
    await other[Symbol.asyncDispose]();
    assert.equal(staging.availableBytes(), 64 * MiB);
  });

  void it('says how much is missing', async () => {
    await using staging = await openStaging(place(), { sizeBytes: 8 * MiB });
    await using area = await staging.open(operation('a'));
    await assert.rejects(area.reserve(9 * MiB, { signal }), { code: 'NO_SPACE', message: /9\.00 MiB .* 8\.00 MiB of 8\.00 MiB/, hint: /staging\.size/ });
    await using large = await openStaging(place(), { sizeBytes: 2 * freemem() });
    await using greedy = await large.open(operation('a'));
    await assert.rejects(greedy.reserve(freemem(), { signal }), { code: 'NO_MEMORY' });
    assert.equal(large.usedBytes(), 0);
  });

  void it('gives everything back when it is cancelled', async () => {
    await using staging = await openStaging(place(), { sizeBytes: 64 * MiB });
    await using area = await staging.open(operation('a'));
    const abort = new AbortController();
    const reserving = area.reserve(64 * MiB, { signal: abort.signal });
    abort.abort(new Error('stop'));
    await assert.rejects(reserving, /stop/);
    assert.equal(staging.usedBytes(), 0);
    assert.deepEqual(readdirSync(area.directory), []);
    assert.equal(staging.availableBytes(), 64 * MiB);
  });

  void it('takes over what a dead agent left: readable for recovery, gone before the next operation', async () => {
    const directory = place();
    const dead = await openStaging(directory, { sizeBytes: 32 * MiB });
    const left = await dead.open(operation('dead'));
    mkdirSync(join(left.directory, 'images'));
    writeFileSync(join(left.directory, 'images', 'pages-1.img'), Buffer.alloc(24 * MiB, 7));
    writeFileSync(join(left.directory, 'session'), '1234');

    const staging = await openStaging(directory, { sizeBytes: 16 * MiB });
    assert.equal(mounts(directory), 1);
    assert.equal(readFileSync(join(left.directory, 'session'), 'utf8'), '1234');
    assert.equal(staging.availableBytes(), 0);
    await using area = await staging.open(operation('new'));
    assert.deepEqual(readdirSync(directory), ['new']);
    assert.equal(staging.availableBytes(), 16 * MiB);
    // The smaller size holds now.
    assert.throws(() => writeFileSync(join(area.directory, 'x'), Buffer.alloc(17 * MiB)), { code: 'ENOSPC' });
    umount(directory, MNT_DETACH);
  });

  void it('does not hold up the event loop while it reserves', async () => {
    await using staging = await openStaging(place(), { sizeBytes: 256 * MiB });
    await using area = await staging.open(operation('a'));
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 1);
    const reservation = await area.reserve(256 * MiB, { signal });
    clearInterval(timer);
    await reservation.release();
    assert.ok(longest < 500, `${longest} ms without a turn`);
  });
});
