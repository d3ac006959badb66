/** Which operations are taken, how many at once, and who waits for whom. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Operations } from '../../src/agent/operations.ts';
import type { StartOptions } from '../../src/agent/operations.ts';
import { systemClock } from '../../src/core/clock.ts';
import { noFailpoints } from '../../src/core/failpoint.ts';
import { newOperationId } from '../../src/core/ids.ts';

const options = (more: Partial<StartOptions>): StartOptions => {
  const id = newOperationId();
  return { id, kind: 'restore', target: 'x', steps: ['work'], deadlineMs: 60_000, exclusive: id, principal: 'rita', reason: '', ...more };
};

function fresh(): { operations: Operations; release(): void; begin(more?: Partial<StartOptions>): Promise<unknown> } {
  const operations = new Operations({ parallel: 2, transfers: 2, clock: systemClock, failpoints: noFailpoints });
  const { promise, resolve } = Promise.withResolvers<void>();
  return { operations, release: resolve, begin: (more = {}) => operations.start(options(more), (operation) => operation.step('work', () => promise)).outcome };
}

test('one caller cannot fill the queue for the others, and all together not the memory', async () => {
  const { operations, release, begin } = fresh();
  const begun: Promise<unknown>[] = [];
  for (let i = 0; i < 100; i += 1) begun.push(begin());
  assert.throws(() => begin(), { code: 'AGENT_BUSY', message: /100 of them for "rita"/ });
  // A lazy restore that succeeded must be able to fill.
  begun.push(begin({ kind: 'fill', slots: 'none' }));
  begun.push(begin({ principal: 'olga' }));
  for (let i = 0; i < 299; i += 1) begun.push(begin({ principal: `p${Math.floor(i / 50)}` }));
  assert.throws(() => begin({ principal: 'new' }), { code: 'AGENT_BUSY' });
  release();
  await Promise.all(begun);
  await begin();
  assert.equal(operations.list().filter(({ state }) => state === 'running').length, 0);
});

test('transfers do not take the slots of work', async () => {
  const { operations, release, begin } = fresh();
  const begun = Array.from({ length: 5 }, () => begin({ kind: 'export', slots: 'transfers' }));
  const work = operations.start(options({ kind: 'checkpoint' }), (operation) => operation.step('work', async () => 'done'));
  assert.equal(await work.outcome, 'done');
  assert.equal(operations.list().filter(({ kind, stepNumber, state }) => kind === 'export' && state === 'running' && stepNumber === 1).length, 2);
  release();
  await Promise.all(begun);
});
