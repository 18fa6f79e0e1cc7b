import { createHash, hash, randomBytes } from 'node:crypto';
import { growingCache } from '../growing-cache.js';
import { BcryptPool } from './bcrypt-pool.js';
import type { Htpasswd } from './htpasswd.js';
import { loadHtpasswd } from './htpasswd-file.js';
import type { LegacyHash } from './legacy-hash.js';
import type { CredentialSource, Member } from './source.js';

/** Bcrypt looks at no more. In bytes of UTF-8. */
export const LONGEST_PASSWORD = 72;
/** For an htpasswd file without users, where nobody's cost says what a check takes. */
const USUAL_COST = 10;
const CACHED_MS = 5 * 60 * 1000;
const CACHED_USERS = 10_000;

/**
 * The users of one htpasswd file. Passwords that were right are remembered for five minutes as a hash keyed with a
 * secret of this process. The user's stored hash is part of what is hashed and is looked up anew on each request, so what
 * was remembered of a user who is removed or has a new password is out of reach at once, and others need no second check.
 */
export class HtpasswdCredentials implements CredentialSource {
  #htpasswd: Htpasswd;
  #nobody: string;
  readonly #secret = randomBytes(32).toString('base64');
  readonly #right = growingCache<string, true>(CACHED_USERS, CACHED_MS);
  /** Those who were looked for since the file was read. */
  #members = new Map<string, Member>();
  /** One check at a time for the same credentials: what waits for it shares its result. */
  readonly #inFlight = new Map<string, Promise<boolean>>();

  private constructor(
    readonly file: string,
    private readonly bcrypt: Pick<BcryptPool, 'check'>,
    private readonly legacy: readonly LegacyHash[],
    htpasswd: Htpasswd,
  ) {
    this.#htpasswd = htpasswd;
    this.#nobody = dummyHash(htpasswd.cost);
  }

  /** @param legacy old formats that count too @throws OperatorError when the file cannot be read or is no htpasswd file. */
  static async open(
    file: string,
    bcrypt: Pick<BcryptPool, 'check'> = new BcryptPool(),
    legacy: readonly LegacyHash[] = [],
  ): Promise<HtpasswdCredentials> {
    return new HtpasswdCredentials(file, bcrypt, legacy, await loadHtpasswd(file, legacy));
  }

  /** What is odd in the file that counts now: one readable line each. */
  get warnings(): readonly string[] {
    return this.#htpasswd.warnings;
  }

  /** Who can log in. */
  get names(): ReadonlySet<string> {
    return new Set(this.#htpasswd.users.keys());
  }

  /**
   * Reads the file again, wholly, and only then lets it count: whoever is not in it is refused from this moment. To be
   * called when the file's size, inode, mtime or ctime differ from those seen before the last call. Waits up to 0.3 s for
   * a file that is being written.
   * @throws OperatorError when the file is bad: then the users from before stay.
   */
  async reload(): Promise<void> {
    const htpasswd = await loadHtpasswd(this.file, this.legacy);
    if (htpasswd.cost !== this.#htpasswd.cost) this.#nobody = dummyHash(htpasswd.cost);
    this.#htpasswd = htpasswd;
    this.#members = new Map();
  }

  remembers(user: string, password: string): boolean {
    return this.#right.get(this.#key(user, password)) === true;
  }

  remembering(user: string, password: string): (() => boolean) | undefined {
    const [htpasswd, key] = [this.#htpasswd, this.#key(user, password)];
    const still = () => this.#htpasswd === htpasswd && this.#right.get(key) === true;
    return still() ? still : undefined;
  }

  knows(user: string): boolean {
    return this.#htpasswd.users.has(user);
  }

  find(name: string): Member | undefined {
    const hash = this.#htpasswd.users.get(name);
    if (hash === undefined) return undefined;
    let member = this.#members.get(name);
    if (!member) {
      member = { name, groups: [], version: createHash('sha256').update(hash).digest('base64url').slice(0, 22) };
      this.#members.set(name, member);
    }
    return member;
  }

  verify(user: string, password: string, network: string): Promise<boolean> {
    const key = this.#key(user, password);
    let check = this.#inFlight.get(key);
    if (!check) {
      check = this.#check(user, password, network, key).finally(() => this.#inFlight.delete(key));
      this.#inFlight.set(key, check);
    }
    return check;
  }

  async #check(user: string, password: string, network: string, key: string): Promise<boolean> {
    const hash = this.#htpasswd.users.get(user);
    const spellings = [...new Set([password, password.normalize('NFC')])];
    const passwords = spellings.filter(spelling => Buffer.byteLength(spelling) <= LONGEST_PASSWORD);
    const possible = hash !== undefined && passwords.length > 0;
    const right = await this.bcrypt.check({
      passwords: passwords.length > 0 ? passwords : [''],
      hash: possible ? hash : this.#nobody,
      cost: this.#htpasswd.cost ?? USUAL_COST,
      network,
    });
    // The file may have changed while the check waited.
    if (!possible || !right || this.#htpasswd.users.get(user) !== hash) return false;
    this.#right.set(key, true);
    return true;
  }

  #key(user: string, password: string): string {
    const parts = [user, password, this.#htpasswd.users.get(user) ?? this.#nobody];
    // Nobody sees what comes of it, so the secret before the rest is enough; of an HMAC half the cost is to make it.
    return hash('sha256', this.#secret + parts.map(part => `${part.length}:${part}`).join(''), 'base64');
  }
}

/** A well-formed hash that nothing is known to have. */
function dummyHash(cost = USUAL_COST): string {
  const alphabet = './ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  const digits = Array.from(randomBytes(53), byte => alphabet[byte & 63]).join('');
  return `$2b$${String(cost).padStart(2, '0')}$${digits}`;
}
