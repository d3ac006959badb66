/** What scripts/demo runs in a box beside the agent. --json: one object on stdout, nothing else. */
import { align, resultTable } from './table.ts';
import { tell } from './story.ts';

const json = process.argv.includes('--json');
const story = await tell((line) => { process.stderr.write(`${line}\n`); });
const complete = story.proofs.every(({ holds }) => holds);
if (json) {
  console.log(JSON.stringify({ ok: complete, ...story }, undefined, 2));
} else {
  console.log(`\n${align(story.proofs.map(({ claim, holds, evidence }) => [`${holds ? 'PROVEN' : 'BROKEN'}  ${claim}`, `  ${evidence}`]))}\n\n${resultTable(story.chapters)}`);
}
process.exit(complete ? 0 : 1);
