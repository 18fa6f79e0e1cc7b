import { createHash, randomInt, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { parseAllow } from './bounds.js';
import type { Bound, User } from './identity.js';

/**
 * Tokens that machines use as passwords: `rst_`, 12 characters that name the token, 32 random ones (190 bits), and 6 that
 * are a CRC-32 of all before them. By the prefix and the checksum, scanners of source code know one for what it is.
 */
const PREFIX = 'rst_';
const ID = { length: 12, alphabet: '0123456789abcdefghijklmnopqrstuvwxyz' };
const SECRET = { length: 32, alphabet: '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz' };
const SHAPE = /^rst_([0-9a-z]{12})[0-9A-Za-z]{38}$/;

/** What is kept of one, beside what only people read. */
interface MachineToken {
  readonly id: string;
  readonly user: string;
  readonly realms?: readonly string[];
  readonly allow: readonly string[];
  readonly hash: string;
  readonly expires?: string;
}

export interface MachineTokenRecords {
  /** @param last whether it will be refused otherwise: then nothing less than the newest state will do */
  find(id: string, last: boolean): Promise<MachineToken | undefined>;
  /** Nobody waits for it. */
  noteUse(id: string): Promise<void>;
}

/** What has the form of a token, right or wrong. */
export interface PresentedToken {
  readonly id: string;
  /** SHA-256 of the whole, in hex. */
  readonly hash: string;
  /** Whether the checksum is right: false for a typing error. */
  readonly sound: boolean;
}

/** `secret` is the token itself, to be shown once; the rest may be kept. */
export function makeMachineToken(): { readonly id: string; readonly hash: string; readonly secret: string } {
  const id = randomText(ID);
  const start = `${PREFIX}${id}${randomText(SECRET)}`;
  const secret = start + checksumOf(start);
  return { id, secret, hash: hashOf(secret) };
}

/** Undefined for what cannot be a token, and so may be a password. */
export function presentedToken(password: string): PresentedToken | undefined {
  const id = SHAPE.exec(password)?.[1];
  if (id === undefined) return undefined;
  return { id, hash: hashOf(password), sound: checksumOf(password.slice(0, -6)) === password.slice(-6) };
}

/** Says whose a machine's token is, and what it is good for. */
export class MachineTokens {
  /** What was read from a record before; a record never changes. */
  readonly #bounds = new WeakMap<MachineToken, readonly Bound[]>();

  /**
   * @param known a user as all realms know them, or as those do that a token is bound to: it does not outlive its own, nor
   *   does it become a namesake's
   */
  constructor(
    private readonly records: MachineTokenRecords,
    private readonly known: (user: string, realms: readonly string[] | undefined) => Promise<User | undefined>,
  ) {}

  /**
   * Undefined for a wrong one. An unknown, a wrong, a revoked and one that has ended take the same steps, so that time does
   * not tell which it was. That the checksum is wrong is no secret.
   * @param user the name that came with it
   */
  async identify(user: string, { id, hash, sound }: PresentedToken): Promise<User | undefined> {
    if (!sound) return undefined;
    for (const last of [false, true]) {
      const token = (await this.records.find(id, last)) ?? NONE;
      const isRight = timingSafeEqual(Buffer.from(token.hash), Buffer.from(hash));
      const itCounts = counts(token, user);
      if (isRight && itCounts) return this.#identityOf(token);
    }
    return undefined;
  }

  /** Who has shown a token before, by its id; undefined once it no longer counts. */
  async again(user: string, id: string): Promise<User | undefined> {
    const token = await this.records.find(id, false);
    return token && counts(token, user) ? this.#identityOf(token) : undefined;
  }

  async #identityOf(token: MachineToken): Promise<User | undefined> {
    const user = await this.known(token.user, token.realms);
    if (!user) return undefined;
    void this.records.noteUse(token.id);
    const bounds = this.#bounds.get(token) ?? token.allow.map(parseAllow);
    this.#bounds.set(token, bounds);
    return { ...user, via: 'machine-token', machineToken: token.id, bounds };
  }
}

/** In place of one that there is not, so that it takes as long; a user without a name never asks. */
const NONE: MachineToken = { id: '', user: '', allow: [], hash: hashOf(''), expires: new Date(0).toISOString() };
const NEVER = '9999-12-31T23:59:59.999Z';

function counts({ user, expires = NEVER }: MachineToken, named: string): boolean {
  const isOver = Date.now() >= Date.parse(expires);
  return user === named && !isOver;
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

function randomText({ length, alphabet }: { readonly length: number; readonly alphabet: string }): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('');
}

/** In base 62, as the secret is. */
function checksumOf(text: string): string {
  let rest = crc32(text);
  let digits = '';
  for (let i = 0; i < 6; i++) {
    digits = SECRET.alphabet[rest % 62] + digits;
    rest = Math.floor(rest / 62);
  }
  return digits;
}
