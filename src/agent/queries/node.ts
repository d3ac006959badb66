/** Versions, features and limits of this node. */
import type * as api from '../../rpc/api.ts';
import type { AgentContext } from '../context.ts';

export async function nodeInfo(agent: AgentContext, { caller }: api.CallContext): Promise<api.Node> {
  const { settings, toolchain, staging, operations } = agent;
  const free = await agent.repository.freeBytes();
  const roots = agent.roots;
  const own = await agent.keys.own.keys();
  return {
    name: settings.nodeName, agentVersion: settings.version, startedMs: agent.startedMs, kernel: toolchain.kernel, architecture: process.arch,
    criuVersion: toolchain.criu.text,
    runtimes: toolchain.runtimes.map(({ name, binary, version }) => ({ name, binary, version, roots: roots.filter((root) => root.runtime === name).map((root) => root.root) })),
    features: Object.entries(toolchain.features).map(([name, available]) => ({ name, available })), problems: toolchain.problems,
    limits: { parallelOperations: settings.parallel, freezeBudgetMs: settings.freezeBudgetMs, stopBudgetMs: settings.stopBudgetMs, ghostLimitBytes: settings.ghostLimitBytes },
    keys: { signer: hex(own.signer), recipient: own.own.map(hex).join(', '), trustedSigners: agent.keys.trustedSigners },
    staging: { sizeBytes: staging.sizeBytes, usedBytes: staging.usedBytes() },
    repository: { description: agent.storeDescription, cipher: 'xchacha20-poly1305', plaintextFor: settings.plaintextFor.map(({ text }) => text), ...(free === undefined ? {} : { freeBytes: free }) },
    operationsRunning: operations.list().filter((status) => status.state === 'running').length,
    callerRoles: [...caller.roles],
  };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
