/** The part of the API that is about keys: who can read what, and who no more. */
import { StasisError } from '../core/errors.ts';
import { parseLineageId, type CheckpointId, type LineageId } from '../core/ids.ts';
import type { KeyChange, KeyState } from '../repository/index.ts';
import type { AgentHandlers, CallContext } from '../rpc/api.ts';
import type * as api from '../rpc/api.ts';
import type { AgentContext } from './context.ts';
import { follow } from './queries/watch.ts';
import { countInto, operationId } from './repository-service.ts';
import { someProblems } from './results.ts';

const ROTATE_STEPS = ['rotate'] as const;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

type Handlers = Pick<AgentHandlers, 'getKeys' | 'listLineageKeys' | 'changeRecipients' | 'shredLineages'>;

export function keysHandlers(agent: AgentContext): Handlers {
  return {
    getKeys: async () => {
      const [own, wrapping] = [await agent.keys.own.keys(), await agent.keys.provider.keys()];
      return {
        provider: own.description, signer: hex(own.signer), formerSigners: own.formerSigners.map(hex), own: own.own.map(hex), recipients: wrapping.recipients.map(hex),
        trustedSigners: agent.keys.trustedSigners,
      };
    },
    listLineageKeys: async (_request, { signal }) => {
      const problems: api.Problem[] = [];
      const keys = await agent.repository.keyring.list({
        signal,
        onProblem: (object, error) => problems.push({ object, code: (error as StasisError).code, message: error.message }),
      });
      return { keys, problems: someProblems(problems) };
    },
    changeRecipients: (request, context) => changeRecipients(agent, request, context),
    shredLineages: (request, context) => shred(agent, request, context),
  };
}

async function* changeRecipients(agent: AgentContext, request: api.ChangeRecipientsRequest, { caller, signal: callSignal }: CallContext): AsyncIterable<api.ChangeRecipientsEvent> {
  const started = agent.clock.monotonic();
  const lineages = request.lineages.length === 0 ? undefined : request.lineages.map(parseLineageId);
  const change = await changeOf(agent, request);
  const id = operationId(request.operationId);
  const { operation, outcome } = agent.operations.start({
    id, kind: 'rotate', target: 'repository', steps: ROTATE_STEPS, deadlineMs: request.deadlineMs ?? agent.settings.operationDeadlineMs,
    // Two at once take turns in each lineage. It moves no data, so nobody has to wait for it.
    exclusive: `rotate ${id}`, slots: 'none', principal: caller.principal, reason: request.reason,
  }, (running) => running.step('rotate', (signal) => agent.repository.keyring.rewrapAll(lineages, change.change, {
    signal, dryRun: request.dryRun, onLineage: countInto(running),
    onChanged: (lineage, epoch) => agent.log.event('keys.rewrapped', { lineage, epoch, ...change.said, principal: caller.principal, reason: request.reason }),
  })));
  yield* follow<api.ChangeRecipientsEvent>(agent, operation, callSignal, (progress) => ({ type: 'progress', progress }));
  yield { type: 'report', report: { ...(await outcome), dryRun: request.dryRun, totalMs: agent.clock.monotonic() - started } };
}

interface Change {
  readonly change: KeyChange;
  /** For the log. */
  readonly said: Readonly<Record<string, unknown>>;
}

async function changeOf(agent: AgentContext, { add, remove, rotate, exact, endLineages }: api.ChangeRecipientsRequest): Promise<Change> {
  for (const key of [...add, ...remove]) requireKey(key);
  const both = add.find((key) => remove.includes(key));
  if (both !== undefined) throw new StasisError('USAGE', `${both} cannot be added and removed at once`, { hint: 'choose one of the two' });
  if (add.length === 0 && remove.length === 0 && !rotate && !exact && !endLineages) throw new StasisError('USAGE', 'nothing is to be changed', { hint: 'name a key to add or to remove, or rotate' });
  const [{ own }, { recipients }] = [await agent.keys.own.keys(), await agent.keys.provider.keys()];
  const [mine, today] = [new Set(own.map(hex)), recipients.map(hex)];
  const base = (state: KeyState): readonly string[] => {
    if (exact) return today;
    if (!rotate || !state.recipients.some((key) => mine.has(key))) return state.recipients;
    return [...state.recipients.filter((key) => !mine.has(key)), ...today];
  };
  return {
    change: (state) => ({ recipients: [...new Set([...base(state), ...add])].filter((key) => !remove.includes(key)), ended: state.ended || endLineages }),
    said: { added: exact || rotate ? [...today, ...add] : add, removed: remove, ...(rotate ? { rotated: true } : {}), ...(exact ? { exact: true } : {}), ...(endLineages ? { ended: true } : {}) },
  };
}

function requireKey(text: string): void {
  if (!/^[0-9a-f]{64}$/.test(text)) throw new StasisError('USAGE', `${JSON.stringify(text.slice(0, 80))} is not a public key`, { hint: 'expected 64 hexadecimal digits, as stasis keys list and generate show them (the recipient, not the signer)' });
}

/** All are looked at before the first goes. */
async function shred(agent: AgentContext, { lineages, force, dryRun, reason }: api.ShredLineagesRequest, { caller, signal }: CallContext): Promise<api.ShredLineagesResponse> {
  const wanted = [...new Set(lineages.map(parseLineageId))];
  if (wanted.length === 0) throw new StasisError('USAGE', 'no lineage is named', { hint: 'stasis repo keys shows them' });
  const { keyring, maintenance } = agent.repository;
  const [checkpoints, pins] = [await keyring.checkpoints({ signal }), new Set<string>((await maintenance.pins({ signal })).map(({ checkpoint }) => checkpoint))];
  const shredded = wanted.map((lineage) => {
    const ids = checkpoints.get(lineage) ?? [];
    return { lineage, checkpoints: ids, pinned: ids.filter((id) => pins.has(id)) };
  });
  if (dryRun) return { shredded };
  for (const one of shredded) requireUnused(agent, one, force);
  for (const { lineage, checkpoints: ids } of shredded) {
    await keyring.shred(lineage, { signal });
    agent.log.event('keys.shredded', { lineage, checkpoints: ids, forced: force, principal: caller.principal, reason });
  }
  return { shredded };
}

function requireUnused(agent: AgentContext, { lineage, checkpoints, pinned }: { lineage: LineageId; checkpoints: readonly CheckpointId[]; pinned: readonly string[] }, force: boolean): void {
  if (pinned[0] !== undefined && !force) {
    throw new StasisError('CHECKPOINT_IN_USE', `lineage ${lineage} has ${pinned.length} pinned checkpoint${pinned.length === 1 ? '' : 's'} (${pinned[0]})`, { hint: 'unpin them first, or shred with --force' });
  }
  const reading = agent.operations.list().find(({ state, target }) => state === 'running' && checkpoints.some((id) => id === target));
  if (reading !== undefined) throw new StasisError('CHECKPOINT_IN_USE', `operation ${reading.id} (${reading.kind}) reads checkpoint ${reading.target} of lineage ${lineage}`, { hint: `wait for it, or cancel it: stasis cancel ${reading.id}` });
  for (const id of checkpoints) agent.fills.requireUnused(id);
}
