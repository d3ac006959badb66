/**
 * Who may call what. Roles come from the organizational units (OU) of the client's certificate, several allowed;
 * whoever can open the agent's UNIX socket (root) has all of them.
 * - viewer looks: containers, checkpoints, operations, the node.
 * - operator starts work that runs nobody's code: checkpoint, verify, check, delete, pin, prune, cancel, probe of the store.
 * - restorer starts processes out of a checkpoint, or takes it out of the repository in plaintext: restore, verify, check, cancel,
 *   export; and import, which puts a stranger's checkpoint beside those that may be restored.
 * - keeper decides who can read and who never will again: recipients of keys, shredding.
 * Operators, restorers and keepers are viewers, too.
 */
import { StasisError } from '../core/errors.ts';
import type { AgentHandlers, Caller } from './api.ts';

export const roles = ['viewer', 'operator', 'restorer', 'keeper'] as const;
export type Role = (typeof roles)[number];
export type MethodName = keyof AgentHandlers;

const anybody: readonly Role[] = roles;
const workers: readonly Role[] = ['operator', 'restorer'];

/** Any one of the roles is enough. */
export const allowedRoles: Readonly<Record<MethodName, readonly Role[]>> = {
  checkpoint: ['operator'],
  restore: ['restorer'],
  listContainers: anybody,
  listCheckpoints: anybody,
  inspectCheckpoint: anybody,
  verifyCheckpoint: workers,
  deleteCheckpoint: ['operator'],
  watchOperations: anybody,
  cancelOperation: [...workers, 'keeper'],
  getNode: anybody,
  exportCheckpoint: ['restorer'],
  importCheckpoint: ['restorer'],
  pinCheckpoint: ['operator'],
  repositoryStats: anybody,
  checkRepository: workers,
  pruneRepository: ['operator'],
  getKeys: anybody,
  listLineageKeys: anybody,
  changeRecipients: ['keeper'],
  shredLineages: ['keeper'],
  probeStore: ['operator'],
};

export const localCaller: Caller = { principal: 'local', roles: new Set(roles), transport: 'unix' };

/** The caller behind a verified client certificate. Organizational units that are not roles mean nothing. */
export function callerOfCertificate(subject: { readonly CN?: unknown; readonly OU?: unknown } | undefined): Caller {
  if (subject === undefined) {
    throw new StasisError('UNAUTHENTICATED', 'the caller showed no certificate', { hint: 'connect with --tls-cert and --tls-key' });
  }
  const units = ([] as unknown[]).concat(subject.OU ?? []);
  const known = roles.filter((role) => units.includes(role));
  const name = ([] as unknown[]).concat(subject.CN ?? [])[0];
  // "local" is whoever can open the UNIX socket: nobody calls himself so from outside.
  return { principal: typeof name !== 'string' ? 'unnamed' : name === localCaller.principal ? `certificate ${name}` : name, roles: new Set(known), transport: 'tls' };
}

export function authorize(caller: Caller, method: MethodName): void {
  const wanted = allowedRoles[method];
  if (wanted.some((role) => caller.roles.has(role))) return;
  const has = caller.roles.size === 0 ? 'no role' : `only ${[...caller.roles].join(', ')}`;
  throw new StasisError('PERMISSION_DENIED', `${JSON.stringify(caller.principal)} may not call ${method}: it has ${has}, and needs ${wanted.join(' or ')}`, {
    hint: `use a client certificate whose subject has OU=${wanted[0] ?? 'viewer'}, or the agent's UNIX socket on the node itself`,
    details: { principal: caller.principal, method, needs: wanted.join(',') },
  });
}
