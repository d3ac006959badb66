/** Which containers may be saved without encryption: only those that the configuration names together with their namespace. */
import type { Container } from '../runtime/types.ts';
import { namespaceOf } from '../runtime/index.ts';
import { matchesSelector, type Selector } from './retention/selector.ts';

/** Stands for the namespace of containers that Kubernetes did not make. */
export const NO_NAMESPACE = '-';

/** The setting that opts this container out of encryption. */
export function plaintextSelector(container: Container, selectors: readonly Selector[]): { readonly selector: string; readonly namespace: string } | undefined {
  const namespace = namespaceOf(container) ?? NO_NAMESPACE;
  const found = selectors.find((selector) => matchesSelector(selector, { namespace, name: container.name }));
  return found === undefined ? undefined : { selector: found.text, namespace };
}
