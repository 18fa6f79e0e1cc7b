import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { ClientCertificate } from '../auth/client-certificate.js';
import { OperatorError } from '../errors.js';
import { isSignedBy, parseRevocationLists, type RevocationList } from '../pki/crl.js';
import { encode } from '../pki/der.js';
import { parseCertificates, readPem } from '../pki/inspect.js';
import { certifiedNames, notAfter, readParts, serialOf } from '../pki/x509.js';

/**
 * Whose certificates clients may show, and what is asked of them. OpenSSL verifies chain, dates, purpose and revocation
 * in the handshake; this says what its verdict means for a connection, and looks at the connection again whenever time
 * or a new list could have changed it. docs/decisions/0014-client-certificates.md has the reasons.
 */

/** The modes of Distribution 3, which are those of Go's crypto/tls. */
export type ClientAuth =
  | 'request-client-cert'
  | 'require-any-client-cert'
  | 'verify-client-cert-if-given'
  | 'require-and-verify-client-cert';

export interface ClientTrust {
  readonly mode: ClientAuth;
  readonly authorities: readonly X509Certificate[];
  /** None: nothing counts as revoked. Else OpenSSL wants one of each authority in a chain. */
  readonly lists: readonly RevocationList[];
}

export interface ClientTrustFiles {
  readonly authorities: readonly string[];
  readonly lists: readonly string[];
}

/**
 * @throws OperatorError for files that cannot be read, an authority that is none, and a list that no authority has signed.
 */
export async function loadClientTrust(mode: ClientAuth, files: ClientTrustFiles): Promise<ClientTrust> {
  const authorities: X509Certificate[] = [];
  for (const path of files.authorities) {
    const found = parseCertificates(path, await readPem(path));
    const wrong = found.find(certificate => !certificate.ca);
    if (wrong)
      throw new OperatorError(`${path} holds the certificate of ${oneLine(wrong.subject)}, which is no authority's`, {
        fix: 'give the certificate that signs those of the clients',
      });
    authorities.push(...found);
  }
  const lists: RevocationList[] = [];
  for (const path of files.lists)
    for (const list of parseRevocationLists(path, await readPem(path))) {
      if (!authorities.some(authority => isSignedBy(list, authority)))
        throw new OperatorError(`${path} was not signed by an authority of the client certificates`, {
          fix: 'give the list of that authority, as it was published',
        });
      lists.push(list);
    }
  return { mode, authorities, lists };
}

/**
 * A list that is put back, by a restored backup for example, must not let those in again whom a later one has revoked.
 * Numbers of lists only grow (RFC 5280 section 5.2.3).
 * @throws OperatorError where `next` has only older lists of an authority than `loaded`
 */
export function refuseOlderLists(loaded: ClientTrust, next: ClientTrust): void {
  for (const authority of next.authorities) {
    const numbers = ({ lists }: ClientTrust) =>
      lists.filter(list => isSignedBy(list, authority)).flatMap(({ number }) => number ?? []);
    const newest = numbers(next);
    const older = newest.length > 0 && numbers(loaded).some(number => newest.every(other => other < number));
    if (older)
      throw new OperatorError(
        `the list of revoked client certificates of ${oneLine(authority.subject)} is older than the one in force`,
        { fix: 'issue it anew: registry-secure certs client crl, or bring the last one that its authority has issued' },
      );
  }
}

/** What the operator should know; the same words each time, so that a caller can tell what is new. */
export function clientTrustWarnings({ mode, authorities, lists }: ClientTrust, now = new Date()): string[] {
  const warnings: string[] = [];
  if (!verifies(mode)) return warnings;
  for (const authority of authorities) {
    const end = notAfter(authority);
    if (end < now) warnings.push(`the client authority ${oneLine(authority.subject)} expired on ${end.toISOString()}`);
    else if (daysTo(end, now) < 30)
      warnings.push(
        `the client authority ${oneLine(authority.subject)} expires in ${daysTo(end, now)} days, on ${end.toISOString()}`,
      );
    if (lists.length > 0 && !lists.some(list => isSignedBy(list, authority)))
      warnings.push(
        `no revocation list of ${oneLine(authority.subject)} is there, so that none of its clients is let in; add it to http.tls.clientcrls`,
      );
  }
  if (lists.length === 0)
    warnings.push('no client certificate can be revoked: there is no list of revoked ones (http.tls.clientcrls)');
  return warnings;
}

/**
 * What to say of the list of revoked certificates that ends first: from then on nobody with a certificate is let in.
 * Undefined while all is well.
 * @param stuck one that could not be issued anew: that is said at once, however long it is still good
 */
export function listNotice(
  { mode, lists }: ClientTrust,
  now: Date,
  stuck: boolean,
): { level: 'warn' | 'error'; message: string } | undefined {
  const [first] = lists
    .flatMap(({ thisUpdate, nextUpdate }) => (nextUpdate ? [{ thisUpdate, nextUpdate }] : []))
    .sort((one, other) => one.nextUpdate.getTime() - other.nextUpdate.getTime());
  if (!first || !verifies(mode)) return undefined;
  const { thisUpdate, nextUpdate } = first;
  const left = nextUpdate.getTime() - now.getTime();
  const share = left / (nextUpdate.getTime() - thisUpdate.getTime());
  if (left <= 0)
    return {
      level: 'error',
      message: `the list of revoked client certificates expired on ${nextUpdate.toISOString()}: no client certificate is accepted`,
    };
  // A list that is kept up has been followed by another by the last third of its life.
  if (!stuck && share > 1 / 3) return undefined;
  return {
    level: share > 1 / 6 ? 'warn' : 'error',
    message: `the list of revoked client certificates expires on ${nextUpdate.toISOString()} (in ${daysTo(nextUpdate, now)} days); from then on no client certificate is accepted`,
  };
}

const daysTo = (end: Date, now: Date): number => Math.floor((end.getTime() - now.getTime()) / 86_400_000);

/** Whether certificates are verified at all. */
export function verifies(mode: ClientAuth): boolean {
  return mode === 'verify-client-cert-if-given' || mode === 'require-and-verify-client-cert';
}

/** What a client has shown on one connection. */
export interface Shown {
  /** Its own first, then what it has sent with it; none where it has shown no certificate. */
  readonly chain: readonly X509Certificate[];
  /** OpenSSL's verdict, or ours; undefined where both are content. */
  readonly fault: string | undefined;
  /** What a certificate without a fault says. */
  readonly content: Content | undefined;
}

interface Content {
  readonly certificate: ClientCertificate;
  /** When the first certificate of the chain ends (ms since the epoch). */
  readonly until: number;
  /** Issuer's name and serial number of each, as `revoked` looks for them. */
  readonly identifiers: ReadonlyArray<{ readonly issuer: Buffer; readonly serial: string }>;
}

/** Reads the certificates of a connection whose handshake is done. Never throws, whatever a client has sent. */
export function shownBy(socket: TLSSocket): Shown {
  const chain: X509Certificate[] = [];
  for (
    let next = socket.getPeerX509Certificate();
    next && chain.length < LONGEST_CHAIN;
    next = next.issuerCertificate
  ) {
    if (chain.at(-1)?.fingerprint256 === next.fingerprint256) break;
    chain.push(next);
  }
  const fault = verdictOf(socket);
  // OpenSSL lets pass what our parser does not, and asks nobody whose certificate it is before it lets it pass: what it
  // has found fault with is not parsed.
  if (fault !== undefined || chain.length === 0) return { chain, fault, content: undefined };
  try {
    return { chain, fault, content: contentOf(chain) };
  } catch {
    return { chain, fault: 'UNREADABLE', content: undefined };
  }
}

const LONGEST_CHAIN = 10;

/** The code of OpenSSL's verdict; Node's types say Error. */
function verdictOf(socket: TLSSocket): string | undefined {
  // A resumed session would carry its verdict from before; there is none, and if there were it would not do.
  if (socket.isSessionReused()) return 'SESSION_RESUMED';
  return socket.authorized ? undefined : String((socket.authorizationError as unknown) ?? 'UNVERIFIED');
}

function contentOf(chain: readonly X509Certificate[]): Content {
  const own = chain[0]!;
  return {
    certificate: { ...certifiedNames(own), serial: serialOf(own), fingerprint: own.fingerprint256 },
    until: Math.min(...chain.map(certificate => notAfter(certificate).getTime())),
    identifiers: chain.map(certificate => ({
      issuer: encode(readParts(certificate).issuer),
      serial: serialOf(certificate),
    })),
  };
}

/** Why a connection may not be served, in a sentence for its client; undefined where it may. */
export function clientFault(trust: ClientTrust, shown: Shown, now = Date.now()): string | undefined {
  const { mode, lists } = trust;
  if (shown.chain.length === 0) {
    const optional = mode === 'request-client-cert' || mode === 'verify-client-cert-if-given';
    return optional ? undefined : REQUIRED;
  }
  if (!verifies(mode)) return undefined;
  const { fault, content } = shown;
  if (fault !== undefined || !content) {
    // Of several faults OpenSSL names the last: that a stranger's authority has no list says nothing to the stranger.
    if (!isSigned(trust, shown)) return UNKNOWN;
    return FAULTS[fault ?? ''] ?? `the client certificate is not accepted (${fault})`;
  }
  if (isRevoked(trust, content)) return FAULTS.CERT_REVOKED;
  if (content.until < now) return FAULTS.CERT_HAS_EXPIRED;
  if (lists.some(list => (list.nextUpdate?.getTime() ?? 0) < now)) return FAULTS.CRL_HAS_EXPIRED;
  return undefined;
}

const REQUIRED = 'a client certificate is required (client.cert and client.key beside the ca.crt of this registry)';
const UNKNOWN = 'the client certificate was not signed by an authority that this registry knows';
const LIST_PROBLEM =
  'no client certificate can be accepted at present: this registry has no valid list of the revoked ones';

/** By OpenSSL's verdict, as Node names it. */
const FAULTS: Readonly<Record<string, string>> = {
  CERT_REVOKED: 'the client certificate was revoked',
  CERT_HAS_EXPIRED: 'the client certificate has expired',
  CERT_NOT_YET_VALID: 'the client certificate is not valid yet',
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN,
  INVALID_PURPOSE: 'the certificate is not one for clients (extended key usage clientAuth)',
  UNABLE_TO_GET_CRL: LIST_PROBLEM,
  CRL_HAS_EXPIRED: LIST_PROBLEM,
  CRL_NOT_YET_VALID: LIST_PROBLEM,
  CRL_SIGNATURE_FAILURE: LIST_PROBLEM,
};

function isRevoked({ lists }: ClientTrust, { identifiers }: Content): boolean {
  return lists.some(list =>
    identifiers.some(({ issuer, serial }) => list.revoked.has(serial) && list.issuer.equals(issuer)),
  );
}

/** Why a connection whose client has shown a certificate cannot go on under a trust that came after it. */
export function connectionFault(trust: ClientTrust, shown: Shown): string | undefined {
  if (shown.chain.length === 0 || !verifies(trust.mode)) return undefined;
  return clientFault(trust, shown) ?? (isSigned(trust, shown) ? undefined : UNKNOWN);
}

function isSigned({ authorities }: ClientTrust, { chain }: Shown): boolean {
  return chain.some(certificate =>
    authorities.some(authority => certificate.checkIssued(authority) && certificate.verify(authority.publicKey)),
  );
}

/** For the log and whoever asks who it is; undefined for what was not verified. */
export function verifiedCertificate(trust: ClientTrust, shown: Shown): ClientCertificate | undefined {
  return verifies(trust.mode) && clientFault(trust, shown) === undefined ? shown.content?.certificate : undefined;
}

const oneLine = (name: string): string => name.replaceAll('\n', ', ');
