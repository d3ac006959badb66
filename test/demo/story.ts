/** The demo's story: two real workloads are saved, killed and brought back, and nothing is lost. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { startContainer } from '../support/containers.ts';
import { RedisClient, RedisWriter, startRedis, wrongKeys } from '../support/workloads/redis.ts';
import { checkpoint, restore, stasis, type CheckpointFigures, type RestoreFigures } from './stasis.ts';

const VALUE_BYTES = 4096;
const KEYS_AT_LEAST = 16_000;

/** One saved container; `restore` is absent when it was left running. */
export interface Chapter {
  readonly title: string;
  readonly container: string;
  readonly checkpoint: CheckpointFigures;
  readonly restore?: RestoreFigures;
}

export interface Proof {
  readonly claim: string;
  readonly holds: boolean;
  readonly evidence: string;
}

export interface Story {
  readonly chapters: readonly Chapter[];
  readonly proofs: Proof[];
}

export async function tell(say: (line: string) => void): Promise<Story> {
  say('Starting a redis server and a counter, each in a container of its own …');
  await using stack = new AsyncDisposableStack();
  stack.adopt(await startRedis('redis'), (container) => container.stop());
  const counter = stack.adopt(await startContainer({
    runtime: 'runc', id: 'counter',
    args: ['/bin/sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i >> /count; sleep 0.02; done'],
  }), (container) => container.stop());

  say(`A client writes key after key to redis over one connection, ${VALUE_BYTES} bytes each …`);
  const writer = new RedisWriter(await RedisClient.connect(), { first: 1, bytes: VALUE_BYTES, ahead: 32 });
  while (writer.acknowledged < KEYS_AT_LEAST) await delay(20);

  const running = await snapshotOfRunning(say, writer);
  const [stopped, redisProofs] = await redisThroughDeath(say, writer);
  const [back, counterProof] = await counterThroughDeath(say, counter.pid);
  return { chapters: [running, stopped, back], proofs: [...redisProofs, counterProof] };
}

async function snapshotOfRunning(say: (line: string) => void, writer: RedisWriter): Promise<Chapter> {
  say('\n$ stasis checkpoint --leave-running --tcp-established redis');
  const before = writer.acknowledged;
  const figures = await checkpoint('redis', ['--leave-running', '--tcp-established']);
  await until(() => writer.acknowledged > before + 100);
  say(`  Redis runs on: ${writer.acknowledged - before} more keys were acknowledged.`);
  return { title: 'redis, left running', container: 'redis', checkpoint: figures };
}

async function redisThroughDeath(say: (line: string) => void, writer: RedisWriter): Promise<[Chapter, Proof[]]> {
  say('\n$ stasis checkpoint --tcp-established redis');
  writer.takeLongestGapMs();
  const figures = await checkpoint('redis', ['--tcp-established']);
  const listed = await stasis(['ps', '--json'], 'pipe');
  const gone = !(JSON.parse(listed) as { containers: { id: string }[] }).containers.some(({ id }) => id === 'redis');
  const atDeath = writer.acknowledged;
  say(`  Redis is dead. ${atDeath} keys were acknowledged; the client waits for the next answer.`);

  say(`\n$ stasis restore --tcp-established ${figures.checkpoint}`);
  const back = await restore(figures.checkpoint, ['--tcp-established']);
  await until(() => writer.acknowledged > atDeath + 1000);
  const last = await writer.stop();
  const gapMs = writer.takeLongestGapMs();
  const reader = await RedisClient.connect();
  const wrong = await wrongKeys(reader, last, VALUE_BYTES);
  reader.close();
  say(`  Redis is back, and so is its connection: the client, which saw a pause of ${Math.round(gapMs)} ms, went on to key ${last}.`);
  return [{ title: 'redis, stopped', container: 'redis', checkpoint: figures, restore: back }, [
    { claim: 'redis was dead between checkpoint and restore', holds: gone, evidence: 'stasis ps did not list it' },
    { claim: 'every acknowledged key is in redis', holds: wrong.length === 0, evidence: `${last - wrong.length} of ${last} keys read back with their values` },
    { claim: 'the open connection survived', holds: last > atDeath + 1000, evidence: `${last - atDeath} keys acknowledged over it after the restore` },
  ]];
}

async function counterThroughDeath(say: (line: string) => void, pid: number): Promise<[Chapter, Proof]> {
  say('\n$ stasis checkpoint counter');
  const seenBefore = counted(pid).length;
  const figures = await checkpoint('counter', []);
  say('  The counter is dead.');

  say(`\n$ stasis restore ${figures.checkpoint}`);
  const back = await restore(figures.checkpoint, []);
  const atReturn = counted(back.pid).length;
  await until(() => counted(back.pid).length > atReturn + 20);
  const numbers = counted(back.pid);
  const whole = numbers.every((value, index) => value === index + 1) && atReturn >= seenBefore;
  say(`  The counter counts on: ${numbers.length} by now.`);
  return [{ title: 'counter, stopped', container: 'counter', checkpoint: figures, restore: back }, {
    claim: 'the counter went on at n + 1', holds: whole, evidence: `its file holds 1 to ${numbers.length}, each number once, in order`,
  }];
}

/** The numbers that the counter wrote into its own root file system. */
function counted(pid: number): number[] {
  return readFileSync(`/proc/${pid}/root/count`, 'utf8').split('\n').slice(0, -1).map(Number);
}

async function until(condition: () => boolean): Promise<void> {
  for (let waitedMs = 0; !condition(); waitedMs += 10) {
    if (waitedMs > 20_000) throw new Error('nothing moved for 20 seconds');
    await delay(10);
  }
}
