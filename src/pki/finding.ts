import type { X509Certificate } from 'node:crypto';
import { type CertificateDetails, certificateDetails } from './details.js';

/** What the parts of the check of certificates share. */

export type Mistake =
  | 'expired'
  | 'not-yet-valid'
  | 'issuer-expired'
  | 'issuer-not-yet-valid'
  | 'no-names'
  | 'no-ip-names'
  | 'name-missing'
  | 'ip-as-dns'
  | 'odd-name'
  | 'wildcard-too-wide'
  | 'odd-common-name'
  | 'no-server-auth'
  | 'no-signing-usage'
  | 'issuer-not-ca'
  | 'issuer-may-not-sign'
  | 'issuer-no-server-auth'
  | 'path-too-long'
  | 'outside-constraints'
  | 'not-first'
  | 'unordered'
  | 'unrelated'
  | 'root-sent'
  | 'intermediate-missing'
  | 'unknown-authority'
  | 'renewed-authority'
  | 'self-signed'
  | 'leaf-is-ca'
  | 'version-1'
  | 'too-many-days'
  | 'weak-key'
  | 'weak-signature'
  | 'negative-serial'
  | 'odd-serial'
  | 'no-key-identifier';

export interface Finding {
  readonly code: Mistake;
  /** `error`: docker and the other clients written in Go refuse the certificate. `warning`: some other client does, or will. */
  readonly severity: 'error' | 'warning';
  readonly message: string;
  readonly fix: string;
}

/** A certificate with what it says. */
export interface Link extends CertificateDetails {
  readonly certificate: X509Certificate;
  /** For messages. */
  readonly title: string;
}

export function describe(certificate: X509Certificate): Link {
  const details = certificateDetails(certificate);
  return {
    ...details,
    certificate,
    title: details.commonName ?? (certificate.subject?.replaceAll('\n', ', ') || 'a certificate without a name'),
  };
}

export const error = (code: Mistake, message: string, fix: string): Finding => ({
  code,
  severity: 'error',
  message,
  fix,
});
export const warning = (code: Mistake, message: string, fix: string): Finding => ({
  code,
  severity: 'warning',
  message,
  fix,
});

export const REISSUE = 'have it issued anew';

export function signedBy(one: Link, issuer: Link): boolean {
  return one.issuer.equals(issuer.subject) && one.certificate.verify(issuer.certificate.publicKey);
}

export const isSelfSigned = (link: Link): boolean => signedBy(link, link);
export const isSame = (one: Link, other: Link): boolean => one.certificate.raw.equals(other.certificate.raw);
