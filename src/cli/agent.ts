/** How commands reach the agent: the options for it, and the connection, loaded only when a command really calls. */
import type { Command } from 'commander';
import type { AgentClient } from '../rpc/api.ts';
import type { ClientFlags } from '../config/client.ts';

export interface AgentOptions extends ClientFlags {
  readonly json?: boolean;
}

export function agentOptions(command: Command): Command {
  return command
    .option('--json', 'print JSON: one object, or one line for each event')
    .option('--socket <path>', "the agent's UNIX socket (default: STASIS_SOCKET, the agent's configuration, or /run/stasis/agent.sock)")
    .option('--address <host:port>', 'an agent on another node, with mutual TLS (default: STASIS_ADDRESS)')
    .option('--tls-cert <file>', 'own certificate, PEM (default: STASIS_TLS_CERT)')
    .option('--tls-key <file>', 'its private key, PEM (default: STASIS_TLS_KEY)')
    .option('--tls-ca <file>', "CA that signed the agent's certificate, PEM (default: STASIS_TLS_CA)")
    .option('--tls-server-name <name>', "name in the agent's certificate, when it is not that of the address");
}

/** How long a question that the agent answers at once may take. */
export const QUICK_MS = 30_000;

export async function withAgent<T>(options: ClientFlags, use: (agent: AgentClient) => Promise<T>): Promise<T> {
  const [{ clientTarget }, { connectAgent }] = await Promise.all([import('../config/client.ts'), import('../rpc/client.ts')]);
  const target = await clientTarget(options);
  const agent = await connectAgent(target.kind === 'unix'
    ? { socket: target.path }
    : { address: target.address, tls: { cert: target.cert, key: target.key, ca: target.ca }, serverName: target.serverName });
  try {
    return await use(agent);
  } finally {
    agent.close();
  }
}
