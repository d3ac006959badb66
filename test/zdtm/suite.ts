/** What the suite runs: programs that set something up, are checkpointed and restored, and then check themselves. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { RuntimeName } from '../../src/runtime/index.ts';

export interface Program {
  readonly name: string;
  /** Of its command line, beside its pid file and its output file. */
  readonly args: string;
  /** Words of CRIU's description: "crfail" says that CRIU must refuse it. */
  readonly flags: readonly string[];
  /** Options of CRIU that it asks for. */
  readonly options: readonly string[];
}

/** How every program of one run is saved and brought back. */
export interface Combination {
  readonly runtime: RuntimeName;
  /** "none": not at all; does it begin and end in such a container? "plain": by the runtime alone. */
  readonly by: 'stasis' | 'plain' | 'none';
  readonly memory: 'eager' | 'lazy';
  readonly mode: 'stop' | 'leave-running';
}

export const verdicts = ['pass', 'rightly-refused', 'refused', 'refused-in-dump', 'fails', 'lost', 'frozen', 'skip'] as const;
export type VerdictName = (typeof verdicts)[number];

export const meanings: Readonly<Record<VerdictName, string>> = {
  pass: 'pass',
  'rightly-refused': 'refused, as CRIU itself must, and goes on',
  refused: 'refused before the freeze',
  'refused-in-dump': 'refused in the dump, and goes on',
  fails: 'fails after it was saved',
  lost: 'stopped, and cannot be restored',
  frozen: 'frozen beyond its budget',
  skip: 'does not begin here',
};

/** Why a program that CRIU's suite marks so is not restored lazily. */
export const NO_LAZINESS = 'CRIU does not share memory again between processes whose pages come later';

export interface Result {
  readonly name: string;
  readonly verdict: VerdictName;
  /** Why, in the words of whoever refused or failed. */
  readonly detail: string;
  readonly seconds: number;
}

/** The list in a directory of built programs: name, arguments, flags, options, flavor, separated by tabs, one program a line. */
export function readList(directory: string): Program[] {
  const lines = readFileSync(join(directory, 'list'), 'utf8').split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    const [name = '', args = '', flags = '', options = ''] = line.split('\t');
    const words = (text: string): string[] => text.split(' ').filter((word) => word !== '');
    return { name, args, flags: words(flags), options: words(options) };
  });
}

/** What is copied into a container: the program itself and the libraries that lie beside the list. */
export function filesOf(directory: string, { name }: Program): string[] {
  const libraries = readdirSync(directory).filter((file) => /\.so(\.|$)/.test(file)).map((file) => join(directory, file));
  const program = join(directory, 'bin', name);
  return existsSync(program) ? [program, ...libraries] : [];
}

export function title({ runtime, by, memory, mode }: Combination): string {
  return by === 'stasis' ? `${runtime}-${memory}-${mode}` : `${runtime}-${by}`;
}
