import type { IncomingMessage } from 'node:http';
import { clientCertificateOf } from './client-certificate.js';
import { UNUSABLE_NAME } from './htpasswd.js';
import type { Member, RequestSource } from './source.js';

interface CertificateUsersOptions {
  /** What of a certificate is its user's name. */
  readonly user: 'commonname' | 'email' | 'dns' | 'uri';
  /** What of it names groups. */
  readonly groups: 'none' | 'organizationalunit';
  /** A proxy's certificate says who the proxy is, never who has sent the request. */
  readonly isProxy: (request: IncomingMessage) => boolean;
}

/** Users by the certificates of their connections, which were verified in the handshake. */
export class CertificateUsers implements RequestSource {
  readonly via = 'certificate';

  constructor(private readonly options: CertificateUsersOptions) {}

  identify(request: IncomingMessage): Member | undefined {
    const { user, groups, isProxy } = this.options;
    const certificate = clientCertificateOf(request);
    if (!certificate || isProxy(request)) return undefined;
    const prefix = `${user}:`;
    const names =
      user === 'commonname'
        ? [certificate.commonName]
        : certificate.alternativeNames.filter(name => name.startsWith(prefix)).map(name => name.slice(prefix.length));
    // Of several, which is meant would be a guess.
    const name = names.length === 1 ? names[0]?.normalize('NFC') : undefined;
    if (name === undefined || UNUSABLE_NAME.test(name)) return undefined;
    return {
      name,
      groups: groups === 'none' ? [] : certificate.organizationalUnits.map(unit => unit.normalize('NFC')),
      version: certificate.fingerprint,
    };
  }
}
