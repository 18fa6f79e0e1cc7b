import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ANONYMOUS, type Identity } from '../../src/auth/identity.js';
import { explain, policyMay } from '../../src/auth/policy.js';
import { deadRules, parseGroups, parsePolicy } from '../../src/auth/policy-file.js';
import { type Action, RIGHTS } from '../../src/auth/rights.js';
import { CHECKOUT } from '../support/checkout.js';

const POLICY = `
groups:
  dev: [alice, bob]
  nobody: []
rules:
  - who: anonymous
    may: [pull]
    on: ["public/**"]
  - who: [group:dev]
    may: [push, delete]
    on: [team/**, team]
  - who: [authenticated]
    may: [push]
    on: ["users/{user}/**"]
  - who: [user:ci]
    may: create-only
    on: [releases/*]
  - who: [user:root]
    may: [admin]
    on: ["**"]
`;

const policy = parsePolicy(POLICY, 'policy.yml');
const may = policyMay(policy, { open: false });
const user = (name: string): Identity => ({ kind: 'user', name });
const ACTIONS = ['pull', 'push', 'overwrite', 'delete', 'admin'] as const satisfies readonly Action[];
/** What somebody may do in a repository, in a word. */
const rights = (identity: Identity, repository: string) =>
  ACTIONS.filter(action => may(identity, action, repository)).join(' ');

describe('a policy', () => {
  test('gives each right, and what goes with it, where its patterns match', () => {
    assert.equal(rights(ANONYMOUS, 'public/app'), 'pull');
    assert.equal(rights(ANONYMOUS, 'public'), '');
    assert.equal(rights(ANONYMOUS, 'team/app'), '');
    assert.equal(rights(user('alice'), 'public/app'), 'pull', 'what needs no login is there for who has one');
    assert.equal(rights(user('alice'), 'team'), 'pull push overwrite delete');
    assert.equal(rights(user('bob'), 'team/a/b'), 'pull push overwrite delete');
    assert.equal(rights(user('carol'), 'team/a/b'), '');
    assert.equal(rights(user('ci'), 'releases/app'), 'pull push');
    assert.equal(rights(user('ci'), 'releases/app/deep'), '');
    assert.equal(rights(user('root'), 'any/thing'), 'pull push overwrite delete admin');
  });

  test('a user is nobody else', () => {
    assert.equal(rights(user('carol'), 'users/carol/app'), 'pull push overwrite');
    assert.equal(rights(user('carol'), 'users/carola/app'), '');
    for (const name of ['*', '**', 'a/b', 'Carol', '', '..', 'carol/app', 'carol*', '{user}', 'x y'])
      for (const repository of ['users/carol/app', 'users/a/b/app', `users/${name}/app`])
        assert.equal(rights(user(name), repository), '', `${name} in ${repository}`);
    assert.equal(rights(user('anonymous'), 'team/app'), '');
    assert.equal(rights(user('group:dev'), 'team/app'), '');
    assert.equal(rights(user('constructor'), 'team/app'), '');
  });

  test('login is for users, the catalog for whom any rule is about', () => {
    assert.equal(may(user('carol'), 'login'), true);
    assert.equal(may(ANONYMOUS, 'login'), false);
    assert.equal(policyMay(policy, { open: true })(ANONYMOUS, 'login'), true);
    assert.equal(may(ANONYMOUS, 'catalog'), true);
    const closed = policyMay(parsePolicy('rules: [{who: [user:a], may: [pull], on: [a]}]', 'p'), { open: false });
    assert.deepEqual(
      [ANONYMOUS, user('a'), user('b')].map(identity => closed(identity, 'catalog')),
      [false, true, false],
    );
  });

  test('without rules allows nothing', () => {
    const none = policyMay(parsePolicy('rules: []', 'p'), { open: false });
    for (const action of [...ACTIONS, 'catalog'] as const) assert.equal(none(user('alice'), action, 'a'), false);
  });

  test('is explained as it decides', () => {
    assert.deepEqual(explain(policy, user('alice'), 'delete', 'team/app'), {
      allowed: true,
      rules: [
        { place: 'policy.yml:6:5', says: 'another repository' },
        { place: 'policy.yml:9:5', says: 'allows' },
        { place: 'policy.yml:12:5', says: 'another repository' },
      ],
    });
    assert.equal(explain(policy, user('alice'), 'delete', 'public/app').rules[0]?.says, 'another right');
    const names = ['alice', 'bob', 'carol', 'ci', 'root'];
    const repositories = ['team', 'team/a', 'public/a', 'users/carol/a', 'releases/a', 'other'];
    fc.assert(
      fc.property(
        fc.option(fc.constantFrom(...names), { nil: undefined }),
        fc.constantFrom(...ACTIONS),
        fc.constantFrom(...repositories),
        (name, action, repository) => {
          const identity = name === undefined ? ANONYMOUS : user(name);
          assert.equal(explain(policy, identity, action, repository).allowed, may(identity, action, repository));
        },
      ),
    );
  });
});

test('the example of the documents is one, and says what they say', () => {
  const page = readFileSync(join(CHECKOUT, 'docs/access.md'), 'utf8');
  const example = parsePolicy(/```yaml\n([\s\S]*?)```/.exec(page)![1]!, 'access.md');
  assert.equal(example.rules.length, 5);
  assert.deepEqual(deadRules(example), []);
  for (const right of Object.keys(RIGHTS)) assert.match(page, new RegExp(`^\\| \`${right}\` \\| yes`, 'm'));
});

describe('a policy file with a mistake says where it is, and what is right', () => {
  const rule = (text: string) => `rules:\n  - ${text}\n`;
  for (const [what, text, message, fix] of [
    ['no YAML', 'rules: [', /^p:1:\d+: /, /./],
    ['nothing', '', /^p:1:1: the file/, /who, may and on/],
    ['no rules', 'groups: {}', /^p:1:1: rules/, /who, may and on/],
    ['an unknown key', 'rules: []\nrule: []', /^p:2:1: rule is not known here/, /groups and rules/],
    ['an unknown key of a rule', rule('{who: [anonymous], can: [pull], on: [a]}'), /^p:2:24: can is not known/, /./],
    ['a rule without a pattern', rule('{who: [anonymous], may: [pull]}'), /^p:2:5: rules\.0\.on is missing/, /on/],
    ['an empty list', rule('{who: [], may: [pull], on: [a]}'), /^p:2:6: rules\.0\.who is empty/, /./],
    ['nobody', rule('{who: [alice], may: [pull], on: [a]}'), /^p:2:12: "alice" is nobody/, /user:NAME/],
    ['no right', rule('{who: [user:a], may: [write], on: [a]}'), /^p:2:27: "write" is no right/, /create-only/],
    ['an odd right', rule('{who: [user:a], may: [toString], on: [a]}'), /"toString" is no right/, /push/],
    ['a pattern of upper case', rule('{who: [user:a], may: [pull], on: [Team/*]}'), /"Team\/\*" matches no/, /\*\*/],
    ['a pattern with a host', rule('{who: [user:a], may: [pull], on: ["h:5000/a"]}'), /no pattern for names/, /team/],
    ['a pattern that ends in a slash', rule('{who: [user:a], may: [pull], on: [team/]}'), /matches no/, /\*\*/],
    ['a group without a name', 'groups: {"": [a]}\nrules: []', /^p:1:\d+: the group ""/, undefined],
  ] as const)
    test(what, () =>
      assert.throws(
        () => parsePolicy(text, 'p'),
        (error: { message: string; fix?: string }) => {
          assert.match(error.message, message);
          if (fix) assert.match(error.fix ?? '', fix);
          return true;
        },
      ),
    );

  test('whatever else it holds, it is refused in one line or taken', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ maxLength: 200 }), fc.json()), text => {
        try {
          parsePolicy(text, 'p');
        } catch (error) {
          assert.equal((error as Error).name, 'OperatorError', String(error));
        }
      }),
    );
  });
});

describe('a file of groups, as Apache reads it', () => {
  test('names, members, comments, several lines of one group, Unicode', () => {
    const groups = parseGroups('# people\ndev: alice bob\n\nops:carol\r\ndev:  zo\u0065\u0308 \nempty:\n', 'groups');
    assert.deepEqual(
      [...groups].map(([name, members]) => [name, ...members]),
      [['dev', 'alice', 'bob', 'zo\u00eb'], ['ops', 'carol'], ['empty']],
    );
  });

  test('a line without a colon', () =>
    assert.throws(() => parseGroups('dev: a\nalice\n', 'groups'), {
      message: 'groups:2: this line has no group before a colon',
      fix: 'write NAME: USER USER',
    }));
});

describe('rules that can never allow anything are found', () => {
  const found = (rules: string, users?: string[]) =>
    deadRules(
      parsePolicy(`groups: {none: [], gone: [zed], dev: [alice]}\nrules:\n${rules}`, 'p'),
      users && new Set(users),
    );
  const rule = (who: string, may: string, on: string) => `  - {who: [${who}], may: [${may}], on: [${on}]}\n`;
  test('none in a good policy', () =>
    assert.deepEqual(
      found(
        rule('group:dev', 'push', '"team/**"') + rule('anonymous', 'pull', '"**"') + rule('user:alice', 'delete', 'a'),
        ['alice'],
      ),
      [],
    ));
  for (const [what, rules, message] of [
    ['a user who cannot log in', rule('user:zed', 'pull', 'a'), 'there is no user "zed"'],
    ['a group that is not there', rule('group:nil', 'pull', 'a'), 'there is no group "nil"'],
    ['a group without members', rule('group:none', 'pull', 'a'), 'the group "none" has no members'],
    ['a group of strangers', rule('group:gone', 'pull', 'a'), 'no member of the group "gone" can log in'],
    ['a name for nobody', rule('anonymous', 'pull', '"u/{user}"'), "u/{user} is nobody's, for anonymous has no name"],
    [
      'a rule that another one covers',
      rule('authenticated', 'push', '"**"') + rule('group:dev', 'pull, create-only', 'team/a'),
      'says nothing beyond the rule at p:3:5',
    ],
    [
      'the second of two that are the same',
      rule('user:alice', 'pull', 'a') + rule('user:alice', 'pull', 'a'),
      'says nothing beyond the rule at p:3:5',
    ],
  ] as const)
    test(what, () =>
      assert.deepEqual(
        found(rules, ['alice']).map(finding => finding.what),
        [message],
      ),
    );
});
