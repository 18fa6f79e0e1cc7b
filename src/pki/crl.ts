import { verify, type X509Certificate } from 'node:crypto';
import { OperatorError } from '../errors.js';
import type { Authority } from './authority.js';
import {
  children,
  content,
  type Der,
  decode,
  encode,
  enumerated,
  firstBytes,
  integer,
  isOid,
  readTime,
  sequence,
  tagged,
  tagNumber,
  time,
  toPem,
} from './der.js';
import { keyIdentifier, signatureAlgorithm } from './keys.js';
import { authorityKeyIdentifier, certificateFields, extension, findExtension, signed } from './x509.js';

/** Certificate revocation lists (RFC 5280 section 5): those that we sign, and what of any we need to read. */

const CRL_NUMBER = '2.5.29.20';
const REASON_CODE = '2.5.29.21';

/** Why a certificate was revoked, by its number in RFC 5280 section 5.3.1; those that can be taken back are left out. */
export const REVOCATION_REASONS = {
  unspecified: 0,
  keyCompromise: 1,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
} as const;
export type RevocationReason = keyof typeof REVOCATION_REASONS;

export interface Revocation {
  /** Hexadecimal, upper case, without leading zeros: as node:crypto writes a serial number. */
  readonly serial: string;
  readonly at: Date;
  readonly reason: RevocationReason;
}

export interface RevocationList {
  readonly pem: string;
  /** DER of the issuer's name. */
  readonly issuer: Buffer;
  readonly thisUpdate: Date;
  /** A list without one does not say when it ends; no verifier of ours takes it then. */
  readonly nextUpdate: Date | undefined;
  readonly number: bigint | undefined;
  readonly revoked: ReadonlyMap<string, Revocation>;
}

/** A version 2 list, as PEM. */
export function signRevocationList(options: {
  readonly authority: Authority;
  readonly number: bigint;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  readonly revocations: readonly Revocation[];
}): string {
  const { authority, revocations } = options;
  const fields = certificateFields(authority.certificate);
  const entries = revocations.map(({ serial, at, reason }) =>
    sequence(
      integer(bytesOf(BigInt(`0x${serial}`))),
      time(at),
      // Section 5.3.1: an unspecified reason should be absent.
      reason === 'unspecified'
        ? undefined
        : sequence(extension(REASON_CODE, false, enumerated(REVOCATION_REASONS[reason]))),
    ),
  );
  const toBeSigned = sequence(
    integer(1),
    signatureAlgorithm(authority.key).identifier,
    fields.subject,
    time(options.thisUpdate),
    time(options.nextUpdate),
    // An empty list must be absent (section 5.1.2.6).
    entries.length > 0 ? sequence(...entries) : undefined,
    tagged(
      0,
      sequence(
        authorityKeyIdentifier(fields.keyIdentifier ?? keyIdentifier(authority.certificate.publicKey)),
        extension(CRL_NUMBER, false, integer(bytesOf(options.number))),
      ),
    ),
  );
  return toPem('X509 CRL', signed(toBeSigned, authority.key));
}

/** Big-endian, with a leading zero where the first bit would say that the number is negative. */
function bytesOf(value: bigint): Buffer {
  const hex = value.toString(16);
  const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex');
  return bytes[0]! & 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes;
}

const numberOf = (tree: Der): bigint => BigInt(`0x${content(tree).toString('hex') || '0'}`);

/** All lists of a PEM file. @throws OperatorError when there is none, or one cannot be read. */
export function parseRevocationLists(path: string, pem: Buffer): RevocationList[] {
  const blocks = pem.toString('latin1').match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g) ?? [];
  if (blocks.length === 0)
    throw new OperatorError(`${path} holds no PEM revocation list`, {
      fix: 'it has to begin with -----BEGIN X509 CRL----- (from DER: openssl crl -inform der)',
    });
  return blocks.map(block => {
    try {
      return parse(block);
    } catch (cause) {
      throw new OperatorError(`${path} holds a revocation list that cannot be read`, {
        fix: 'replace the file',
        cause,
      });
    }
  });
}

function parse(pem: string): RevocationList {
  const fields = [...children(children(decode(derOf(pem)))[0])];
  // Version 1 has no version.
  if (tagNumber(fields[0]!) === undefined && children(fields[0]).length === 0) fields.shift();
  const [, issuer, thisUpdate, ...rest] = fields;
  const isTime = (tree: Der | undefined) => tree && children(tree).length === 0 && tagNumber(tree) === undefined;
  const nextUpdate = isTime(rest[0]) ? readTime(rest.shift()) : undefined;
  const entries = rest[0] && tagNumber(rest[0]) === undefined ? children(rest.shift()) : [];
  const number = findExtension(children(rest.find(field => tagNumber(field) === 0))[0], CRL_NUMBER);
  return {
    pem,
    issuer: encode(issuer!),
    thisUpdate: readTime(thisUpdate),
    nextUpdate,
    number: number && numberOf(number),
    revoked: new Map(entries.map(readEntry).map(entry => [entry.serial, entry])),
  };
}

function readEntry(entry: Der): Revocation {
  const [serial, at, extensions] = children(entry);
  const code = findExtension(extensions, REASON_CODE);
  const number = code ? Number(numberOf(code)) : 0;
  const reasons = Object.keys(REVOCATION_REASONS) as RevocationReason[];
  return {
    serial: numberOf(serial!).toString(16).toUpperCase(),
    at: readTime(at),
    reason: reasons.find(reason => REVOCATION_REASONS[reason] === number) ?? 'unspecified',
  };
}

const derOf = (pem: string): Buffer => Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64');

/** False for a list of another authority, or one that was changed since; OpenSSL looks again at each handshake. */
export function isSignedBy(list: RevocationList, authority: X509Certificate): boolean {
  if (!encode(certificateFields(authority).subject).equals(list.issuer)) return false;
  const der = derOf(list.pem);
  const [, algorithm, signature] = children(decode(der));
  const hash = HASHES.find(([id]) => isOid(children(algorithm)[0], id))?.[1];
  return hash === undefined || verify(hash, firstBytes(der), authority.publicKey, content(signature).subarray(1));
}

/** RSA of PKCS #1 and ECDSA, with each hash that is fit for a signature. */
const HASHES = [
  ['1.2.840.113549.1.1.11', 'sha256'],
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
  ['1.2.840.10045.4.3.2', 'sha256'],
  ['1.2.840.10045.4.3.3', 'sha384'],
  ['1.2.840.10045.4.3.4', 'sha512'],
] as const;
