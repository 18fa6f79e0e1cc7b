import { OperatorError } from '../errors.js';
import type { TrustClient } from './client.js';
import { CONTAINERS } from './clients/containers.js';
import { DOCKER } from './clients/docker.js';
import { KUBERNETES } from './clients/kubernetes.js';
import { STORES } from './clients/stores.js';
import { TOOLS, UNSAFE } from './clients/tools.js';

/** What is shown unless some clients are named, in this order. */
export const TRUST_GROUPS: ReadonlyArray<{ readonly title: string; readonly clients: readonly TrustClient[] }> = [
  { title: 'Docker', clients: DOCKER },
  { title: 'Podman and containerd', clients: CONTAINERS },
  { title: 'Kubernetes', clients: KUBERNETES },
  { title: 'Builders and tools', clients: TOOLS },
  { title: 'Systems and browsers', clients: STORES },
];

export const USUAL_CLIENTS: readonly TrustClient[] = TRUST_GROUPS.flatMap(({ clients }) => clients);

/** Every client that there are instructions for. */
export const TRUST_CLIENTS: readonly TrustClient[] = [...USUAL_CLIENTS, ...UNSAFE];

/** The named ones, each once. @throws OperatorError for an unknown kind of client. */
export function clientsNamed(names: readonly string[]): TrustClient[] {
  return [...new Set(names)].map(name => {
    const client = TRUST_CLIENTS.find(known => known.name === name);
    if (client) return client;
    throw new OperatorError(`there are no instructions for a client ${JSON.stringify(name)}`, {
      fix: `use one of ${TRUST_CLIENTS.map(known => known.name).join(', ')}`,
    });
  });
}
