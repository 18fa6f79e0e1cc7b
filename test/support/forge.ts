import { generateKeyPairSync, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import {
  bitString,
  type Der,
  decode,
  encode,
  integer,
  nothing,
  octetString,
  oid,
  sequence,
  set,
  tagged,
  taggedBytes,
  time,
  toPem,
  utf8String,
} from '../../src/pki/der.js';
import { keyIdentifier, publicKeyInfo } from '../../src/pki/keys.js';
import { ipBytes } from '../../src/pki/names.js';
import {
  authorityKeyIdentifier,
  basicConstraints,
  keyUsage,
  type NameConstraints,
  nameConstraints,
  subjectKeyIdentifier,
} from '../../src/pki/x509.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** Any certificate at all, above all wrong ones. Without any of these, it is a good one that signs itself. */
export interface Wish {
  readonly commonName?: string;
  /** Whose signature it bears. */
  readonly issuer?: Forged;
  readonly key?: KeyObject;
  readonly version?: 1 | 3;
  /** The content of the INTEGER, as it is. */
  readonly serial?: Uint8Array;
  readonly hash?: 'md5' | 'sha1' | 'sha256';
  /** Relative to now, in days. */
  readonly from?: number;
  readonly to?: number;
  /** `DNS:…` and `IP:…` as they are, however wrong; a bare name is what it looks like. */
  readonly names?: readonly string[];
  /** A certificate authority, over so many others. */
  readonly authority?: number | true;
  readonly usage?: ReadonlyArray<'digitalSignature' | 'keyEncipherment' | 'keyCertSign' | 'cRLSign'> | 'none';
  readonly extendedUsage?: ReadonlyArray<'server' | 'client'> | 'none';
  readonly constraints?: NameConstraints;
  readonly keyIdentifiers?: false;
  /** Where the issuer's certificate can be had. */
  readonly issuerUrl?: string;
}

export interface Forged {
  readonly certificate: X509Certificate;
  readonly pem: string;
  readonly key: KeyObject;
  readonly keyPem: string;
  readonly name: Der;
}

export const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
export const rsaKey = (modulusLength: number): KeyObject => generateKeyPairSync('rsa', { modulusLength }).privateKey;

/** Makes what was wished for. */
export function forge(wish: Wish = {}): Forged {
  const key = wish.key ?? newKey();
  const name = sequence(
    set(sequence(oid('2.5.4.3'), utf8String(wish.commonName ?? `forged ${randomBytes(4).toString('hex')}`))),
  );
  const signer = wish.issuer?.key ?? key;
  const algorithm = signatureAlgorithm(signer, wish.hash ?? 'sha256');
  const day = (days: number) => time(new Date(Math.floor(Date.now() / 1_000) * 1_000 + days * DAY));
  const body = sequence(
    wish.version === 1 ? undefined : tagged(0, integer(2)),
    integer(wish.serial ?? Buffer.concat([Buffer.from([1]), randomBytes(15)])),
    algorithm,
    wish.issuer?.name ?? name,
    sequence(day(wish.from ?? -1 / 24), day(wish.to ?? 90)),
    name,
    decode(publicKeyInfo(key)),
    wish.version === 1 ? undefined : tagged(3, sequence(...extensions(wish, key, signer))),
  );
  const signature = sign(wish.hash ?? 'sha256', encode(body), signer);
  const pem = toPem('CERTIFICATE', encode(sequence(body, algorithm, bitString(signature))));
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }) as string;
  return { certificate: new X509Certificate(pem), pem, key, keyPem, name };
}

function extensions(wish: Wish, key: KeyObject, signer: KeyObject): Der[] {
  const { authority, usage, extendedUsage, names = [], constraints, keyIdentifiers, issuerUrl } = wish;
  const list: Der[] = [];
  const extension = (id: string, value: Der) => list.push(sequence(oid(id), octetString(encode(value))));
  if (authority === true) extension('2.5.29.19', sequence(decode(Buffer.from([1, 1, 255]))));
  else list.push(basicConstraints(authority));
  if (usage !== 'none')
    list.push(
      keyUsage(
        ...(usage ??
          (authority === undefined ? ['digitalSignature' as const] : ['keyCertSign' as const, 'cRLSign' as const])),
      ),
    );
  const purposes = extendedUsage ?? (authority === undefined ? ['server' as const] : 'none');
  if (purposes !== 'none')
    extension(
      '2.5.29.37',
      sequence(...purposes.map(purpose => oid(`1.3.6.1.5.5.7.3.${purpose === 'server' ? 1 : 2}`))),
    );
  if (names.length > 0) extension('2.5.29.17', sequence(...names.map(generalName)));
  if (constraints) list.push(nameConstraints(constraints));
  if (keyIdentifiers !== false) list.push(subjectKeyIdentifier(key), authorityKeyIdentifier(keyIdentifier(signer)));
  if (issuerUrl)
    extension(
      '1.3.6.1.5.5.7.1.1',
      sequence(sequence(oid('1.3.6.1.5.5.7.48.2'), taggedBytes(6, Buffer.from(issuerUrl)))),
    );
  return list;
}

function generalName(name: string): Der {
  const [, kind, value = name] = /^(DNS|IP):(.*)$/.exec(name) ?? [];
  if (kind === 'IP' && isIP(value) === 0) return taggedBytes(7, Buffer.from(value, 'hex'));
  return kind === 'DNS' || isIP(value) === 0 ? taggedBytes(2, Buffer.from(value)) : taggedBytes(7, ipBytes(value));
}

function signatureAlgorithm(key: KeyObject, hash: 'md5' | 'sha1' | 'sha256'): Der {
  const rsa = { md5: '1.2.840.113549.1.1.4', sha1: '1.2.840.113549.1.1.5', sha256: '1.2.840.113549.1.1.11' };
  if (key.asymmetricKeyType === 'rsa') return sequence(oid(rsa[hash]), nothing());
  if (hash === 'md5') throw new Error('there is no ECDSA with MD5');
  return sequence(oid(hash === 'sha1' ? '1.2.840.10045.4.1' : '1.2.840.10045.4.3.2'));
}
