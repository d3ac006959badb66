/** What differs between a saved container and a rebuilt one, and what of it a caller accepts (docs/FIDELITY.md). */
import { StasisError } from '../core/errors.ts';
import { ATTRIBUTES, attributeOf, describeDifference, isNoted, type Difference } from '../runtime/fidelity/index.ts';
import { attributesNotSet } from '../runtime/index.ts';
import type { Finding } from '../runtime/types.ts';

const SHOWN = 5;
/** Of an error's details, in characters. */
const MOST_DETAILS = 8000;

/** What a restore that has come to its tasks could not set beside files in memory; `workDir`: criu's own. */
export function lostAttributes(workDir: string): Difference[] {
  return attributesNotSet(workDir).map((what) => ({ attribute: 'file-attributes', subject: '', was: 'set', is: what }));
}

/** Those that refuse: the rest is noted only, or was allowed by name. */
export function refusedOf(differences: readonly Difference[], allowed: readonly string[]): Difference[] {
  return differences.filter(({ attribute }) => !isNoted(attribute) && !allowed.includes(attribute));
}

/** Without what nobody keeps, which is only in an event. */
export function allowedFindings(differences: readonly Difference[]): Finding[] {
  return differences.filter(({ attribute }) => !isNoted(attribute)).map((difference): Finding => ({
    severity: 'warning', kind: 'difference', message: describeDifference(difference),
    hint: 'it was allowed by --allow-difference',
  }));
}

/** RESTORE_DIFFERS; `hint` is given the names of the attributes, as --allow-difference takes them. */
export function differs(what: string, refused: readonly Difference[], hint: (names: string) => string): StasisError {
  const names = [...new Set(refused.map(({ attribute }) => attribute))].join(',');
  const more = refused.length - SHOWN;
  const list = `${refused.slice(0, SHOWN).map(describeDifference).join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
  return new StasisError('RESTORE_DIFFERS', `${what}: ${list}`, {
    hint: hint(names),
    details: { attributes: names, differences: refused.map(describeDifference).join('\n').slice(0, MOST_DETAILS) },
  });
}

/** Throws USAGE for a name that is not in the table, so that a slip of the pen is not taken for a permission. */
export function knownAttributes(names: readonly string[]): readonly string[] {
  const unknown = names.find((name) => attributeOf(name) === undefined);
  if (unknown === undefined) return names;
  throw new StasisError('USAGE', `${JSON.stringify(unknown.slice(0, 80))} is not an attribute that is compared`, {
    hint: `choose from ${ATTRIBUTES.map(({ name }) => name).join(', ')}`,
  });
}
