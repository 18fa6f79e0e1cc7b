import { createHmac, randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { RegistryError } from '../errors.js';
import type { Glob } from '../glob.js';
import { growingCache } from '../growing-cache.js';
import { type Identity, type Membership, type User, unknown } from './identity.js';
import type { Authorise } from './policy.js';
import type { CredentialSource, Member, RequestSource } from './source.js';

/** Users who count in some of the repositories. */
export interface Realm {
  /** Shown to clients; one line. */
  readonly name: string;
  /** Which repositories are its own, unless a realm before it has them. */
  readonly covers: Glob;
  /** Asked in this order. */
  readonly passwords: readonly CredentialSource[];
  readonly requests: readonly RequestSource[];
}

/** That a password which is right elsewhere is wrong in a realm is not found out again for so long. In milliseconds. */
const WRONG_MS = 60_000;
const WRONG = 10_000;

/**
 * The realms in their order: the first that covers a repository decides there. Whoever is known in another one only is
 * nobody in it. docs/decisions/0018-realms.md has the reasons.
 */
export class Realms {
  readonly #secret = randomBytes(32);
  /** With what was known of the user then. */
  readonly #wrong = growingCache<string, string>(WRONG, WRONG_MS);

  /** By what a request can say who sends it, beside passwords. */
  readonly #ways: ReadonlySet<RequestSource['via']>;

  /** @param all the last of them covers every repository that the others leave */
  constructor(readonly all: readonly Realm[]) {
    this.#ways = new Set(all.flatMap(({ requests }) => requests.map(({ via }) => via)));
  }

  /** A user as each realm knows it, by the realm's name: somebody who is remembered is the same user each time. */
  readonly #within = new WeakMap<User, Map<string, Identity>>();

  /** Those of the repositories; of none, all. */
  of(repositories: readonly string[]): readonly Realm[] {
    if (repositories.length === 0 || this.all.length === 1) return this.all;
    return [...new Set(repositories.map(repository => this.#of(repository)))];
  }

  #of(repository: string): Realm {
    return this.all.find(realm => realm.covers(repository)) ?? this.all.at(-1)!;
  }

  /** The same decision with the identity as the repository's own realm knows it. */
  decide(may: Authorise): Authorise {
    return (identity, action, repository) => {
      // Over all there is stands the realm of all that the others leave.
      const realm = action === 'administer' ? this.all.at(-1) : undefined;
      return may(this.#as(identity, repository, realm), action, repository);
    };
  }

  #as(identity: Identity, repository: string | undefined, realm?: Realm): Identity {
    if (identity.kind === 'anonymous' || !identity.realms) return identity;
    if (!realm && (repository === undefined || repository === ''))
      return { ...identity, groups: [...identity.realms.values()].flatMap(({ groups }) => groups) };
    const { name } = realm ?? this.#of(repository ?? '');
    const membership = identity.realms.get(name);
    if (!membership) return unknown(identity);
    const known = this.#within.get(identity) ?? new Map<string, Identity>();
    if (known.size === 0) this.#within.set(identity, known);
    const there = known.get(name) ?? { ...identity, groups: membership.groups };
    known.set(name, there);
    return there;
  }

  /** Whether any realm knows users in that way. */
  hears(via: RequestSource['via']): boolean {
    return this.#ways.has(via);
  }

  /** Whom a request is from by its certificate, or by a proxy's word, in the realms given. */
  shown(via: RequestSource['via'], request: IncomingMessage, realms: readonly Realm[]): User | undefined {
    if (!this.hears(via)) return undefined;
    const found = realms.flatMap(realm => {
      const member = first(realm.requests, source => (source.via === via ? source.identify(request) : undefined));
      return member ? [{ realm, member, version: `${via}:${member.version}` }] : [];
    });
    return userOf(found, via);
  }

  /** The identity, where one of the realms has it. */
  within(user: User, realms: readonly Realm[]): Identity {
    return !user.realms || realms.some(({ name }) => user.realms?.has(name)) ? user : unknown(user);
  }

  /** Who that is with this password, where that is remembered from not long ago; undefined where it takes a check. */
  async remembered(user: string, password: string, realms: readonly Realm[]): Promise<User | undefined> {
    const found: Found[] = [];
    for (const realm of this.#inOrder(realms)) {
      // One that was not asked for only tells a user of elsewhere from a mistake.
      if (found.length > 0 && !realms.includes(realm)) break;
      const one = await this.#remembered(realm, user, password);
      if (one === 'unknown') return undefined;
      if (one !== 'nobody') found.push(one);
    }
    return userOf(found, 'password');
  }

  /**
   * Whose password that is, and what tells at no more than a look whether it is remembered still; undefined where only
   * `remembered` does: where another source, or another realm, could have its say.
   */
  remembering(user: string, password: string): Remembered | undefined {
    const [realm] = this.all;
    if (!realm || this.all.length > 1 || realm.passwords.length > 1) return undefined;
    const [source] = realm.passwords;
    const still = source?.remembering?.(user, password);
    const member = still && source?.find(user);
    if (!still || !member || member instanceof Promise) return undefined;
    return { user: userOf([{ realm, member, version: `0:${member.version}` }], 'password')!, still };
  }

  async #remembered(realm: Realm, user: string, password: string): Promise<Found | 'nobody' | 'unknown'> {
    const index = realm.passwords.findIndex(source => source.remembers(user, password));
    try {
      const member = await realm.passwords[index]?.find(user);
      if (member) return { realm, member, version: `${index}:${member.version}` };
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      return 'unknown';
    }
    if (realm.passwords.length === 0) return 'nobody';
    // Nobody is looked for who may just be made up: no limiter has been asked yet.
    const versions = this.#wrong.get(this.#key(realm, user, password));
    return versions !== undefined && versions === (await this.#versions(realm, user)) ? 'nobody' : 'unknown';
  }

  /** Who that is with this password: in those of the realms where it is right, else in any other. */
  async login(user: string, password: string, network: string, realms: readonly Realm[]): Promise<Login> {
    const found: Found[] = [];
    const wrong: Realm[] = [];
    let refused = false;
    let fault: RegistryError | undefined;
    for (const realm of this.#inOrder(realms)) {
      if ((found.length > 0 || fault) && !realms.includes(realm)) break;
      const one = await this.#login(realm, user, password, network);
      if (one.found) found.push(one.found);
      else if (!one.fault) wrong.push(realm);
      refused ||= one.refused;
      if (realms.includes(realm)) fault ??= one.fault;
    }
    // Never for what is right nowhere: that is the limiter's, and would be a memory of what people mistyped.
    if (found.length > 0)
      for (const realm of wrong) this.#wrong.set(this.#key(realm, user, password), await this.#versions(realm, user));
    return { user: userOf(found, 'password'), refused, fault };
  }

  #inOrder(realms: readonly Realm[]): readonly Realm[] {
    return realms.length === this.all.length
      ? realms
      : [...realms, ...this.all.filter(realm => !realms.includes(realm))];
  }

  async #login(realm: Realm, user: string, password: string, network: string): Promise<Attempt> {
    const remembered = await this.#remembered(realm, user, password);
    if (remembered === 'nobody') return { found: undefined, refused: realm.passwords.length > 0, fault: undefined };
    if (remembered !== 'unknown') return { found: remembered, refused: false, fault: undefined };
    let refused = false;
    let fault: RegistryError | undefined;
    for (const [index, source] of realm.passwords.entries())
      try {
        const member = (await source.verify(user, password, network)) ? await source.find(user) : undefined;
        if (member)
          return { found: { realm, member, version: `${index}:${member.version}` }, refused: false, fault: undefined };
        refused = true;
      } catch (error) {
        // The next one may know: an administrator's own file while a server is down.
        if (!(error instanceof RegistryError)) throw error;
        fault ??= error;
      }
    return { found: undefined, refused, fault };
  }

  /**
   * A user as all realms know them, without a password; undefined for nobody.
   * @param among names of realms: no other is asked
   * @throws RegistryError UNAVAILABLE where that cannot be told
   */
  async known(user: string, among?: readonly string[]): Promise<User | undefined> {
    const found: Found[] = [];
    let fault: unknown;
    const asked = among ? this.all.filter(({ name }) => among.includes(name)) : this.all;
    for (const realm of asked)
      for (const [index, source] of realm.passwords.entries())
        try {
          const member = await source.find(user);
          if (!member) continue;
          found.push({ realm, member, version: `${index}:${member.version}` });
          break;
        } catch (error) {
          if (!(error instanceof RegistryError)) throw error;
          fault ??= error;
        }
    if (found.length === 0 && fault !== undefined) throw fault;
    return userOf(found, 'password');
  }

  /** Whether somebody is known to be called so, without asking anybody. */
  knows(user: string): boolean {
    return this.all.some(({ passwords }) => passwords.some(source => source.knows?.(user)));
  }

  /** What a realm knows of a user now, if it is still by the same credentials. @throws RegistryError UNAVAILABLE */
  async member(name: string, user: string, version: string, request: IncomingMessage): Promise<Membership | undefined> {
    const realm = this.all.find(realm => realm.name === name);
    const [kind = ''] = version.split(':', 1);
    const member = /^\d+$/.test(kind)
      ? await realm?.passwords[Number(kind)]?.find(user)
      : first(realm?.requests ?? [], source => (source.via === kind ? source.identify(request) : undefined));
    if (member?.name !== user || `${kind}:${member.version}` !== version) return undefined;
    return { groups: member.groups, version };
  }

  /** What the realm knows of the user: another one where the password may be, so that a new one is tried at once. */
  async #versions(realm: Realm, user: string): Promise<string> {
    const members = await Promise.allSettled(realm.passwords.map(async source => source.find(user)));
    return JSON.stringify(members.map(result => (result.status === 'fulfilled' ? result.value?.version : undefined)));
  }

  #key(realm: Realm, user: string, password: string): string {
    const hmac = createHmac('sha256', this.#secret);
    return hmac.update([realm.name, user, password].map(part => `${part.length}:${part}`).join('')).digest('base64');
  }
}

/** A user whose password was right, and whether that still counts. */
export interface Remembered {
  readonly user: User;
  readonly still: () => boolean;
}

/** What came of a password. */
interface Login {
  /** Whose it is; undefined where it is right nowhere. */
  readonly user: User | undefined;
  /** Whether it is known to be wrong somewhere. */
  readonly refused: boolean;
  /** Of a realm that was asked for and could not say: TOOMANYREQUESTS, UNAVAILABLE. */
  readonly fault: RegistryError | undefined;
}

interface Attempt extends Omit<Login, 'user'> {
  readonly found: Found | undefined;
}

interface Found {
  readonly realm: Realm;
  readonly member: Member;
  readonly version: string;
}

/** Whom one realm alone has found by a password, by what it knows of them. */
const users = new WeakMap<Member, { readonly user: User; readonly realm: Realm; readonly version: string }>();

function userOf(found: readonly Found[], via: 'password' | RequestSource['via']): User | undefined {
  if (found.length !== 1 || via !== 'password') return made(found, via);
  const [{ realm, member, version }] = found as [Found];
  const known = users.get(member);
  if (known && known.realm === realm && known.version === version) return known.user;
  const user = made(found, via)!;
  users.set(member, { user, realm, version });
  return user;
}

function made(found: readonly Found[], via: 'password' | RequestSource['via']): User | undefined {
  const name = found[0]?.member.name;
  if (name === undefined) return undefined;
  // Realms may spell a user in two ways, and one request is from one user.
  const same = found.filter(({ member }) => member.name === name);
  const realms = same.map(({ realm, member, version }) => [realm.name, { groups: member.groups, version }] as const);
  return { kind: 'user', name, via, realms: new Map(realms) };
}

function first<T, R>(list: readonly T[], look: (item: T) => R | undefined): R | undefined {
  for (const item of list) {
    const found = look(item);
    if (found !== undefined) return found;
  }
  return undefined;
}
