import type { X509Certificate } from 'node:crypto';
import { children, content, type Der, decode, encode, tagNumber } from './der.js';
import { ipFromBytes } from './names.js';

/** What a check of a certificate has to know, and node:crypto does not tell (RFC 5280 section 4). */
export interface CertificateDetails {
  /** 1 or 3. */
  readonly version: number;
  /** As in the certificate: big-endian, in two's complement. */
  readonly serial: Buffer;
  /** Of the signature; undefined for what is neither RSA (PKCS #1), ECDSA nor DSA. */
  readonly hash: 'md5' | 'sha1' | 'sha2' | undefined;
  /** DER of the two names, which say who issued whom. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** The last common name of the subject. */
  readonly commonName: string | undefined;
  /** Names that stand there as DNS names, as they are, also where they look like addresses. */
  readonly dnsNames: readonly string[];
  /** Canonical addresses; undefined where the bytes are none. */
  readonly addresses: ReadonlyArray<string | undefined>;
  readonly isAuthority: boolean;
  /** How many authorities may follow below; undefined: any number. */
  readonly pathLength: number | undefined;
  /** Bits by their number; undefined where there is no such extension: everything is allowed. */
  readonly keyUsage: ReadonlySet<number> | undefined;
  /** Dotted object identifiers; undefined likewise. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly hasSubjectKeyIdentifier: boolean;
  readonly hasAuthorityKeyIdentifier: boolean;
  /** Whether it says where its issuer's certificate can be fetched, as those of public authorities do. */
  readonly tellsIssuer: boolean;
}

export const KEY_USAGE_BITS = { digitalSignature: 0, keyEncipherment: 2, keyAgreement: 4, keyCertSign: 5 } as const;
export const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
export const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
export const ANY_USAGE = '2.5.29.37.0';

const HASHES: Readonly<Record<string, CertificateDetails['hash']>> = {
  '1.2.840.113549.1.1.4': 'md5',
  '1.2.840.113549.1.1.5': 'sha1',
  '1.2.840.10040.4.3': 'sha1',
  '1.2.840.10045.4.1': 'sha1',
};
const SHA2 = /^(1\.2\.840\.113549\.1\.1\.1[0-4]|1\.2\.840\.10045\.4\.3\.[1-4]|2\.16\.840\.1\.101\.3\.4\.3\.)/;

const COMMON_NAME = '2.5.4.3';
const DNS_NAME = 2;
const IP_ADDRESS = 7;

export function certificateDetails(certificate: X509Certificate): CertificateDetails {
  const [body, algorithm] = children(decode(certificate.raw));
  const all = children(body);
  const versioned = tagNumber(all[0]!) === 0;
  const [serial, , issuer, , subject] = versioned ? all.slice(1) : all;
  const extensions = new Map(
    children(children(all.find(field => tagNumber(field) === 3))[0]).map(entry => {
      const [id, ...value] = children(entry);
      return [dotted(id), decode(content(value.at(-1)))];
    }),
  );
  const basic = children(extensions.get('2.5.29.19'));
  const usage = extensions.get('2.5.29.15');
  const extended = extensions.get('2.5.29.37');
  const names = children(extensions.get('2.5.29.17'));
  const ofKind = (kind: number) => names.filter(name => tagNumber(name) === kind).map(content);
  const pathLength = content(basic[1]);
  const id = dotted(children(algorithm)[0]);
  return {
    version: versioned ? content(children(all[0])[0])[0]! + 1 : 1,
    serial: content(serial),
    hash: HASHES[id] ?? (SHA2.test(id) ? 'sha2' : undefined),
    issuer: encode(issuer!),
    subject: encode(subject!),
    commonName: commonName(subject!),
    dnsNames: ofKind(DNS_NAME).map(name => name.toString('latin1').toLowerCase()),
    addresses: ofKind(IP_ADDRESS).map(ipFromBytes),
    isAuthority: content(basic[0]).some(byte => byte !== 0),
    pathLength: pathLength.length === 0 ? undefined : pathLength.readUIntBE(0, Math.min(pathLength.length, 6)),
    keyUsage: usage && bits(content(usage)),
    extendedKeyUsage: extended && children(extended).map(dotted),
    hasSubjectKeyIdentifier: extensions.has('2.5.29.14'),
    hasAuthorityKeyIdentifier: extensions.has('2.5.29.35'),
    tellsIssuer: children(extensions.get('1.3.6.1.5.5.7.1.1')).some(
      entry => dotted(children(entry)[0]) === '1.3.6.1.5.5.7.48.2',
    ),
  };
}

function commonName(subject: Der): string | undefined {
  const parts = children(subject).flatMap(children).map(children);
  const last = parts.findLast(([type]) => dotted(type) === COMMON_NAME);
  return last && content(last[1]).toString('utf8');
}

/** The bits of a BIT STRING that are 1, by their number. */
function bits(value: Buffer): Set<number> {
  const bytes = [...value.subarray(1)];
  return new Set(
    bytes.flatMap((byte, at) => [...Array(8).keys()].filter(bit => byte & (0x80 >> bit)).map(bit => at * 8 + bit)),
  );
}

/** An OBJECT IDENTIFIER as text. */
function dotted(tree: Der | undefined): string {
  const numbers: number[] = [];
  let number = 0;
  for (const byte of content(tree)) {
    number = number * 128 + (byte & 0x7f);
    if (byte & 0x80) continue;
    numbers.push(number);
    number = 0;
  }
  const [first = 0, ...rest] = numbers;
  const root = Math.min(2, Math.floor(first / 40));
  return [root, first - 40 * root, ...rest].join('.');
}
