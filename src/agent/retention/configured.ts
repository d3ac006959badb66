/** The retention rules and quotas of the configuration. */
import { StasisError } from '../../core/errors.ts';
import { parseBytes, parseDuration } from '../../core/units.ts';
import type { Config } from '../../config/schema.ts';
import { parseNamespaceRule, parseRule, type RetentionPolicy } from './policy.ts';
import { parseNamespaces } from './selector.ts';

export interface NamespaceQuota {
  readonly namespaces: RegExp;
  readonly bytes: number;
}

/** Rules for some containers, then the one for all others; the limits of namespaces. Throws CONFIG_INVALID. */
export function retentionPolicy({ retention: { last, age, bytes, lineageBytes, rules, namespaces } }: Pick<Config, 'retention'>): RetentionPolicy {
  const some = (number: number): number | undefined => (number === 0 ? undefined : number);
  const general = { selector: undefined, last: some(last), ageMs: age === '' ? undefined : duration(age), lineageBytes: some(lineageBytes), bytes: some(bytes) };
  const limited = [general.last, general.ageMs, general.lineageBytes, general.bytes].some((limit) => limit !== undefined);
  return { rules: [...rules.map(parseRule), ...(limited ? [general] : [])], namespaces: namespaces.map(parseNamespaceRule) };
}

/** "shop=10G": of the first that fits a namespace. Throws CONFIG_INVALID. */
export function namespaceQuotas({ repository: { namespaceQuotas: texts } }: Pick<Config, 'repository'>): NamespaceQuota[] {
  return texts.map((text) => {
    const [, namespaces = '', bytes = ''] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    try {
      return { namespaces: parseNamespaces(namespaces), bytes: parseBytes(bytes) };
    } catch (error) {
      throw new StasisError('CONFIG_INVALID', `repository.namespaceQuotas cannot be ${JSON.stringify(text)}`, { hint: 'write NAMESPACE=BYTES, such as shop=10G or *=50G', cause: error });
    }
  });
}

function duration(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new StasisError('CONFIG_INVALID', `retention.age cannot be ${JSON.stringify(text)}`, { hint: 'write a duration such as 48h', cause: error });
  }
}
