/**
 * stasis completion bash|zsh|fish: the scripts are a few lines that ask `stasis __complete WORD…` for candidates,
 * so that there is one place which knows commands, options and ids.
 */
import { Argument } from 'commander';
import type { Command, Option } from 'commander';
import { withAgent } from '../agent.ts';
import type { Io } from '../io.ts';
import { allCheckpoints } from './list.ts';

const scripts: Readonly<Record<string, string>> = {
  bash: `_stasis() {
  local IFS=$'\\n'
  COMPREPLY=($(stasis __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _stasis stasis`,
  zsh: `#compdef stasis
_stasis() {
  local -a found
  found=("\${(@f)$(stasis __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if (( \${#found[1]} )); then compadd -a found; else _files; fi
}
compdef _stasis stasis`,
  fish: `function __stasis_complete
  set -l words (commandline -opc) (commandline -ct)
  stasis __complete -- $words[2..-1] 2>/dev/null
end
complete -c stasis -f -a '(__stasis_complete)'`,
};

export function completionCommand(program: Command, io: Io): void {
  program.command('completion').addArgument(new Argument('<shell>').choices(Object.keys(scripts))).summary('print a script for tab completion')
    .description('Prints a script for tab completion:  eval "$(stasis completion bash)"')
    .action((shell: string) => io.out(scripts[shell] ?? ''));
  program.command('__complete', { hidden: true }).argument('[words...]').helpOption(false).allowUnknownOption()
    .action(async (words: string[]) => {
      for (const word of await candidates(program, words)) io.out(word);
    });
}

/** Words that may stand in the last place; the words before it are given whole. */
export async function candidates(program: Command, words: readonly string[]): Promise<string[]> {
  const typed = words.at(-1) ?? '';
  const [name, ...before] = words.slice(0, -1);
  const starting = (list: readonly string[]): string[] => list.filter((word) => word.startsWith(typed));
  if (name === undefined) return starting(program.commands.map((command) => command.name()).filter((word) => !word.startsWith('_')));
  const command = program.commands.find((candidate) => candidate.name() === name || candidate.aliases().includes(name));
  if (command === undefined) return [];
  // Of a command with commands of its own (repo) the next word is one of those, and the rest is about that one.
  const inner = command.commands.find((candidate) => candidate.name() === before[0]);
  if (command.commands.length > 0 && inner === undefined) return before.length === 0 ? starting(command.commands.map((one) => one.name())) : [];
  if (inner !== undefined) return starting(typed.startsWith('-') ? inner.options.flatMap(({ long }) => long ?? []).concat('--help') : []);
  const option = valueOption(command, before.at(-1));
  if (option !== undefined) return starting(option.argChoices ?? []);
  if (typed.startsWith('-')) return starting(command.options.flatMap(({ long }) => long ?? []).concat('--help'));
  const argument = command.registeredArguments[0];
  if (argument === undefined) return [];
  return starting(argument.argChoices ?? (await ids(argument.name())));
}

/** The option before the cursor, when it waits for a value. */
function valueOption(command: Command, word: string | undefined): Option | undefined {
  if (word === undefined) return undefined;
  return command.options.find((option) => (option.long === word || option.short === word) && option.required);
}

/** A shell waits for this: an agent that does not answer within a second has nothing to say. */
const COMPLETION_MS = 1000;

async function ids(what: string): Promise<string[]> {
  const quick = { signal: AbortSignal.timeout(COMPLETION_MS) };
  try {
    return await withAgent({}, async (agent) => {
      if (what === 'container') return (await agent.listContainers({ all: false }, quick)).containers.map(({ id }) => id);
      if (what === 'checkpoint') return (await allCheckpoints(agent, {})).checkpoints.map(({ id }) => id);
      if (what !== 'operation') return [];
      for await (const event of agent.watchOperations({}, quick)) return event.type === 'snapshot' ? event.snapshot.operations.map(({ id }) => id) : [];
      return [];
    });
  } catch {
    return [];
  }
}
