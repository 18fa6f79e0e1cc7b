import { OperatorError } from '../errors.js';
import type { TrustClient } from './client.js';
import { CONTAINERS } from './clients/containers.js';
import { DOCKER } from './clients/docker.js';
import { KUBERNETES } from './clients/kubernetes.js';
import { STORES } from './clients/stores.js';
import { TOOLS, UNSAFE } from './clients/tools.js';

/** Every client that there are instructions for, in the order in which they are shown. */
export const TRUST_CLIENTS: readonly TrustClient[] = [
  ...DOCKER,
  ...CONTAINERS,
  ...KUBERNETES,
  ...TOOLS,
  ...STORES,
  ...UNSAFE,
];

/** Those that are shown unless some are named. */
export const USUAL_CLIENTS: readonly TrustClient[] = TRUST_CLIENTS.filter(client => !client.unsafe);

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
