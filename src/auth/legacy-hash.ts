import { createHash } from 'node:crypto';
import { desCrypt } from './des-crypt.js';

/**
 * The formats of Apache's htpasswd before bcrypt. A graphics card tries 10^8 to 10^10 passwords a second against them (a
 * few 10^5 against `sha2-crypt`), so they only count where the operator asks for them by name.
 */
export type LegacyHash = 'apr1' | 'sha1' | 'crypt' | 'sha2-crypt';

/** Work that one login may cost: what Apache writes has 5,000. */
const MOST_ROUNDS = 100_000;

const SHA2 = /^\$([56])\$(?:rounds=(\d{1,9})\$)?([^$]{0,16})\$[./0-9A-Za-z]+$/;

/** Which of them a hash is; undefined for any other. */
export function legacyKind(hash: string): LegacyHash | undefined {
  if (/^\$apr1\$[^$]{1,8}\$[./0-9A-Za-z]{22}$/.test(hash)) return 'apr1';
  if (/^\{SHA\}[+/0-9A-Za-z]{27}=$/.test(hash)) return 'sha1';
  if (/^[./0-9A-Za-z]{13}$/.test(hash)) return 'crypt';
  return Number(SHA2.exec(hash)?.[2] ?? 0) <= MOST_ROUNDS && SHA2.test(hash) ? 'sha2-crypt' : undefined;
}

/** @param hash of one of the formats */
export function legacyMatches(password: string, hash: string): boolean {
  const key = Buffer.from(password);
  switch (legacyKind(hash)) {
    case 'apr1':
      return apr1(key, hash.split('$')[2]!) === hash;
    case 'sha1':
      return `{SHA}${createHash('sha1').update(key).digest('base64')}` === hash;
    case 'crypt':
      return desCrypt(key, hash.slice(0, 2)) === hash;
    case 'sha2-crypt':
      return sha2Crypt(key, hash) === hash;
    case undefined:
      return false;
  }
}

const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** Three bytes as four characters, the lowest bits first. */
function encoded(bytes: Buffer, order: ReadonlyArray<readonly number[]>): string {
  return order
    .map(triple => {
      let value = triple.reduce((sum, at) => (sum << 8) | bytes[at]!, 0);
      let text = '';
      for (let left = triple.length + 1; left > 0; left--) {
        text += ALPHABET[value & 63];
        value >>>= 6;
      }
      return text;
    })
    .join('');
}

/** So many bytes of a block that is repeated. */
const repeated = (block: Buffer, length: number): Buffer => Buffer.alloc(length, block);

const digest = (algorithm: string, ...parts: readonly Buffer[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest();

const APR1_ORDER = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5], [11]];

/** Poul-Henning Kamp's MD5-crypt with Apache's magic (apr_md5.c). */
function apr1(key: Buffer, saltText: string): string {
  const salt = Buffer.from(saltText);
  const bits: Buffer[] = [];
  for (let length = key.length; length > 0; length >>= 1) bits.push(length & 1 ? Buffer.alloc(1) : key.subarray(0, 1));
  let sum = digest(
    'md5',
    key,
    Buffer.from('$apr1$'),
    salt,
    repeated(digest('md5', key, salt, key), key.length),
    ...bits,
  );
  for (let round = 0; round < 1000; round++) {
    const odd = round % 2 === 1;
    const middle = [...(round % 3 ? [salt] : []), ...(round % 7 ? [key] : [])];
    sum = digest('md5', odd ? key : sum, ...middle, odd ? sum : key);
  }
  return `$apr1$${saltText}$${encoded(sum, APR1_ORDER)}`;
}

/** In which order the bytes are written: three that lie a third apart, moving on in turn. */
function sha2Order(size: number): number[][] {
  const third = Math.floor(size / 3);
  const step = size === 32 ? [2, 0, 1] : [1, 2, 0];
  const order: number[][] = [];
  let triple = [0, third, 2 * third];
  for (let count = 0; count < third; count++) {
    order.push(triple);
    triple = step.map(at => triple[at]! + 1);
  }
  order.push(size === 32 ? [31, 30] : [63]);
  return order;
}

/** Ulrich Drepper's SHA-crypt (`$5$`, `$6$`). */
function sha2Crypt(key: Buffer, hash: string): string {
  const [, kind, given, saltText = ''] = SHA2.exec(hash)!;
  const algorithm = kind === '5' ? 'sha256' : 'sha512';
  const rounds = Math.max(1000, Number(given ?? 5000));
  const salt = Buffer.from(saltText);
  const other = digest(algorithm, key, salt, key);
  const bits: Buffer[] = [];
  for (let length = key.length; length > 0; length >>= 1) bits.push(length & 1 ? other : key);
  let sum = digest(algorithm, key, salt, repeated(other, key.length), ...bits);
  const password = repeated(digest(algorithm, ...Array<Buffer>(key.length).fill(key)), key.length);
  const salted = repeated(digest(algorithm, ...Array<Buffer>(16 + sum[0]!).fill(salt)), salt.length);
  for (let round = 0; round < rounds; round++) {
    const odd = round % 2 === 1;
    const middle = [...(round % 3 ? [salted] : []), ...(round % 7 ? [password] : [])];
    sum = digest(algorithm, odd ? password : sum, ...middle, odd ? sum : password);
  }
  const head = hash.slice(0, hash.lastIndexOf('$') + 1);
  return head + encoded(sum, sha2Order(sum.length));
}
