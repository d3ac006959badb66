/** What scripts/demo runs in a box beside the agent. --json: one object on stdout, nothing else. */
import { align, resultTable } from './table.ts';
import { stasis } from './stasis.ts';
import { tell } from './story.ts';
import type { Proof } from './story.ts';

/** The agent says where its repository is, and that all that was saved is there and whole. */
async function inBucket(ids: readonly string[]): Promise<Proof> {
  const { repository } = JSON.parse(await stasis(['node', '--json'], 'pipe')) as { repository: { description: string } };
  const verified = await stasis(['verify', ...ids], 'pipe');
  const whole = ids.every((id) => new RegExp(`^${id}  ok `, 'm').test(verified));
  return { claim: 'the checkpoints are in a bucket, every byte of them', holds: whole && repository.description.startsWith('s3:'), evidence: `${repository.description} holds ${ids.length} checkpoints, all read back` };
}

const json = process.argv.includes('--json');
const story = await tell((line) => { process.stderr.write(`${line}\n`); });
if (process.argv.includes('--s3')) story.proofs.push(await inBucket(story.chapters.map(({ checkpoint }) => checkpoint.checkpoint)));
const complete = story.proofs.every(({ holds }) => holds);
if (json) {
  console.log(JSON.stringify({ ok: complete, ...story }, undefined, 2));
} else {
  console.log(`\n${align(story.proofs.map(({ claim, holds, evidence }) => [`${holds ? 'PROVEN' : 'BROKEN'}  ${claim}`, `  ${evidence}`]))}\n\n${resultTable(story.chapters)}`);
}
process.exit(complete ? 0 : 1);
