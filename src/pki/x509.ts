import { type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import {
  bitString,
  boolean,
  children,
  content,
  type Der,
  decode,
  encode,
  integer,
  isOid,
  octetString,
  oid,
  readText,
  sequence,
  set,
  tagged,
  taggedBytes,
  tagNumber,
  time,
  toPem,
  utf8String,
} from './der.js';
import { keyIdentifier, publicKeyInfo, signatureAlgorithm } from './keys.js';
import { ipBytes, ipFromBytes } from './names.js';

/** X.509 certificates (RFC 5280) as bytes: every field that we write, and the few that node:crypto does not read out. */

const COMMON_NAME = '2.5.4.3';
const ORGANIZATIONAL_UNIT = '2.5.4.11';
const SUBJECT_KEY_IDENTIFIER = '2.5.29.14';
export const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17';
const BASIC_CONSTRAINTS = '2.5.29.19';
const NAME_CONSTRAINTS = '2.5.29.30';
const EXTENDED_KEY_USAGE = '2.5.29.37';
const EMAIL = 1;
export const DNS_NAME = 2;
const URI = 6;
const IP_ADDRESS = 7;

/** Names that an authority may sign for: `example.com` with all below it, `10.0.0.0/8`, `fd00::/7`. */
export interface NameConstraints {
  readonly permitted: readonly string[];
  readonly excluded: readonly string[];
}

export function subjectName(commonName: string): Der {
  return sequence(set(sequence(oid(COMMON_NAME), utf8String(commonName))));
}

/** One extension (RFC 5280 section 4.2). */
export function extension(id: string, critical: boolean, value: Der): Der {
  return sequence(oid(id), critical ? boolean(true) : undefined, octetString(encode(value)));
}

/** With a path length: an authority that may sign so many authorities below itself. Without: no authority. */
export function basicConstraints(pathLength?: number): Der {
  const value = pathLength === undefined ? sequence() : sequence(boolean(true), integer(pathLength));
  return extension(BASIC_CONSTRAINTS, true, value);
}

/** Bits by their number in RFC 5280 section 4.2.1.3. */
const KEY_USAGE = { digitalSignature: 0, keyEncipherment: 2, keyCertSign: 5, cRLSign: 6 } as const;

export function keyUsage(...usages: ReadonlyArray<keyof typeof KEY_USAGE>): Der {
  const bits = usages.map((usage): number => KEY_USAGE[usage]);
  const byte = bits.reduce((sum, bit) => sum | (0x80 >> bit), 0);
  // DER: a list of named bits ends with its last 1.
  return extension('2.5.29.15', true, bitString(Buffer.from([byte]), 7 - Math.max(...bits)));
}

export function serverAuthentication(): Der {
  return extension(EXTENDED_KEY_USAGE, false, sequence(oid('1.3.6.1.5.5.7.3.1')));
}

export function clientAuthentication(): Der {
  return extension(EXTENDED_KEY_USAGE, false, sequence(oid('1.3.6.1.5.5.7.3.2')));
}

export function subjectKeyIdentifier(key: KeyObject): Der {
  return extension(SUBJECT_KEY_IDENTIFIER, false, octetString(keyIdentifier(key)));
}

export function authorityKeyIdentifier(identifier: Uint8Array): Der {
  return extension('2.5.29.35', false, sequence(taggedBytes(0, identifier)));
}

export function subjectAlternativeName(names: readonly string[]): Der {
  const entry = (name: string) =>
    isIP(name) === 0 ? taggedBytes(DNS_NAME, Buffer.from(name)) : taggedBytes(IP_ADDRESS, ipBytes(name));
  return extension(SUBJECT_ALTERNATIVE_NAME, false, sequence(...names.map(entry)));
}

/** Critical, as RFC 5280 section 4.2.1.10 demands: who cannot judge it must refuse. */
export function nameConstraints({ permitted, excluded }: NameConstraints): Der {
  const subtrees = (tag: number, trees: readonly string[]) =>
    trees.length === 0 ? undefined : tagged(tag, ...trees.map(tree => sequence(constraintBase(tree))));
  return extension(NAME_CONSTRAINTS, true, sequence(subtrees(0, permitted), subtrees(1, excluded)));
}

function constraintBase(tree: string): Der {
  const [address, prefix] = tree.split('/') as [string, string?];
  if (prefix === undefined) return taggedBytes(DNS_NAME, Buffer.from(tree));
  const bytes = ipBytes(address);
  const mask = bytes.map((_, index) => 0xff00 >> Math.min(8, Math.max(0, Number(prefix) - 8 * index)));
  return taggedBytes(IP_ADDRESS, Buffer.concat([bytes.map((byte, index) => byte & mask[index]!), mask]));
}

export interface CertificateContent {
  readonly subject: Der;
  readonly publicKey: KeyObject;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly extensions: readonly Der[];
}

/** Signs a version 3 certificate; gives its PEM. @throws OperatorError when the issuer's key cannot sign. */
export function signCertificate(what: CertificateContent, issuer: { name: Der; key: KeyObject }): string {
  const toBeSigned = sequence(
    tagged(0, integer(2)),
    integer(serialNumber()),
    signatureAlgorithm(issuer.key).identifier,
    issuer.name,
    sequence(time(what.notBefore), time(what.notAfter)),
    what.subject,
    decode(publicKeyInfo(what.publicKey)),
    tagged(3, sequence(...what.extensions)),
  );
  return toPem('CERTIFICATE', signed(toBeSigned, issuer.key));
}

/** The shell that certificates, revocation lists and requests share: content, algorithm, signature. */
export function signed(toBeSigned: Der, key: KeyObject): Buffer {
  const { identifier, hash } = signatureAlgorithm(key);
  return encode(sequence(toBeSigned, identifier, bitString(sign(hash, encode(toBeSigned), key))));
}

/** 127 random bits, positive and without a leading zero byte: some clients refuse any other form. */
function serialNumber(): Buffer {
  const bytes = randomBytes(16);
  bytes[0] = bytes[0]! & 0x7f || 1;
  return bytes;
}

/** As it is shown everywhere, and compared: Node gives whole bytes, of which the first digit may be a zero. */
export function serialOf({ serialNumber }: X509Certificate): string {
  return serialNumber.replace(/^0+/, '');
}

export interface CertificateFields {
  readonly subject: Der;
  readonly keyIdentifier: Buffer | undefined;
  /** How many authorities may follow below it; undefined where nothing limits them, and for what is no authority. */
  readonly pathLength: number | undefined;
  /** DNS names and addresses of the subject alternative name; other kinds are left out. */
  readonly names: readonly string[];
  readonly nameConstraints: NameConstraints | undefined;
}

/** What node:crypto's X509Certificate has not, or has only as text for people. */
export function certificateFields(certificate: X509Certificate): CertificateFields {
  const { subject, find } = readParts(certificate);
  const keyId = find(SUBJECT_KEY_IDENTIFIER);
  const constraints = find(NAME_CONSTRAINTS);
  const [, pathLength] = children(find(BASIC_CONSTRAINTS));
  const subtrees = (tag: number) =>
    children(children(constraints).find(part => tagNumber(part) === tag)).flatMap(tree => readConstraint(tree));
  return {
    subject,
    keyIdentifier: keyId && content(keyId),
    pathLength: pathLength && Number(`0x${content(pathLength).toString('hex')}`),
    names: children(find(SUBJECT_ALTERNATIVE_NAME)).flatMap(readName),
    nameConstraints: constraints && { permitted: subtrees(0), excluded: subtrees(1) },
  };
}

/** The subject, the issuer, and a look-up of extensions by their object identifier. */
export function readParts(certificate: X509Certificate): {
  subject: Der;
  issuer: Der;
  find(id: string): Der | undefined;
} {
  const fields = children(children(decode(certificate.raw))[0]);
  // Every certificate with extensions is version 3, so its first field is the version.
  const first = tagNumber(fields[0]!) === 0 ? 1 : 0;
  const list = children(fields.find(field => tagNumber(field) === 3))[0];
  return {
    subject: fields[first + 4]!,
    issuer: fields[first + 2]!,
    find: id => findExtension(list, id),
  };
}

/** The value of one extension in a list of them. */
export function findExtension(list: Der | undefined, id: string): Der | undefined {
  const found = children(list).find(item => isOid(children(item)[0], id));
  return found && decode(content(children(found).at(-1)));
}

/** A DNS name or address of a subject alternative name; nothing for other kinds. */
export function readName(entry: Der): string[] {
  if (tagNumber(entry) === DNS_NAME) return [content(entry).toString('latin1').toLowerCase()];
  const address = tagNumber(entry) === IP_ADDRESS ? ipFromBytes(content(entry)) : undefined;
  return address === undefined ? [] : [address];
}

function readConstraint(tree: Der): string[] {
  const base = children(tree)[0]!;
  if (tagNumber(base) === DNS_NAME) return [content(base).toString('latin1').toLowerCase()];
  if (tagNumber(base) !== IP_ADDRESS) return [];
  const bytes = content(base);
  const mask = bytes.subarray(bytes.length / 2);
  const prefix = [...mask]
    .map(byte => byte.toString(2).replaceAll('0', '').length)
    .reduce((sum, ones) => sum + ones, 0);
  return [`${ipFromBytes(bytes.subarray(0, bytes.length / 2))}/${prefix}`];
}

/** Whom a certificate is about, as far as a registry asks. */
export interface CertifiedNames {
  /** The common name; undefined where there is none, or more than one. */
  readonly commonName: string | undefined;
  /** Of the subject alternative name, each with its kind: `dns:…`, `ip:…`, `email:…`, `uri:…`. */
  readonly alternativeNames: readonly string[];
  readonly organizationalUnits: readonly string[];
}

export function certifiedNames(certificate: X509Certificate): CertifiedNames {
  const { subject, find } = readParts(certificate);
  const attributes = children(subject).flatMap(relative => children(relative));
  const [name, ...more] = attributes.filter(attribute => isOid(children(attribute)[0], COMMON_NAME));
  return {
    commonName: name && more.length === 0 ? readText(children(name)[1]) : undefined,
    organizationalUnits: attributes
      .filter(attribute => isOid(children(attribute)[0], ORGANIZATIONAL_UNIT))
      .flatMap(attribute => readText(children(attribute)[1]) ?? []),
    alternativeNames: children(find(SUBJECT_ALTERNATIVE_NAME)).flatMap(entry => {
      const kind = tagNumber(entry);
      if (kind === EMAIL) return [`email:${content(entry).toString('latin1')}`];
      if (kind === URI) return [`uri:${content(entry).toString('latin1')}`];
      return readName(entry).map(name => `${kind === DNS_NAME ? 'dns' : 'ip'}:${name}`);
    }),
  };
}

/** All certificates of a PEM file, in their order. @throws Error when one cannot be read. */
export function readPemCertificates(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN (?:X509 )?CERTIFICATE-----[^-]+-----END (?:X509 )?CERTIFICATE-----/g);
  return (blocks ?? []).map(block => new X509Certificate(block));
}

export const notBefore = (certificate: X509Certificate): Date => new Date(certificate.validFrom);
export const notAfter = (certificate: X509Certificate): Date => new Date(certificate.validTo);
