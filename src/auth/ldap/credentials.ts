import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { Entry } from 'ldapts';
import type { LRUCache } from 'lru-cache';
import { growingCache } from '../../growing-cache.js';
import { UNUSABLE_NAME } from '../htpasswd.js';
import type { CredentialSource, Member } from '../source.js';
import { Turns } from '../turns.js';
import type { Directory, Search } from './directory.js';
import { fill, filterValue, isBelow, nameValue, parseName } from './names.js';

export interface LdapUsers {
  /** Where users are: searched for below an entry, or under a name that is made of theirs. */
  readonly place: { readonly base: string; readonly filter: string } | { readonly name: string };
  /** The attribute that holds the user's name. */
  readonly attribute: string;
  readonly groups: LdapGroups | undefined;
  /** How long what was found may be believed. In milliseconds. */
  readonly cache: number;
}

interface LdapGroups {
  readonly base: string;
  /** With `{dn}` or `{user}`; undefined: the attribute memberOf of the user says it. */
  readonly filter: string | undefined;
  /** The attribute that holds the group's name. */
  readonly attribute: string;
}

const CACHED = 10_000;
/** Nobody by a name is remembered shortly, for it may just be made. In milliseconds. */
const NOBODY_MS = 5_000;
const AT_ONCE = 8;
const MOST_GROUPS = 1_000;
/** What changes with a user who is another one by the same name, or whose password is new, where the server shows it. */
const VERSION = ['entryUUID', 'objectGUID', 'pwdChangedTime', 'pwdLastSet'];

type Searcher = (search: Search) => Promise<Entry[]>;

interface Known {
  readonly member: Member | undefined;
}

/**
 * Users of a directory. What it has said is believed for a minute at most: then a user who is removed, disabled, has
 * another password or other groups is so here. While it cannot be asked, nobody is let in by it.
 */
export class LdapCredentials implements CredentialSource {
  readonly #secret = randomBytes(32);
  readonly #members: LRUCache<string, Known>;
  readonly #right: LRUCache<string, true>;
  readonly #checking = new Map<string, Promise<boolean>>();
  readonly #finding = new Map<string, Promise<Known>>();
  readonly #turns = new Turns(AT_ONCE);

  constructor(
    private readonly directory: Pick<Directory, 'hasAccount' | 'search' | 'bind'>,
    private readonly users: LdapUsers,
  ) {
    this.#members = growingCache(CACHED, users.cache);
    this.#right = growingCache(CACHED, users.cache);
  }

  remembers(user: string, password: string): boolean {
    return this.#right.get(this.#key(user, password)) === true;
  }

  verify(user: string, password: string, network: string): Promise<boolean> {
    const key = this.#key(user, password);
    let check = this.#checking.get(key);
    if (!check) {
      check = this.#turns.run(network, () => this.#check(user, password)).finally(() => this.#checking.delete(key));
      this.#checking.set(key, check);
    }
    return check;
  }

  async #check(user: string, password: string): Promise<boolean> {
    // Servers let everybody in with an empty one, as nobody (RFC 4513 section 5.1.2).
    if (password === '') return false;
    const found = 'base' in this.users.place ? await this.#entryOf(user, this.#search) : undefined;
    const place = found?.dn ?? this.#placeOf(user);
    const member = await this.directory.bind(place, password, async search => {
      const mine = this.directory.hasAccount ? this.#search : search;
      const entry = found ?? ('name' in this.users.place ? await this.#entryOf(user, mine) : undefined);
      return entry && this.#memberOf(entry, mine);
    });
    if (!member) return false;
    this.#members.set(user, { member });
    this.#right.set(this.#key(user, password), true);
    return true;
  }

  async find(user: string): Promise<Member | undefined> {
    const known = this.#members.get(user);
    // Without an account of our own only what the user's last login has shown is known.
    if (known || ('name' in this.users.place && !this.directory.hasAccount)) return known?.member;
    let finding = this.#finding.get(user);
    if (!finding) {
      finding = this.#find(user).finally(() => this.#finding.delete(user));
      this.#finding.set(user, finding);
    }
    return (await finding).member;
  }

  async #find(user: string): Promise<Known> {
    const entry = await this.#entryOf(user, this.#search);
    const member = entry && (await this.#memberOf(entry, this.#search));
    this.#members.set(user, { member }, member ? {} : { ttl: Math.min(NOBODY_MS, this.users.cache) });
    return { member };
  }

  readonly #search: Searcher = search => this.directory.search(search);

  /** The one entry of a user; undefined where there is none, and where it is not clear which. */
  async #entryOf(user: string, search: Searcher): Promise<Entry | undefined> {
    const { place, attribute } = this.users;
    const attributes = [attribute, 'memberOf', ...VERSION];
    const entries = await search(
      'base' in place
        ? { base: place.base, scope: 'sub', filter: fill(place.filter, { user }, filterValue), attributes, most: 2 }
        : { base: this.#placeOf(user), scope: 'base', filter: '(objectClass=*)', attributes, most: 1 },
    );
    return entries.length === 1 ? entries[0] : undefined;
  }

  /** Where the user's entry is, or, where only a search could tell, a place that is nobody's: it costs as much to try. */
  #placeOf(user: string): string {
    const { place } = this.users;
    return 'name' in place
      ? fill(place.name, { user }, nameValue)
      : `cn=${randomBytes(8).toString('hex')},${place.base}`;
  }

  /** @returns undefined where the name that the directory has for the user cannot be told, or used */
  async #memberOf(entry: Entry, search: Searcher): Promise<Member | undefined> {
    // Directories do not mind the case, and a policy does: the directory's spelling counts, if there is one.
    const [name, ...more] = texts(entry, this.users.attribute).map(name => name.normalize('NFC'));
    if (name === undefined || more.length > 0 || UNUSABLE_NAME.test(name)) return undefined;
    const hash = createHash('sha256').update(entry.dn);
    for (const attribute of VERSION) hash.update(`\0${texts(entry, attribute).join('\0')}`);
    return { name, groups: await this.#groupsOf(entry, name, search), version: hash.digest('base64url').slice(0, 22) };
  }

  async #groupsOf(entry: Entry, user: string, search: Searcher): Promise<string[]> {
    const { groups } = this.users;
    if (!groups) return [];
    const { base, filter, attribute } = groups;
    if (filter === undefined) {
      const place = parseName(base);
      return texts(entry, 'memberOf').flatMap(text => {
        const group = parseName(text);
        const own = group?.[0]?.type === attribute.toLowerCase() ? group[0].value : undefined;
        return own !== undefined && place && isBelow(group!, place) ? [own.normalize('NFC')] : [];
      });
    }
    const text = fill(filter, { dn: entry.dn, user }, filterValue);
    const found = await search({ base, scope: 'sub', filter: text, attributes: [attribute], most: MOST_GROUPS });
    return found.flatMap(group => texts(group, attribute).map(name => name.normalize('NFC')));
  }

  /** Depends on what is known of the user, so that it is worth nothing once that has changed. */
  #key(user: string, password: string): string {
    const parts = [user, password, this.#members.get(user)?.member?.version ?? ''];
    const hmac = createHmac('sha256', this.#secret);
    return hmac.update(parts.map(part => `${part.length}:${part}`).join('')).digest('base64');
  }
}

/** The values of an attribute, by whatever spelling the server has for its name. */
function texts(entry: Entry, attribute: string): string[] {
  const name = Object.keys(entry).find(name => name !== 'dn' && name.toLowerCase() === attribute.toLowerCase());
  const values = name === undefined ? [] : [entry[name] ?? []].flat();
  return values.map(value => (typeof value === 'string' ? value : value.toString('hex')));
}
