/**
 * Every event that the agent logs: its level and what it tells. The logger takes only these names;
 * docs/EVENTS.md has one row for each, and a test keeps the two equal.
 */
export type Level = 'debug' | 'info' | 'warn' | 'error' | 'fatal';

export const events = {
  'agent.started': { level: 'info', meaning: 'The agent serves; with its version, sockets and repository.' },
  'agent.stopping': { level: 'info', meaning: 'The agent was asked to stop and takes no new operations.' },
  'agent.stopped': { level: 'info', meaning: 'The agent has let go of everything and ends.' },
  'agent.crashed': { level: 'fatal', meaning: 'An error that nobody caught; the guards thaw what is frozen, and the agent ends.' },
  'config.loaded': { level: 'info', meaning: 'The configuration in effect, by its keys that are not the default.' },
  'node.probed': { level: 'info', meaning: 'Versions and features of kernel, CRIU and runtimes.' },
  'node.problem': { level: 'warn', meaning: 'Something about this node will keep checkpoints or restores from working.' },
  'key.created': { level: 'info', meaning: 'The key file of this node was made, because there was none.' },
  'operation.queued': { level: 'info', meaning: 'An operation waits, because as many as allowed run.' },
  'operation.joined': { level: 'info', meaning: 'A request with a known operation id got the running operation or its outcome.' },
  'operation.step': { level: 'debug', meaning: 'A step of an operation begins; it is in the journal.' },
  'operation.cancelled': { level: 'warn', meaning: 'An operation was cancelled, and by whom.' },
  'operation.recovered': { level: 'warn', meaning: 'What a dead agent had left of an operation was finished or rolled back.' },
  'operation.unrecovered': { level: 'error', meaning: 'What a dead agent had left of an operation could not be cleaned up.' },
  'checkpoint.started': { level: 'info', meaning: 'A checkpoint begins; with who asked and why.' },
  'checkpoint.refused': { level: 'warn', meaning: 'The preflight found that the container cannot be checkpointed.' },
  'checkpoint.frozen': { level: 'info', meaning: 'The container stands still from now on.' },
  'checkpoint.thawed': { level: 'info', meaning: 'The container runs again; with how long it was frozen.' },
  'checkpoint.committed': { level: 'info', meaning: 'The manifest is durable: the checkpoint is visible; with its bytes.' },
  'checkpoint.finished': { level: 'info', meaning: 'A checkpoint is complete; with its phases.' },
  'checkpoint.failed': { level: 'error', meaning: 'A checkpoint failed; with the error. The container is as before, or has exited by itself.' },
  'checkpoint.deleted': { level: 'info', meaning: 'A checkpoint was deleted from the repository.' },
  'checkpoint.verified': { level: 'info', meaning: 'Every byte of a checkpoint was read back; with what was found.' },
  'restore.started': { level: 'info', meaning: 'A restore begins; with who asked and why.' },
  'restore.finished': { level: 'info', meaning: 'The restored container runs; with its pid and phases.' },
  'restore.failed': { level: 'error', meaning: 'A restore failed; with the error. Nothing of it is left.' },
  'container.left': { level: 'warn', meaning: 'A checkpoint stands and its container is to be dead, but the runtime could not be made to forget it.' },
  'lineage.unwritten': { level: 'warn', meaning: 'The lineage of a container could not be written down; after a restart of the agent its next checkpoint begins a new one.' },
  'guard.armed': { level: 'debug', meaning: "The dead man's switch of a container is set, with its budget." },
  'guard.fired': { level: 'error', meaning: 'A container stood still beyond its budget and was thawed by the guard.' },
  'guard.stale': { level: 'warn', meaning: 'A guard of a dead agent was found and taken care of.' },
  'repository.opened': { level: 'info', meaning: 'The repository is open; with its place.' },
  'repository.problem': { level: 'error', meaning: 'An object of the repository cannot be read or is damaged.' },
  'repository.discarded': { level: 'info', meaning: 'What an unfinished checkpoint had written was removed.' },
  'rpc.listening': { level: 'info', meaning: 'The API is open at this address.' },
  'rpc.finished': { level: 'debug', meaning: 'A call has ended; with its method, caller, status and duration.' },
  'rpc.denied': { level: 'warn', meaning: 'A caller lacks the role for a method, or showed no valid certificate.' },
  'rpc.failed': { level: 'error', meaning: 'A call failed for a reason of ours (INTERNAL); with the stack.' },
  'rpc.terminated': { level: 'warn', meaning: 'Calls were still open when the time for stopping was over, and were cut.' },
  'http.listening': { level: 'info', meaning: 'Metrics and health are served at this address.' },
} as const satisfies Readonly<Record<string, { readonly level: Level; readonly meaning: string }>>;

export type EventName = keyof typeof events;
