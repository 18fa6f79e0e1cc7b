import {
  createCipheriv,
  createHash,
  createHmac,
  type KeyObject,
  pbkdf2,
  randomBytes,
  type X509Certificate,
} from 'node:crypto';
import { promisify } from 'node:util';
import { OperatorError } from '../errors.js';
import {
  bmpString,
  type Der,
  encode,
  integer,
  nothing,
  octetString,
  oid,
  sequence,
  set,
  tagged,
  taggedBytes,
} from './der.js';

/**
 * PKCS#12 (RFC 7292): one file with a key, its certificate and the authority, as browsers and keychains import it.
 * node-forge's own encoder does its cryptography in JavaScript, and knows no modern MAC.
 *
 * - `modern`: PBES2 with AES-256-CBC and HMAC-SHA-256, as OpenSSL 3 writes by default.
 * - `compatible`: triple DES and SHA-1 throughout, which is all that keychains of older macOS and Windows read. SHA-1 and
 *   DES are no weakness here that a strong password does not make good, but they are a reason not to be the default.
 */
export const PKCS12_KINDS = ['modern', 'compatible'] as const;
export type Pkcs12Kind = (typeof PKCS12_KINDS)[number];

/** For the keys and for the MAC alike: whoever guesses takes the cheaper of the two. */
const ITERATIONS = 100_000;
/** Readers of older formats, some of which do this in unoptimised code, refuse more. */
const COMPATIBLE_ITERATIONS = 2048;

const DATA = '1.2.840.113549.1.7.1';
const ENCRYPTED_DATA = '1.2.840.113549.1.7.6';
const SHROUDED_KEY_BAG = '1.2.840.113549.1.12.10.1.2';
const CERTIFICATE_BAG = '1.2.840.113549.1.12.10.1.3';
const X509_CERTIFICATE = '1.2.840.113549.1.9.22.1';
const FRIENDLY_NAME = '1.2.840.113549.1.9.20';
const LOCAL_KEY_ID = '1.2.840.113549.1.9.21';

/** @throws OperatorError for a password that readers would take for different bytes, or that is none. */
export function checkPkcs12Password(password: string): void {
  // The key derivations of one file want UTF-8 in one place and UTF-16 in another, and programs disagree on both.
  if (!/^[ -~]*$/.test(password))
    throw new OperatorError('the password of a PKCS#12 file can only have letters, digits and signs of ASCII', {
      fix: 'choose another: programs read others differently',
    });
  if (password.length < 8)
    throw new OperatorError('the password of a PKCS#12 file is all that protects the key in it', {
      fix: 'choose one of at least 8 characters',
    });
}

/**
 * DER of the whole file.
 * @param options.chain the key's own certificate first
 * @throws OperatorError as `checkPkcs12Password`
 */
export async function encodePkcs12(options: {
  readonly name: string;
  readonly key: KeyObject;
  readonly chain: readonly X509Certificate[];
  readonly password: string;
  readonly kind?: Pkcs12Kind;
}): Promise<Buffer> {
  const { name, key, chain, password, kind = 'modern' } = options;
  checkPkcs12Password(password);
  const encryption = kind === 'modern' ? pbes2 : tripleDes;
  const keyId = createHash('sha1').update(chain[0]!.raw).digest();
  const attributes = [attribute(FRIENDLY_NAME, bmpString(name)), attribute(LOCAL_KEY_ID, octetString(keyId))];
  const certificates = chain.map((certificate, index) =>
    bag(
      CERTIFICATE_BAG,
      sequence(oid(X509_CERTIFICATE), tagged(0, octetString(certificate.raw))),
      index === 0 ? attributes : [],
    ),
  );
  const hidden = await encryption(password, encode(sequence(...certificates)));
  const shrouded = await encryption(password, key.export({ type: 'pkcs8', format: 'der' }));
  const keyBag = bag(SHROUDED_KEY_BAG, sequence(shrouded.algorithm, octetString(shrouded.bytes)), attributes);
  const safe = encode(
    sequence(
      sequence(
        oid(ENCRYPTED_DATA),
        tagged(0, sequence(integer(0), sequence(oid(DATA), hidden.algorithm, taggedBytes(0, hidden.bytes)))),
      ),
      contentInfo(encode(sequence(keyBag))),
    ),
  );
  return encode(sequence(integer(3), contentInfo(safe), macData(kind, password, safe)));
}

const contentInfo = (content: Buffer): Der => sequence(oid(DATA), tagged(0, octetString(content)));
const attribute = (id: string, value: Der): Der => sequence(oid(id), set(value));
const bag = (id: string, value: Der, attributes: readonly Der[]): Der =>
  sequence(oid(id), tagged(0, value), attributes.length > 0 ? set(...attributes) : undefined);

interface Encrypted {
  readonly algorithm: Der;
  readonly bytes: Buffer;
}

/** RFC 8018 section 6.2. */
async function pbes2(password: string, content: Buffer): Promise<Encrypted> {
  const [salt, iv] = [randomBytes(16), randomBytes(16)];
  const secret = await promisify(pbkdf2)(password, salt, ITERATIONS, 32, 'sha256');
  const derivation = sequence(
    oid('1.2.840.113549.1.5.12'),
    sequence(octetString(salt), integer(ITERATIONS), sequence(oid('1.2.840.113549.2.9'), nothing())),
  );
  const cipher = sequence(oid('2.16.840.1.101.3.4.1.42'), octetString(iv));
  return {
    algorithm: sequence(oid('1.2.840.113549.1.5.13'), sequence(derivation, cipher)),
    bytes: encrypt('aes-256-cbc', secret, iv, content),
  };
}

/** pbeWithSHAAnd3-KeyTripleDES-CBC, RFC 7292 appendix C. */
async function tripleDes(password: string, content: Buffer): Promise<Encrypted> {
  const salt = randomBytes(8);
  const derive = (purpose: number, length: number) =>
    deriveBytes('sha1', password, salt, COMPATIBLE_ITERATIONS, purpose, length);
  return {
    algorithm: sequence(oid('1.2.840.113549.1.12.1.3'), sequence(octetString(salt), integer(COMPATIBLE_ITERATIONS))),
    bytes: encrypt('des-ede3-cbc', derive(KEY, 24), derive(INITIAL_VECTOR, 8), content),
  };
}

function encrypt(cipher: string, key: Buffer, iv: Buffer, content: Buffer): Buffer {
  const stream = createCipheriv(cipher, key, iv);
  return Buffer.concat([stream.update(content), stream.final()]);
}

function macData(kind: Pkcs12Kind, password: string, content: Buffer): Der {
  const [hash, id, length, iterations] =
    kind === 'modern'
      ? (['sha256', '2.16.840.1.101.3.4.2.1', 32, ITERATIONS] as const)
      : (['sha1', '1.3.14.3.2.26', 20, COMPATIBLE_ITERATIONS] as const);
  const salt = randomBytes(16);
  const key = deriveBytes(hash, password, salt, iterations, MAC, length);
  const mac = createHmac(hash, key).update(content).digest();
  return sequence(sequence(sequence(oid(id), nothing()), octetString(mac)), octetString(salt), integer(iterations));
}

/** What the bytes are for (appendix B.3). */
const [KEY, INITIAL_VECTOR, MAC] = [1, 2, 3];
/** The block of SHA-1 and of SHA-256 (bytes). */
const BLOCK = 64;

/** The key derivation of RFC 7292 appendix B.2, for no more than the 64 bytes of a few rounds. */
function deriveBytes(
  hash: 'sha1' | 'sha256',
  password: string,
  salt: Buffer,
  iterations: number,
  purpose: number,
  length: number,
): Buffer {
  const filled = (bytes: Buffer) => Buffer.alloc(Math.ceil(bytes.length / BLOCK) * BLOCK, bytes);
  const secret = Buffer.from(`${password}\0`, 'utf16le').swap16();
  const input = Buffer.concat([filled(salt), filled(secret)]);
  const blocks: Buffer[] = [];
  for (let have = 0; have < length; ) {
    let digest = createHash(hash).update(Buffer.alloc(BLOCK, purpose)).update(input).digest();
    for (let round = 1; round < iterations; round++) digest = createHash(hash).update(digest).digest();
    blocks.push(digest);
    have += digest.length;
    const addend = Buffer.alloc(BLOCK, digest);
    for (let at = 0; at < input.length; at += BLOCK) addWithCarry(input.subarray(at, at + BLOCK), addend);
  }
  return Buffer.concat(blocks).subarray(0, length);
}

/** `block = block + addend + 1`, modulo the size of the block. */
function addWithCarry(block: Buffer, addend: Buffer): void {
  let carry = 1;
  for (let at = block.length - 1; at >= 0; at--) {
    carry += block[at]! + addend[at]!;
    block[at] = carry & 0xff;
    carry >>= 8;
  }
}
