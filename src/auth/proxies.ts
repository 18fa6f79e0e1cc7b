import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { RegistryError } from '../errors.js';
import { clientCertificateOf } from './client-certificate.js';
import { UNUSABLE_NAME } from './htpasswd.js';
import { inNetworks, plainAddress } from './networks.js';
import type { Member, RequestSource } from './source.js';

/** Which peers are believed in what they say of others. */
export interface ProxyTrust {
  /** Addresses and networks. */
  readonly addresses: readonly string[];
  /** Common names of client certificates. */
  readonly certificates: readonly string[];
}

/** Whether the peer of a request, not its client, is one of these. */
export function fromProxy({ addresses, certificates }: ProxyTrust): (request: IncomingMessage) => boolean {
  const listed = inNetworks(addresses);
  return request => {
    const name = clientCertificateOf(request)?.commonName;
    return (name !== undefined && certificates.includes(name)) || listed(request.socket.remoteAddress);
  };
}

interface ProxyUsersOptions {
  /** Names of headers, in lower case. */
  readonly header: string;
  readonly groupsHeader?: string | undefined;
  readonly trusts: (request: IncomingMessage) => boolean;
}

/** Users whom a proxy in front has asked who they are, whatever way: Kerberos, SAML. From anybody else the headers are nothing. */
export class ProxyUsers implements RequestSource {
  readonly via = 'proxy';

  constructor(private readonly options: ProxyUsersOptions) {}

  /** @throws RegistryError with status 400 for a header that is there twice: the proxy has let its client's pass */
  identify(request: IncomingMessage): Member | undefined {
    const { header, groupsHeader, trusts } = this.options;
    if (!trusts(request)) return undefined;
    const name = only(request, header);
    if (name === undefined) return undefined;
    if (UNUSABLE_NAME.test(name)) throw refused(header, 'holds no name of a user');
    const groups = groupsHeader === undefined ? undefined : only(request, groupsHeader);
    return {
      name,
      groups: (groups ?? '')
        .split(/[,;]/)
        .map(group => group.trim())
        .filter(Boolean),
      version: '',
    };
  }
}

/** The one value of a header, in UTF-8 and NFC; undefined for none. `(null)` is what Apache makes of a variable that is not set. */
function only({ rawHeaders }: IncomingMessage, header: string): string | undefined {
  const values = rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]!.toLowerCase() === header);
  if (values.length > 1) throw refused(header, 'is there twice');
  const value = values[0]?.trim() ?? '';
  return value === '' || value === '(null)' ? undefined : Buffer.from(value, 'latin1').toString().normalize('NFC');
}

function refused(header: string, why: string): RegistryError {
  return new RegistryError('UNAUTHORIZED', { status: 400, message: `the header ${header} of the proxy ${why}` });
}

/** Where a request began, before the proxies that are believed. */
export interface Origin {
  /** Of the client; undefined once its connection is gone. */
  readonly address: string | undefined;
  /** By which the client spoke to the first of them; undefined where none has said. */
  readonly scheme: 'http' | 'https' | undefined;
}

/** Reads `X-Forwarded-For` and `X-Forwarded-Proto`, each hop from the right, as far as those who wrote it are believed. */
export function originBehind(trust: ProxyTrust): (request: IncomingMessage) => Origin {
  if (trust.addresses.length === 0 && trust.certificates.length === 0)
    return ({ socket }) => ({ address: socket.remoteAddress, scheme: undefined });
  const trusts = fromProxy(trust);
  const listed = inNetworks(trust.addresses);
  return request => {
    const peer = request.socket.remoteAddress;
    if (!trusts(request)) return { address: peer, scheme: undefined };
    const hops = words(request.headers['x-forwarded-for']);
    let address = peer;
    for (let at = hops.length - 1; at >= 0; at--) {
      // What is no address was written by somebody who is not to be believed.
      if (isIP(hops[at]!) === 0) break;
      address = plainAddress(hops[at]!);
      if (!listed(address)) break;
    }
    const scheme = words(request.headers['x-forwarded-proto']).at(-1);
    return { address, scheme: scheme === 'http' || scheme === 'https' ? scheme : undefined };
  };
}

function words(header: string | string[] | undefined): string[] {
  return [header ?? []].flat().flatMap(value => value.split(',').map(word => word.trim()));
}
