import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type Entry, EqualityFilter, FilterParser } from 'ldapts';
import { LdapCredentials, type LdapUsers } from '../../src/auth/ldap/credentials.js';
import type { Search } from '../../src/auth/ldap/directory.js';
import { fill, filterValue, isBelow, nameValue, parseName } from '../../src/auth/ldap/names.js';
import { Turns } from '../../src/auth/turns.js';
import { RegistryError } from '../../src/errors.js';

describe('the texts of LDAP', () => {
  test('whatever a name is, in a filter it is one value', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), name => {
        const filter = FilterParser.parseString(fill('(uid={user})', { user: name }, filterValue));
        assert.ok(filter instanceof EqualityFilter, filter.toString());
        assert.equal(filter.value.toString(), name);
      }),
      { numRuns: 2000 },
    );
    assert.equal(filterValue('*)(a=\\\0'), '\\2a\\29\\28a=\\5c\\00');
  });

  test('whatever a name is, in the name of an entry it is one value', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), name => {
        const parts = parseName(fill('uid={user},ou=people', { user: name }, nameValue));
        assert.deepEqual(parts, [
          { type: 'uid', value: name },
          { type: 'ou', value: 'people' },
        ]);
      }),
      { numRuns: 2000 },
    );
    assert.equal(nameValue(' #a,b+c=d '), '\\ #a\\,b\\+c\\=d\\ ');
  });

  test('a value brings no placeholder', () =>
    assert.equal(
      fill('{user}{dn}{x}', { user: '{dn}', dn: 'd' }, x => x),
      '{dn}d{x}',
    ));

  test('an entry is below another by whole parts', () => {
    const below = (name: string, base: string) => isBelow(parseName(name)!, parseName(base)!);
    assert.equal(below('cn=dev,ou=Groups,dc=lan', 'OU=groups, DC=lan'), true);
    assert.equal(below('ou=groups,dc=lan', 'ou=groups,dc=lan'), false);
    assert.equal(below('cn=dev\\,ou=groups,dc=lan', 'ou=groups,dc=lan'), false);
    assert.equal(below('cn=dev,ou=other,dc=lan', 'ou=groups,dc=lan'), false);
    assert.deepEqual(parseName('cn=Zo\\c3\\ab\\20,dc=lan')?.[0], { type: 'cn', value: 'Zoë ' });
    assert.equal(parseName('cn=a+uid=b,dc=lan'), undefined);
    assert.equal(parseName('nonsense'), undefined);
  });
});

/** A directory in memory: what each search finds, and an account of what it was asked. */
class Fake {
  readonly hasAccount = true;
  readonly searches: Search[] = [];
  readonly binds: string[] = [];
  down = false;
  constructor(readonly entries: Entry[]) {}

  async search(search: Search): Promise<Entry[]> {
    if (this.down) throw new RegistryError('UNAVAILABLE');
    this.searches.push(search);
    const user = /^\(uid=(.*)\)$/.exec(search.filter)?.[1]?.toLowerCase();
    return this.entries.filter(
      entry => user !== undefined && [entry.uid].flat().some(uid => `${uid}`.toLowerCase() === user),
    );
  }

  async bind<T>(
    name: string,
    password: string,
    then: (search: (search: Search) => Promise<Entry[]>) => Promise<T>,
  ): Promise<T | undefined> {
    if (this.down) throw new RegistryError('UNAVAILABLE');
    this.binds.push(name);
    return password === 'secret' && this.entries.some(({ dn }) => dn === name)
      ? then(search => this.search(search))
      : undefined;
  }
}

describe('users of a directory', () => {
  const alice: Entry = {
    dn: 'uid=alice,dc=lan',
    uid: 'alice',
    memberOf: ['cn=dev,ou=groups,dc=lan', 'cn=root,ou=elsewhere,dc=lan'],
  };
  const users: LdapUsers = {
    place: { base: 'dc=lan', filter: '(uid={user})' },
    attribute: 'UID',
    groups: { base: 'ou=groups,dc=lan', filter: undefined, attribute: 'cn' },
    cache: 60_000,
  };
  const opened = (...entries: Entry[]) => {
    const directory = new Fake(entries);
    return { directory, credentials: new LdapCredentials(directory, users) };
  };

  test('a right password is asked for once, and its user has the groups below the one place', async () => {
    const { directory, credentials } = opened(alice);
    assert.equal(await credentials.verify('Alice', 'secret', 'n'), true);
    const member = await credentials.find('Alice');
    assert.deepEqual([member?.name, member?.groups], ['alice', ['dev']]);
    assert.equal(credentials.remembers('Alice', 'secret'), true);
    assert.equal(credentials.remembers('Alice', 'secrets'), false);
    assert.deepEqual([directory.searches.length, directory.binds.length], [1, 1]);
  });

  test('an unknown user is as much to ask as a wrong password', async () => {
    const { directory, credentials } = opened(alice);
    assert.equal(await credentials.verify('alice', 'wrong', 'n'), false);
    assert.equal(await credentials.verify('nobody', 'secret', 'n'), false);
    assert.deepEqual([directory.searches.length, directory.binds.length], [2, 2]);
    assert.match(directory.binds[1]!, /^cn=[0-9a-f]{16},dc=lan$/);
  });

  test('an empty password is not even tried', async () => {
    const { directory, credentials } = opened(alice);
    assert.equal(await credentials.verify('alice', '', 'n'), false);
    assert.deepEqual(directory.binds, []);
  });

  test('nobody is who it is not clear', async () => {
    const twice = opened(alice, { ...alice, dn: 'uid=alice,ou=x,dc=lan' });
    assert.equal(await twice.credentials.verify('alice', 'secret', 'n'), false);
    for (const uid of [['alice', 'root'], [], 'a\nb'])
      assert.equal(await opened({ ...alice, uid }).credentials.find('alice'), undefined, `${uid}`);
  });

  test('another entry by the same name, or a new password, is another version', async () => {
    const version = async (more: Partial<Entry>) =>
      (await opened({ ...alice, ...more } as Entry).credentials.find('alice'))?.version;
    const all = [
      {},
      { entryUUID: '1' },
      { entryUUID: '2' },
      { pwdChangedTime: '3' },
      { objectGUID: Buffer.from([4]) },
      { dn: 'x=y' },
    ];
    assert.equal(new Set(await Promise.all(all.map(version))).size, all.length);
    assert.equal(await version({}), await version({ cn: 'other' }));
  });

  test('what is known is believed for the time of the cache, and not without the directory after it', async context => {
    const { directory, credentials } = opened(alice);
    const start = performance.now();
    let seconds = 0;
    context.mock.method(performance, 'now', () => start + seconds * 1000);
    const later = async (time: number) => {
      seconds = time;
      // The cache looks at the clock once a millisecond.
      await new Promise(resolve => setTimeout(resolve, 5));
    };
    await later(1);
    assert.equal(await credentials.verify('alice', 'secret', 'n'), true);
    directory.down = true;
    await later(60);
    assert.equal(credentials.remembers('alice', 'secret'), true);
    assert.equal((await credentials.find('alice'))?.name, 'alice');
    await later(62);
    assert.equal(credentials.remembers('alice', 'secret'), false);
    await assert.rejects(credentials.find('alice'), { status: 503 });
    await assert.rejects(credentials.verify('alice', 'secret', 'n'), { status: 503 });
    directory.down = false;
    directory.entries.length = 0;
    assert.equal(await credentials.find('alice'), undefined);
  });
});

test('so many logins run at once, and so many wait, none of whose networks has more than its share', async () => {
  const turns = new Turns(2);
  const held: Array<() => void> = [];
  const work = () => new Promise<string>(resolve => held.push(() => resolve('done')));
  const run = (network: string) => turns.run(network, work);
  const taken = Array.from({ length: 34 }, (_, index) => run(`192.0.2.${index % 5}`));
  await assert.rejects(run('198.51.100.1'), { status: 429 });
  assert.equal(held.length, 2);
  for (let ended = 0; ended < 34; ended++) {
    held.shift()?.();
    await new Promise(setImmediate);
    assert.ok(held.length <= 2);
  }
  assert.deepEqual(new Set(await Promise.all(taken)), new Set(['done']));
  const [first, second, ...own] = Array.from({ length: 10 }, () => run('192.0.2.1'));
  await assert.rejects(run('192.0.2.1'), { status: 429 });
  const other = run('198.51.100.1');
  for (let ended = 0; ended < 11; ended++) {
    held.shift()?.();
    await new Promise(setImmediate);
  }
  assert.equal((await Promise.all([first, second, ...own, other])).length, 11);
});
