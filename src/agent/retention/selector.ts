/** Which containers a setting is for: NAMESPACE/NAME, or NAME in any namespace; "*" stands for any characters. */
import { StasisError } from '../../core/errors.ts';

export interface Selector {
  readonly text: string;
  readonly namespace: RegExp | undefined;
  readonly name: RegExp;
}

/** Throws CONFIG_INVALID. */
export function parseSelector(text: string): Selector {
  const parts = text.split('/');
  if (!/^[A-Za-z0-9_.+*-]+(\/[A-Za-z0-9_.+*-]+)?$/.test(text)) {
    throw new StasisError('CONFIG_INVALID', `${JSON.stringify(text)} does not select containers`, { hint: 'write NAME or NAMESPACE/NAME, with * for any characters' });
  }
  return parts.length === 2 ? { text, namespace: pattern(parts[0] ?? ''), name: pattern(parts[1] ?? '') } : { text, namespace: undefined, name: pattern(text) };
}

/** A namespace, with * for any characters; "" is that of containers without one. Throws CONFIG_INVALID. */
export function parseNamespaces(text: string): RegExp {
  if (/^[A-Za-z0-9_.+*-]+$/.test(text)) return pattern(text);
  throw new StasisError('CONFIG_INVALID', `${JSON.stringify(text)} does not name namespaces`, { hint: 'write a namespace, with * for any characters' });
}

function pattern(part: string): RegExp {
  return new RegExp(`^${part.replaceAll(/[.+]/g, '\\$&').replaceAll('*', '.*')}$`, 's');
}

export function matchesSelector({ namespace, name }: Selector, of: { readonly namespace: string; readonly name: string }): boolean {
  return name.test(of.name) && (namespace === undefined || namespace.test(of.namespace));
}
