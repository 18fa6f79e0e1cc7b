import { createHash, createPublicKey, type JsonWebKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { JWTHeaderParameters } from 'jose';
import { OperatorError, systemCode } from '../errors.js';

/** Where the keys are that an outside token server signs with. Read again when they change. */
export interface OutsideKeyFiles {
  /** Certificates in PEM. */
  readonly rootcertbundle: string | undefined;
  /** A JSON Web Key Set (RFC 7517 §5). */
  readonly jwks: string | undefined;
}

/** In bytes. */
const LARGEST = 4 * 1024 * 1024;
/** In bits: no JOSE algorithm takes less (RFC 7518 §3.3). */
const SMALLEST_RSA = 2048;
/** Certificates of one token, from the one that it is signed with to one below a root. */
const LONGEST_CHAIN = 10;

/** The public keys that tokens are checked with. */
export class OutsideKeys {
  private constructor(
    private readonly byId: ReadonlyMap<string, KeyObject>,
    private readonly roots: readonly X509Certificate[],
  ) {}

  /** @throws OperatorError for a file that cannot be read, or holds anything but public keys; and where there is no key. */
  static async load({ rootcertbundle, jwks }: OutsideKeyFiles): Promise<OutsideKeys> {
    const roots = rootcertbundle === undefined ? [] : certificatesOf(await read(rootcertbundle), rootcertbundle);
    const byId = new Map(roots.flatMap(({ publicKey }) => idsOf(publicKey).map(id => [id, publicKey] as const)));
    if (jwks !== undefined) for (const [id, key] of keysOf(await read(jwks), jwks)) byId.set(id, key);
    return new OutsideKeys(byId, roots);
  }

  /**
   * The key that a token says it is signed with: never one that it merely brings along. By a chain to a root (`x5c`), or
   * by the name of a known key.
   */
  find({ x5c, kid, jwk }: JWTHeaderParameters, now = new Date()): KeyObject | undefined {
    const chain = x5c ?? jwk?.x5c;
    if (chain !== undefined) return this.#endOf(chain, now);
    if (kid !== undefined) return typeof kid === 'string' ? this.byId.get(kid) : undefined;
    return jwk === undefined ? undefined : this.#known(jwk as JsonWebKey);
  }

  /** Our copy of a key, where it is one of ours. */
  #known(jwk: JsonWebKey): KeyObject | undefined {
    try {
      const [id] = idsOf(createPublicKey({ key: jwk, format: 'jwk' }));
      return this.byId.get(id!);
    } catch {
      return undefined;
    }
  }

  /** The key of the first certificate, where the others lead from it to a root. */
  #endOf(encoded: unknown, now: Date): KeyObject | undefined {
    const chain = parseChain(encoded);
    const valid = ({ validFrom, validTo }: X509Certificate) => new Date(validFrom) <= now && now <= new Date(validTo);
    for (const [index, certificate] of (chain ?? []).entries()) {
      if (!valid(certificate)) return undefined;
      if (this.roots.some(root => root.raw.equals(certificate.raw))) return chain![0]!.publicKey;
      if (this.roots.some(root => valid(root) && issued(root, certificate))) return chain![0]!.publicKey;
      const next = chain![index + 1];
      if (!next || !issued(next, certificate)) return undefined;
    }
    return undefined;
  }
}

function issued(issuer: X509Certificate, certificate: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function parseChain(encoded: unknown): X509Certificate[] | undefined {
  if (!Array.isArray(encoded) || encoded.length === 0 || encoded.length > LONGEST_CHAIN) return undefined;
  try {
    return encoded.map(certificate => new X509Certificate(Buffer.from(certificate as string, 'base64')));
  } catch {
    return undefined;
  }
}

/**
 * The names by which token servers call the key of a certificate: its thumbprint (RFC 7638), as Distribution 3 has it, and
 * libtrust's key id, as those before. The one that no other key has comes first.
 */
function idsOf(key: KeyObject): string[] {
  const { kty, crv, x, y, e, n } = key.export({ format: 'jwk' });
  // The members that make up the key, in the order of their names.
  const members = kty === 'RSA' ? { e, kty, n } : { crv, kty, x, ...(y !== undefined && { y }) };
  const thumbprint = createHash('sha256').update(JSON.stringify(members)).digest('base64url');
  const spki = createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest();
  return [thumbprint, base32(spki.subarray(0, 30)).replaceAll(/.{4}(?!$)/g, '$&:')];
}

/** RFC 4648 §6, for lengths that need no padding. */
function base32(bytes: Uint8Array): string {
  const bits = Array.from(bytes, byte => byte.toString(2).padStart(8, '0')).join('');
  return bits.replaceAll(/.{5}/g, five => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[Number.parseInt(five, 2)]!);
}

function certificatesOf(text: string, file: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0)
    throw new OperatorError(`${file} holds no certificate`, { fix: 'give the certificate of the token server (PEM)' });
  return blocks.map((block, index) => {
    try {
      const certificate = new X509Certificate(block);
      mustServe(certificate.publicKey, `${file}, certificate ${index + 1}`);
      return certificate;
    } catch (error) {
      if (error instanceof OperatorError) throw error;
      throw new OperatorError(`${file}: certificate ${index + 1} cannot be read`, { cause: error });
    }
  });
}

function keysOf(text: string, file: string): Map<string, KeyObject> {
  const wrong = (what: string, cause?: unknown): never => {
    const fix = 'give the public keys of the token server as a JSON Web Key Set: {"keys": [{"kid": …, "kty": …}]}';
    throw new OperatorError(`${file}: ${what}`, { fix, cause });
  };
  let set: unknown;
  try {
    set = (JSON.parse(text) as { keys?: unknown } | null)?.keys;
  } catch (error) {
    wrong('this is no JSON', error);
  }
  if (!Array.isArray(set) || set.length === 0) return wrong('there is no list of keys in it');
  const keys = new Map<string, KeyObject>();
  for (const [index, jwk] of (set as JsonWebKey[]).entries()) {
    const place = `key ${index + 1}`;
    if (jwk?.kty === 'oct') wrong(`${place} is a secret, which the registry must not share with a token server`);
    if (jwk?.d !== undefined) wrong(`${place} is a private key`);
    let key: KeyObject;
    try {
      key = createPublicKey({ key: jwk, format: 'jwk' });
    } catch (error) {
      return wrong(`${place} is no public key of kind RSA, EC or OKP`, error);
    }
    mustServe(key, `${file}, ${place}`);
    for (const id of typeof jwk.kid === 'string' ? [jwk.kid] : idsOf(key)) {
      if (keys.has(id)) wrong(`${place} has the same kid as one before it`);
      keys.set(id, key);
    }
  }
  return keys;
}

function mustServe({ asymmetricKeyType: type, asymmetricKeyDetails }: KeyObject, place: string): void {
  if (!['rsa', 'ec', 'ed25519'].includes(type ?? ''))
    throw new OperatorError(`${place}: no token is signed by a key of kind ${type}`, { fix: 'use RSA, EC or Ed25519' });
  const bits = asymmetricKeyDetails?.modulusLength ?? SMALLEST_RSA;
  if (bits < SMALLEST_RSA)
    throw new OperatorError(`${place}: an RSA key of ${bits} bits is too short`, {
      fix: `have the token server sign with one of ${SMALLEST_RSA} bits or more`,
    });
}

async function read(file: string): Promise<string> {
  try {
    const data = await readFile(file);
    if (data.length <= LARGEST) return data.toString('utf8');
  } catch (error) {
    throw new OperatorError(`${file} cannot be read (${systemCode(error)})`, {
      fix: 'check auth.token.rootcertbundle and auth.token.jwks',
      cause: error,
    });
  }
  throw new OperatorError(`${file} is larger than 4 MiB`, { fix: 'name the keys of the token server alone' });
}
