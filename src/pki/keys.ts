import { createHash, createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { OperatorError } from '../errors.js';
import { children, content, type Der, decode, nothing, oid, sequence } from './der.js';

/** The keys that can be made, smallest certificate and fastest handshake first. */
export const KEY_KINDS = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const;
export type KeyKind = (typeof KEY_KINDS)[number];

const generate = promisify(generateKeyPair);

/** A new private key, made off the event loop: RSA of 4096 bits takes seconds. */
export async function generateKey(kind: KeyKind): Promise<KeyObject> {
  const [family, size] = kind.split('-') as [string, string];
  if (family === 'ec') return (await generate('ec', { namedCurve: size === 'p256' ? 'P-256' : 'P-384' })).privateKey;
  return (await generate('rsa', { modulusLength: Number(size) })).privateKey;
}

/** `ec-p256` and the like, also for keys that were made elsewhere (`rsa-1024`, `ed25519`). */
export function describeKey(key: KeyObject): string {
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'rsa') return `rsa-${modulusLength}`;
  const curves: Record<string, string> = { prime256v1: 'p256', secp384r1: 'p384', secp521r1: 'p521' };
  if (key.asymmetricKeyType === 'ec') return `ec-${curves[namedCurve ?? ''] ?? namedCurve}`;
  return key.asymmetricKeyType ?? 'unknown';
}

interface SignatureAlgorithm {
  /** AlgorithmIdentifier of the signature, as it stands in the certificate twice. */
  readonly identifier: Der;
  /** The hash, by node:crypto's name. */
  readonly hash: string;
}

/** How a key signs: the hash follows its strength (RFC 5758 section 3.2, RFC 4055 section 5). @throws OperatorError */
export function signatureAlgorithm(key: KeyObject): SignatureAlgorithm {
  const kind = describeKey(key);
  // RSA's identifier has an explicit NULL, ECDSA's has no parameters at all.
  if (kind.startsWith('rsa-')) return { identifier: sequence(oid('1.2.840.113549.1.1.11'), nothing()), hash: 'sha256' };
  if (kind === 'ec-p256') return { identifier: sequence(oid('1.2.840.10045.4.3.2')), hash: 'sha256' };
  if (kind === 'ec-p384') return { identifier: sequence(oid('1.2.840.10045.4.3.3')), hash: 'sha384' };
  if (kind === 'ec-p521') return { identifier: sequence(oid('1.2.840.10045.4.3.4')), hash: 'sha512' };
  throw new OperatorError(`a certificate authority's key of the kind ${kind} is not supported`, {
    fix: `use one of ${KEY_KINDS.join(', ')}`,
  });
}

/** DER of the SubjectPublicKeyInfo of a private or public key. */
export function publicKeyInfo(key: KeyObject): Buffer {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  return publicKey.export({ type: 'spki', format: 'der' });
}

/** The subject key identifier: the first 160 bits of SHA-256 over the public key's bits (RFC 7093, method 1). */
export function keyIdentifier(key: KeyObject): Buffer {
  const bits = content(children(decode(publicKeyInfo(key)))[1]);
  return createHash('sha256').update(bits.subarray(1)).digest().subarray(0, 20);
}

/** Whether a certificate's or another public key belongs to this private key. */
export function sameKey(one: KeyObject, other: KeyObject): boolean {
  return publicKeyInfo(one).equals(publicKeyInfo(other));
}
