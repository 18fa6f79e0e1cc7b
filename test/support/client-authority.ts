import { type KeyObject, X509Certificate } from 'node:crypto';
import { clientAuthorityCertificate, clientCertificate, serverCertificate } from '../../src/pki/authority.js';
import { parseRevocationLists, signRevocationList } from '../../src/pki/crl.js';
import { generateKey } from '../../src/pki/keys.js';
import type { ClientAuth, ClientTrust } from '../../src/server/client-trust.js';

const DAY = 86_400_000;

/** A pair as node:tls takes it. */
export interface ClientPair {
  readonly cert: string;
  readonly key: string;
}

const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string;

/** A client authority in memory. */
export class TestAuthority {
  #number = 0n;

  private constructor(
    readonly certificate: X509Certificate,
    readonly key: KeyObject,
  ) {}

  static async make(commonName: string): Promise<TestAuthority> {
    const key = await generateKey('ec-p256');
    const pem = clientAuthorityCertificate({ key, commonName, days: 3650, now: new Date(Date.now() - 100 * DAY) });
    return new TestAuthority(new X509Certificate(pem), key);
  }

  /** Of a client, from `start` days from now. */
  async client(name: string, { days = 397, start = 0 } = {}): Promise<ClientPair> {
    const key = await generateKey('ec-p256');
    const now = new Date(Date.now() + start * DAY);
    return { cert: clientCertificate({ authority: this, publicKey: key, name, days, now }), key: pemOf(key) };
  }

  /** A certificate for a server, which no client should show. */
  async server(): Promise<ClientPair> {
    const key = await generateKey('ec-p256');
    return { cert: serverCertificate({ authority: this, key, names: ['127.0.0.1'], days: 30 }), key: pemOf(key) };
  }

  /** A list of what was revoked, good for `days` from now. */
  list(revoked: readonly ClientPair[] = [], days = 30) {
    const pem = signRevocationList({
      authority: this,
      number: ++this.#number,
      thisUpdate: new Date(Date.now() - 10 * DAY),
      nextUpdate: new Date(Date.now() + days * DAY),
      revocations: revoked.map(({ cert }) => ({
        serial: new X509Certificate(cert).serialNumber.replace(/^0+/, ''),
        at: new Date(),
        reason: 'keyCompromise' as const,
      })),
    });
    return parseRevocationLists('crl.pem', Buffer.from(pem))[0]!;
  }

  trust(mode: ClientAuth, revoked: readonly ClientPair[] = [], days = 30): ClientTrust {
    return { mode, authorities: [this.certificate], lists: [this.list(revoked, days)] };
  }
}
