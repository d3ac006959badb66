/** The retention rules of the configuration. */
import { StasisError } from '../../core/errors.ts';
import { parseDuration } from '../../core/units.ts';
import type { Config } from '../../config/schema.ts';
import { parseRule, type RetentionRule } from './policy.ts';

/** Those for some containers, then the one for all others. Throws CONFIG_INVALID. */
export function retentionRules({ retention: { last, age, bytes, rules } }: Pick<Config, 'retention'>): RetentionRule[] {
  const general = { selector: undefined, last: last === 0 ? undefined : last, ageMs: age === '' ? undefined : duration(age), bytes: bytes === 0 ? undefined : bytes };
  const limited = general.last !== undefined || general.ageMs !== undefined || general.bytes !== undefined;
  return [...rules.map(parseRule), ...(limited ? [general] : [])];
}

function duration(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `retention.age cannot be ${JSON.stringify(text)}`, { hint: 'write a duration such as 48h', cause: error });
  }
}
