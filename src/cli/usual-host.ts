import { parseAddress } from '../config/values.js';
import { advertisedHost, thisMachine } from '../pki/machine.js';
import { imageHost } from '../pki/names.js';

/** The URL that the operator configured for clients; without one, the best name of the certificate and our own port. */
export function usualHost(http: { readonly host: string; readonly addr: string }, names: readonly string[]): string {
  if (http.host !== '') return new URL(http.host).host;
  return imageHost(advertisedHost(names, thisMachine()), parseAddress(http.addr).port);
}
