import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { apiDocument } from '../../src/api/openapi.js';
import { ROUTES } from '../../src/api/routes.js';
import { Access } from '../../src/auth/access.js';
import { parseAllow } from '../../src/auth/bounds.js';
import { HtpasswdCredentials } from '../../src/auth/credentials.js';
import { addUser, removeUser } from '../../src/auth/htpasswd-edit.js';
import { policyMay } from '../../src/auth/policy.js';
import { PolicyDocument } from '../../src/auth/policy-document.js';
import { Realms } from '../../src/auth/realms.js';
import { UserFile } from '../../src/auth/user-file.js';
import { layout } from '../../src/store/layout.js';
import { DocumentedApi } from '../support/api-document.js';
import {
  type Answer,
  type CallOptions,
  descriptorOf,
  indexOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

const JSON_TYPE = { 'content-type': 'application/json' };
const POLICY = `# Who may do what.
groups:
  dev: [alice]
rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [group:dev], may: [push, delete], on: ["team/**"]}
  - {who: [user:root], may: [admin], on: ["**"]}
  - {who: [user:lead], may: [admin], on: ["team/**"]}
  - {who: [user:tester], may: [push], on: ["**"]}
`;

describe('/api/v1', () => {
  let dir: string;
  let registry: RegistryFixture;
  let api: DocumentedApi;
  let source: HtpasswdCredentials;
  let access: Access;
  const htpasswd = () => join(dir, 'htpasswd');
  const policyFile = () => join(dir, 'policy.yml');

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-api-'));
    for (const name of ['root', 'alice']) await addUser(htpasswd(), name, `secret of ${name}`);
    await writeFile(policyFile(), POLICY);
    source = await HtpasswdCredentials.open(htpasswd());
    access = await Access.load({ policy: policyFile(), groups: undefined }, false);
    const realms = new Realms([{ name: 'all', covers: () => true, passwords: [], requests: [] }]);
    registry = await RegistryFixture.start({
      authorise: realms.decide(access.may),
      identityOf: text => {
        const [name = '', allow] = text.split(' with ');
        const [user = '', group] = name.split(' of ');
        if (group !== undefined)
          return { kind: 'user', name: user, realms: new Map([['all', { groups: [group], version: '' }]]) };
        return { kind: 'user', name, ...(allow !== undefined && { bounds: [parseAllow(allow)] }) };
      },
      services: {
        userFile: new UserFile(htpasswd(), source),
        policyDocument: new PolicyDocument(
          access.files,
          () => source.names,
          () => access.reload(),
        ),
        authoriseBy: policy => realms.decide(policyMay(policy, { open: false })),
        policy: () => access.policy,
      },
    });
    const { json } = await registry.call('GET', '/api/v1/openapi.json', { user: 'nobody' });
    api = new DocumentedApi(json() as never);
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
    await rm(dir, { recursive: true });
  });

  /** A request below /api/v1 whose answer is held against the document. */
  async function call(
    method: string,
    path: string,
    options: Omit<CallOptions, 'body'> & { body?: unknown } = {},
  ): Promise<Answer> {
    const { body, headers, user = 'root' } = options;
    const answer = await registry.call(method, `/api/v1${path}`, {
      user,
      headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    api.check(method, path.replace(/\?.*/s, ''), answer.status, answer.body);
    assert.equal(answer.headers['cache-control'], 'no-store');
    assert.equal(answer.headers['access-control-allow-origin'], undefined);
    const isChange = answer.status < 300 && !['GET', 'HEAD'].includes(method) && path !== '/policy/check';
    const told = registry.changes.splice(0);
    assert.equal(told.length, isChange ? 1 : 0, `${method} ${path}: ${JSON.stringify(told)}`);
    assert.doesNotMatch(JSON.stringify(told), /secret|rst_|password":/);
    return answer;
  }
  const status = async (...request: Parameters<typeof call>) => {
    const answer = await call(...request);
    return answer.status < 400 ? answer.status : [answer.status, answer.code];
  };
  const namesIn = (answer: Answer) =>
    (answer.json() as { accounts: Array<{ name: string }> }).accounts.map(({ name }) => name);
  const canLogIn = (name: string, password: string) => source.verify(name, password, 'test');

  test('the document has each route of the code and no other, and is shown without a login', async () => {
    const documented = Object.entries(api.document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map(method => `${method.toUpperCase()} ${path}`),
    );
    assert.deepEqual(documented.sort(), ROUTES.map(({ method, path }) => `${method} ${path}`).sort());
    assert.equal(new Set(api.operations).size, api.operations.length);
    assert.deepEqual(api.document, JSON.parse(JSON.stringify(apiDocument(ROUTES, ''))));
    assert.equal(api.document.openapi, '3.1.0');
    assert.deepEqual(await status('POST', '/openapi.json', { user: 'nobody' }), [405, 'UNSUPPORTED']);
    assert.equal((await call('HEAD', '/openapi.json', { user: 'nobody' })).status, 200);
    assert.deepEqual(await status('GET', '/nothing'), [404, 'UNSUPPORTED']);
    assert.deepEqual(await status('GET', '/whoami', { user: 'nobody' }), [401, 'UNAUTHORIZED']);
  });

  test('who asks, and what they may do', async () => {
    const value = async (user: string, path: string) => (await call('GET', path, { user })).json();
    assert.deepEqual(await value('root', '/whoami'), { user: 'root', administrator: true });
    assert.deepEqual(await value('alice', '/whoami'), { user: 'alice', administrator: false });
    assert.deepEqual(await value('', '/whoami'), { user: null, administrator: false });
    // Power over some repositories is none over people.
    assert.deepEqual(await value('lead', '/whoami'), { user: 'lead', administrator: false });

    const allowed = async (user: string, query: string) =>
      ((await value(user, `/rights?${query}`)) as { actions: Array<{ action: string; allowed: boolean }> }).actions
        .filter(({ allowed }) => allowed)
        .map(({ action }) => action);
    assert.deepEqual(await allowed('alice', 'repository=team/app'), ['pull', 'push', 'overwrite', 'delete']);
    assert.deepEqual(await allowed('alice', 'repository=other/app'), []);
    assert.deepEqual(await allowed('', 'repository=public/app'), ['pull']);
    assert.deepEqual(await allowed('root', 'repository=team/app&user=alice'), ['pull', 'push', 'overwrite', 'delete']);
    assert.deepEqual(await allowed('root', 'repository=team/app&user=anonymous'), []);
    assert.deepEqual(await allowed('alice', 'repository=team/app&user=alice'), ['pull', 'push', 'overwrite', 'delete']);
    assert.deepEqual(await status('GET', '/rights?repository=team/app&user=root', { user: 'alice' }), [403, 'DENIED']);
    assert.deepEqual(await status('GET', '/rights?repository=Team'), [400, 'INVALID']);
    assert.deepEqual(await status('GET', '/rights'), [400, 'INVALID']);

    const explained = (await value('root', '/rights?repository=team/app&user=alice')) as {
      actions: Array<{ action: string; rules: unknown }>;
    };
    assert.deepEqual(explained.actions.find(({ action }) => action === 'delete')!.rules, [
      { place: 'policy.yml:5:5', says: 'another repository' },
      { place: 'policy.yml:6:5', says: 'allows' },
    ]);
    const own = (await value('alice', '/rights?repository=team/app')) as { actions: Array<{ rules?: unknown }> };
    assert.ok(
      own.actions.every(({ rules }) => rules === undefined),
      'the policy is not shown to users',
    );
  });

  test('accounts: made, listed, changed and removed by administrators, in force when it is answered', async () => {
    const made = await call('POST', '/accounts', { body: { name: 'bob/ß x', password: 'first' } });
    assert.deepEqual(
      [made.status, made.json(), made.headers.location],
      [201, { name: 'bob/ß x' }, '/api/v1/accounts/bob%2F%C3%9F%20x'],
    );
    assert.ok(await canLogIn('bob/ß x', 'first'));
    assert.match(await readFile(htpasswd(), 'utf8'), /^bob\/ß x:\$2y\$10\$/m);
    assert.deepEqual(await status('POST', '/accounts', { body: { name: 'bob/ß x' } }), [409, 'CONFLICT']);

    const path = '/accounts/bob%2F%C3%9F%20x';
    assert.deepEqual((await call('GET', path)).json(), { name: 'bob/ß x', source: 'file' });
    assert.equal(await status('PUT', `${path}/password`, { body: { password: 'second' } }), 204);
    assert.ok((await canLogIn('bob/ß x', 'second')) && !(await canLogIn('bob/ß x', 'first')));
    assert.equal(await status('DELETE', path), 204);
    assert.ok(!(await canLogIn('bob/ß x', 'second')));
    for (const [method, body] of [['GET'], ['DELETE'], ['PUT', { password: 'x' }]] as const)
      assert.deepEqual(await status(method, method === 'PUT' ? `${path}/password` : path, { body }), [
        404,
        'NOT_FOUND',
      ]);

    const drawn = (await call('POST', '/accounts', { body: { name: 'carol' } })).json() as { password: string };
    assert.ok(drawn.password.length > 20 && (await canLogIn('carol', drawn.password)));
    const first = await call('GET', '/accounts?n=2');
    assert.deepEqual(namesIn(first), ['alice', 'carol']);
    assert.equal(first.headers.link, '</api/v1/accounts?n=2&last=carol>; rel="next"');
    const second = await call('GET', '/accounts?n=2&last=carol');
    assert.deepEqual([namesIn(second), second.headers.link], [['root'], undefined]);
    assert.equal(await status('DELETE', '/accounts/carol'), 204);

    // Taken out by hand, and made anew: what is left of the one is nothing of the other's.
    const account = { body: { name: 'erin', password: 'x' } };
    assert.equal(await status('POST', '/accounts', account), 201);
    const token = { user: 'erin', body: { allow: ['pull:**'], expires: null } };
    assert.equal(await status('POST', '/tokens', token), 201);
    assert.deepEqual(await status('POST', '/accounts', account), [409, 'CONFLICT']);
    const tokens = async () =>
      ((await call('GET', '/tokens', { user: 'erin' })).json() as { tokens: [] }).tokens.length;
    assert.equal(await tokens(), 1);
    await removeUser(htpasswd(), 'erin');
    assert.equal(await status('POST', '/accounts', account), 201);
    assert.equal(await tokens(), 0);
    assert.equal(await status('DELETE', '/accounts/erin'), 204);

    for (const [name, password] of [
      ['a:b', 'x'],
      ['#a', 'x'],
      [' a', 'x'],
      ['a\n', 'x'],
      ['x'.repeat(256), 'x'],
      ['ok', ''],
      ['ok', 'x'.repeat(73)],
      ['ok', 'ü'.repeat(37)],
      ['ok', 'a\tb'],
    ])
      assert.deepEqual(await status('POST', '/accounts', { body: { name, password } }), [400, 'INVALID'], name);
    assert.ok(!(await source.names).has('ok'));
  });

  test('a user has power over nobody else, and over the own password with the current one', async () => {
    for (const [method, path, body] of [
      ['GET', '/accounts'],
      ['POST', '/accounts', { name: 'mallory' }],
      ['GET', '/accounts/root'],
      ['GET', '/accounts/nobody-there'],
      ['DELETE', '/accounts/root'],
      ['DELETE', '/accounts/alice'],
      ['PUT', '/accounts/root/password', { password: 'x' }],
      ['GET', '/policy'],
      ['PUT', '/policy', { text: POLICY }],
      ['POST', '/policy/check', { text: POLICY }],
    ] as const)
      for (const user of ['alice', 'lead', ''])
        assert.deepEqual(await status(method, path, { user, body }), [403, 'DENIED'], `${user} ${method} ${path}`);
    const change = (body: unknown) => status('PUT', '/accounts/alice/password', { user: 'alice', body });
    assert.deepEqual((await call('GET', '/accounts/alice', { user: 'alice' })).json(), {
      name: 'alice',
      source: 'file',
    });
    assert.deepEqual(await change({ password: 'stolen' }), [403, 'DENIED']);
    assert.deepEqual(await change({ password: 'stolen', current: 'wrong' }), [403, 'DENIED']);
    assert.ok(await canLogIn('alice', 'secret of alice'));
    assert.equal(await change({ password: 'my own', current: 'secret of alice' }), 204);
    assert.ok(await canLogIn('alice', 'my own'));
    // Not even an administrator's session is enough for the own password.
    assert.deepEqual(await status('PUT', '/accounts/root/password', { body: { password: 'x' } }), [403, 'DENIED']);
  });

  test('accounts are disabled, let in again and given an end, wherever they are from', async () => {
    const change = async (body: unknown, name = 'alice') => {
      const answer = await call('PATCH', `/accounts/${name}`, { body });
      assert.equal(answer.status, 200, String(answer.body));
      return answer.json() as Record<string, string>;
    };
    const disabled = await change({ disabled: true });
    assert.ok(Math.abs(Date.now() - Date.parse(disabled.disabled!)) < 600_000);
    assert.deepEqual(await change({ disabled: true, expires: '2099-01-01T00:00:00Z' }), {
      ...disabled,
      expires: '2099-01-01T00:00:00Z',
    });
    assert.deepEqual(await change({ disabled: false }), {
      name: 'alice',
      source: 'file',
      expires: '2099-01-01T00:00:00Z',
    });
    assert.deepEqual(await change({ expires: null }), { name: 'alice', source: 'file' });
    // One of a directory is in no list but this, and in this only for as long as something is said of it.
    await change({ disabled: true }, 'zoe');
    assert.deepEqual(namesIn(await call('GET', '/accounts')).at(-1), 'zoe');
    assert.equal((await call('GET', '/accounts/zoe')).status, 200);
    await change({ disabled: false }, 'zoe');
    assert.deepEqual(await status('GET', '/accounts/zoe'), [404, 'NOT_FOUND']);
    assert.deepEqual(await status('PATCH', '/accounts/a%3Ab', { body: { disabled: true } }), [400, 'INVALID']);
    assert.deepEqual(await status('PATCH', '/accounts/alice', { body: { expires: 'soon' } }), [400, 'INVALID']);
    // Not oneself: the last administrator would leave nobody who could undo it.
    for (const body of [{ disabled: true }, { expires: '2020-01-01T00:00:00Z' }])
      assert.deepEqual(await status('PATCH', '/accounts/root', { body }), [409, 'CONFLICT']);
    assert.deepEqual(await status('DELETE', '/accounts/root'), [409, 'CONFLICT']);
    await change({ disabled: false, expires: '2099-01-01T00:00:00Z' }, 'root');
    await change({ expires: null }, 'root');
    for (const user of ['alice', 'lead', ''])
      assert.deepEqual(await status('PATCH', '/accounts/root', { user, body: { disabled: true } }), [403, 'DENIED']);
  });

  test('tokens: made for oneself, or for others by administrators, listed without their secret, revoked', async () => {
    const made = async (user: string, body: unknown) => call('POST', '/tokens', { user, body });
    const own = await made('alice', { allow: ['pull:team/**', 'pull:team/**'], description: 'of the build' });
    assert.equal(own.status, 201, String(own.body));
    const { secret, ...shown } = own.json() as Record<string, string>;
    assert.equal(own.headers.location, `/api/v1/tokens/${shown.id}`);
    assert.deepEqual(shown.allow, ['pull:team/**']);
    const days = (Date.parse(shown.expires!) - Date.now()) / 86_400_000;
    assert.ok(days > 89 && days <= 90);
    const lasting = await made('alice', { allow: ['push:team/app'], expires: null });
    assert.ok(!('expires' in (lasting.json() as object)));

    const list = async (user: string, query = '') =>
      ((await call('GET', `/tokens${query}`, { user })).json() as { tokens: Array<Record<string, string>> }).tokens;
    assert.deepEqual(
      (await list('alice')).find(({ id }) => id === shown.id),
      shown,
    );
    assert.ok(!JSON.stringify(await list('root', '?user=*')).includes(secret!));
    assert.deepEqual([(await list('alice')).length, (await list('root')).length], [2, 0]);
    assert.deepEqual([(await list('root', '?user=alice')).length, (await list('root', '?user=*')).length], [2, 2]);
    const first = await call('GET', '/tokens?n=1&user=*');
    assert.match(String(first.headers.link), /^<\/api\/v1\/tokens\?user=\*&n=1&last=[0-9a-z]{12}>; rel="next"$/);
    assert.deepEqual(await status('GET', '/tokens?user=root', { user: 'alice' }), [403, 'DENIED']);
    assert.deepEqual(await status('GET', '/tokens', { user: '' }), [403, 'DENIED']);

    assert.equal((await made('root', { user: 'alice', allow: ['pull:**'] })).status, 201);
    assert.deepEqual((await made('root', { user: 'nobody-there', allow: ['pull:**'] })).code, 'NOT_FOUND');
    assert.deepEqual((await made('alice', { user: 'root', allow: ['admin:**'] })).code, 'DENIED');
    for (const body of [
      { allow: [] },
      { allow: ['fly:**'] },
      { allow: ['pull'] },
      { allow: ['pull:**'], expires: 'x' },
      // What each request of the token would be held against.
      { allow: Array.from({ length: 20 }, (_, i) => `pull:${i}${'*a'.repeat(110)}`) },
      { allow: ['pull:**'], expires: '2020-01-01T00:00:00Z' },
      { allow: ['pull:**'], description: 'a\nb' },
    ])
      assert.deepEqual((await made('alice', body)).status, 400, JSON.stringify(body));

    // Of others' tokens nobody hears whether they are there.
    const told = async (user: string, id: string) => status('DELETE', `/tokens/${id}`, { user });
    assert.deepEqual(await told('lead', shown.id!), await told('lead', '000000000000'));
    assert.deepEqual(await told('lead', shown.id!), [404, 'NOT_FOUND']);
    assert.equal(await told('alice', shown.id!), 204);
    assert.deepEqual(await told('alice', shown.id!), [404, 'NOT_FOUND']);
    for (const { id } of await list('root', '?user=alice')) assert.equal(await told('root', id!), 204);
    assert.deepEqual(await list('alice'), []);

    // A name is one's own to choose at some providers.
    assert.equal((await made('alice', { allow: ['pull:team/**'] })).status, 201);
    assert.deepEqual(await list('*'), []);
    assert.deepEqual(await status('GET', '/tokens?user=*', { user: '*' }), [403, 'DENIED']);
    // Nobody takes the room of others, also not with many requests at once.
    const folder = join(registry.root, layout.machineTokens);
    const [one] = await readdir(folder);
    const record = (await readFile(join(folder, one!), 'utf8')).replace('alice', 'carol');
    const ids = Array.from({ length: 98 }, (_, i) => `carol${String(i).padStart(7, '0')}`);
    for (const id of ids) await writeFile(join(folder, id), record);
    const asked = { user: 'carol', headers: JSON_TYPE, body: JSON.stringify({ allow: ['pull:**'] }) };
    const at = '/api/v1/tokens';
    const answers = await Promise.all(Array.from({ length: 4 }, () => registry.call('POST', at, asked)));
    registry.changes.length = 0;
    assert.deepEqual(answers.map(answer => answer.status).sort(), [201, 201, 409, 409]);
    for (const id of await readdir(folder)) if (id !== one) await rm(join(folder, id));
    for (const { id } of await list('alice')) assert.equal(await told('alice', id!), 204);

    registry.readOnly = 'the registry is read-only';
    assert.deepEqual(await status('POST', '/tokens', { body: { allow: ['pull:**'] } }), [405, 'UNSUPPORTED']);
    registry.readOnly = undefined;
  });

  test('a token with bounds administers within them, and acts for its user in nothing else', async () => {
    for (const [user, path, expected] of [
      ['root with pull:team/**', '/accounts', 403],
      ['root with admin:team/**', '/accounts', 403],
      ['root with admin:**', '/accounts', 200],
      ['alice with admin:**', '/accounts', 403],
      ['alice with admin:**', '/accounts/alice', 403],
      ['alice with admin:**', '/tokens', 403],
      ['alice with pull:team/**', '/repositories', 200],
    ] as const)
      assert.equal((await call('GET', path, { user })).status, expected, `${user} ${path}`);
    const token = { user: 'alice with push:**', body: { allow: ['push:**'] } };
    assert.deepEqual(await status('POST', '/tokens', token), [403, 'DENIED']);
  });

  test('the policy: read, checked, and replaced as a whole or not at all', async () => {
    const read = await call('GET', '/policy');
    assert.deepEqual(read.json(), { text: POLICY });
    const put = (text: string, etag: string | undefined, more = {}) =>
      call('PUT', '/policy', { body: { text, ...more }, headers: etag === undefined ? {} : { 'if-match': etag } });
    const etag = read.headers.etag!;
    assert.equal((await put(POLICY, undefined)).status, 428);
    for (const bad of ['rules: x', `${POLICY}  - {who: [user:x], may: [fly], on: [a]}\n`, '\t', '{'])
      for (const answer of [await put(bad, etag), await call('POST', '/policy/check', { body: { text: bad } })]) {
        assert.deepEqual([answer.status, answer.code], [400, 'INVALID'], bad);
        assert.match(String(answer.body), /policy\.yml:\d+:\d+: /);
      }
    assert.equal(await readFile(policyFile(), 'utf8'), POLICY);

    const next = `${POLICY}  - {who: [user:dave], may: [pull], on: ["team/**"]}\n`;
    const checked = {
      rules: 6,
      groups: 1,
      findings: [
        { place: 'policy.yml:8:5', what: 'there is no user "lead"' },
        { place: 'policy.yml:9:5', what: 'there is no user "tester"' },
        { place: 'policy.yml:10:5', what: 'there is no user "dave"' },
      ],
    };
    assert.deepEqual((await call('POST', '/policy/check', { body: { text: next } })).json(), checked);
    assert.ok(!access.may({ kind: 'user', name: 'dave' }, 'pull', 'team/app'));
    const { mode } = await stat(policyFile());
    const replaced = await put(next, etag);
    assert.deepEqual([replaced.status, replaced.json()], [200, checked]);
    assert.ok(access.may({ kind: 'user', name: 'dave' }, 'pull', 'team/app'));
    assert.equal(await readFile(policyFile(), 'utf8'), next);
    assert.equal((await stat(policyFile())).mode, mode);
    assert.equal((await call('GET', '/policy')).headers.etag, replaced.headers.etag);

    // Whoever has read the old one must look again, be it this API or an editor that was quicker.
    assert.deepEqual((await put(POLICY, etag)).code, 'CHANGED');
    await writeFile(policyFile(), `${next}# by hand\n`);
    assert.deepEqual((await put(POLICY, replaced.headers.etag)).status, 412);
    assert.equal(await readFile(policyFile(), 'utf8'), `${next}# by hand\n`);
    const now = (await call('GET', '/policy')).headers.etag!;
    // Of several at once one gets through.
    const race = await Promise.all(['a', 'b', 'c'].map(name => put(`${POLICY}# ${name}\n`, now)));
    assert.deepEqual(race.map(({ status }) => status).sort(), [200, 412, 412]);

    const last = (await call('GET', '/policy')).headers.etag!;
    const without = POLICY.replace('user:root', 'user:alice');
    assert.deepEqual([(await put(without, last)).status, (await put(POLICY, last)).status], [409, 200]);
    assert.deepEqual(await status('PUT', '/policy', { body: { text: POLICY, force: true } }), [400, 'INVALID']);

    // Whose power comes by a group of their directory has it, and may keep it.
    const chiefs = `${POLICY}  - {who: [group:chiefs], may: [admin], on: ["**"]}\n`;
    const given = await put(chiefs, (await call('GET', '/policy')).headers.etag);
    const asChief = { user: 'chief of chiefs', headers: { 'if-match': given.headers.etag! } };
    assert.deepEqual(await status('PUT', '/policy', { ...asChief, body: { text: POLICY } }), [409, 'CONFLICT']);
    assert.equal(await status('PUT', '/policy', { ...asChief, body: { text: `${chiefs}#\n` } }), 200);
    assert.equal((await put(POLICY, (await call('GET', '/policy')).headers.etag)).status, 200);
  });

  test('repositories: only what the caller may pull, with sizes, tags, times and platforms', async () => {
    const image = await registry.pushImage('team/app', 'v1');
    await registry.pushImage('public/app', 'v1');
    await registry.pushImage('hidden/app', 'v1');
    const names = async (user: string, query = '') =>
      (
        (await call('GET', `/repositories${query}`, { user })).json() as { repositories: Array<{ name: string }> }
      ).repositories.map(({ name }) => name);
    assert.deepEqual(await names('root'), ['hidden/app', 'public/app', 'team/app']);
    assert.deepEqual(await names('alice'), ['public/app', 'team/app']);
    assert.deepEqual(await names(''), ['public/app']);
    const first = await call('GET', '/repositories?n=1', { user: 'alice' });
    assert.equal(first.headers.link, '</api/v1/repositories?n=1&last=public%2Fapp>; rel="next"');
    assert.deepEqual(await names('alice', '?n=1&last=public%2Fapp'), ['team/app']);

    // What is hidden is what is not there, to who may not see it.
    for (const path of ['/repositories/', '/tags/'])
      for (const user of ['alice', '']) {
        const told = async (name: string) => {
          const answer = await call('GET', `${path}${name}`, { user });
          return [answer.status, answer.headers['content-type'], String(answer.body)];
        };
        assert.deepEqual(await told('hidden/app'), await told('hidden/none'));
        assert.equal((await told('hidden/app'))[0], 403);
      }
    assert.deepEqual(await status('GET', '/repositories/team/none'), [404, 'NAME_UNKNOWN']);
    assert.deepEqual(await status('GET', '/tags/team/none'), [404, 'NAME_UNKNOWN']);
    assert.deepEqual(await status('GET', '/tags/team%2Fapp'), [400, 'NAME_INVALID']);

    const sizeOf = async (digest: string) =>
      Number((await registry.call('HEAD', `/v2/team/app/blobs/${digest}`)).headers['content-length']);
    const content = (await sizeOf(image.layer)) + (await sizeOf(image.config));
    const whole = (await call('GET', '/repositories/team/app', { user: 'alice' })).json();
    assert.deepEqual(whole, { name: 'team/app', size: content + image.data.length, blobs: 2, manifests: 1, tags: 1 });

    const index = indexOf([], {
      manifests: [
        { ...descriptorOf(image.data, OCI_MANIFEST), platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
      ],
    });
    assert.equal((await registry.pushManifest('team/app', 'multi', index, OCI_INDEX)).status, 201);
    const { tags } = (await call('GET', '/tags/team/app', { user: 'alice' })).json() as {
      tags: Array<Record<string, unknown>>;
    };
    assert.deepEqual(
      tags.map(({ tag, size, platforms, mediaType }) => [tag, size, platforms, mediaType]),
      [
        ['multi', content + image.data.length + index.length, ['linux/arm64/v8'], OCI_INDEX],
        ['v1', content + image.data.length, ['linux/amd64'], OCI_MANIFEST],
      ],
    );
    assert.equal(tags[1]!.digest, image.digest);
    assert.ok(Math.abs(Date.now() - Date.parse(tags[1]!.pushedAt as string)) < 600_000);
    assert.ok(tags.every(({ pushedBy }) => pushedBy === 'tester'));
    const paged = await call('GET', '/tags/team/app?n=1', { user: 'alice' });
    assert.equal(paged.headers.link, '</api/v1/tags/team/app?n=1&last=multi>; rel="next"');
    const open = (await call('GET', '/tags/public/app', { user: '' })).json() as { tags: object[] };
    assert.ok(
      open.tags.every(tag => !('pushedBy' in tag)),
      'the public does not hear who works here',
    );

    assert.deepEqual(await status('DELETE', '/repositories/public/app', { user: 'alice' }), [403, 'DENIED']);
    assert.equal(await status('DELETE', '/repositories/team/app', { user: 'alice' }), 204);
    assert.deepEqual(await status('GET', '/repositories/team/app', { user: 'alice' }), [404, 'NAME_UNKNOWN']);
  });

  test('bodies: of JSON alone, small, with no key that is not known, and none that is a trick', async () => {
    const post = (body: string, headers = {}) => status('POST', '/accounts', { body, headers });
    const good = JSON.stringify({ name: 'eve', password: 'x' });
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'application/jsonp',
      '',
    ])
      assert.deepEqual(await post(good, { 'content-type': type }), [415, 'INVALID'], type);
    for (const bad of [
      '',
      '{',
      'null',
      '[]',
      '"x"',
      `${good}x`,
      '\ufeff{}',
      '{"name":"eve","name":"root"}',
      '{"name":"eve","__proto__":{"password":"x"}}',
      '{"name":"eve","constructor":{"prototype":{}}}',
      '{"name":{"toString":1}}',
      '{"name":["eve"]}',
      '{"name":"eve","admin":true}',
      `${'['.repeat(100)}${']'.repeat(100)}`,
    ])
      assert.deepEqual(await post(bad), [400, 'INVALID'], bad);
    assert.deepEqual(await post(JSON.stringify({ name: 'eve', password: 'x'.repeat(20_000) })), [413, 'SIZE_INVALID']);
    assert.equal(({} as Record<string, unknown>).password, undefined);
    assert.ok(!source.names.has('eve'));
    assert.equal(await post(good, { 'content-type': 'Application/JSON; charset=utf-8' }), 201);
    assert.equal(await status('DELETE', '/accounts/eve'), 204);
    for (const path of [
      '/accounts?n=0',
      '/accounts?n=-1',
      '/accounts?n=1&n=2',
      '/accounts?x=1',
      '/accounts?__proto__=1',
      '/whoami?n=1',
      '/accounts/%ff',
      '/accounts?n=1e3',
    ])
      assert.deepEqual(await status('GET', path), [400, 'INVALID'], path);
    assert.equal(await status('GET', `/accounts?n=${10 ** 8}`), 200);
    // No answer repeats what may be a secret.
    const wrong = await call('POST', '/accounts', { body: '{"name":"eve","password":"canary-4711' });
    assert.doesNotMatch(String(wrong.body), /canary/);
  });

  test('a page of another site can have nothing done, whatever the browser adds by itself', async () => {
    const body = { name: 'eve' };
    const host = `127.0.0.1:${registry.port}`;
    const requests: ReadonlyArray<readonly [string, string, unknown?]> = [
      ['POST', '/accounts', body],
      ['DELETE', '/accounts/alice'],
      ['PUT', '/accounts/alice/password', { password: 'x' }],
      ['PUT', '/policy', { text: POLICY }],
      ['DELETE', '/repositories/public/app'],
    ];
    for (const headers of [
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'cross-site', origin: `http://${host}` },
      { 'sec-fetch-site': '' },
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: '' },
      { origin: `http://${host}.evil.example` },
      { origin: 'http://127.0.0.1:1' },
    ])
      for (const [method, path, body] of requests)
        assert.deepEqual(await status(method, path, { body, headers }), [403, 'DENIED'], JSON.stringify(headers));
    assert.ok(!source.names.has('eve') && source.names.has('alice'));
    // What a form can send, and a fetch that asks nobody first.
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data'])
      assert.equal((await call('POST', '/accounts', { body, headers: { 'content-type': type } })).status, 415);
    // A browser asks before it sends anything else, and is not told yes.
    const asked = await registry.call('OPTIONS', '/api/v1/accounts', {
      headers: { origin: 'https://evil.example', 'access-control-request-method': 'DELETE' },
    });
    assert.ok(asked.status >= 400 && !Object.keys(asked.headers).some(name => name.startsWith('access-control')));
    assert.equal((await call('GET', '/whoami')).headers['cross-origin-resource-policy'], 'same-origin');
    // Our own pages, and programs.
    for (const headers of [
      { 'sec-fetch-site': 'same-origin' },
      { 'sec-fetch-site': 'none' },
      { origin: `http://${host}` },
      {},
    ]) {
      assert.equal(await status('POST', '/accounts', { body, headers }), 201, JSON.stringify(headers));
      assert.equal(await status('DELETE', '/accounts/eve', { headers }), 204);
    }
  });

  test('files that cannot be written are a clear error, and change nothing', async () => {
    const { etag } = (await call('GET', '/policy')).headers;
    const before = await readFile(policyFile(), 'utf8');
    const locks = [policyFile(), htpasswd()].map(file => `${file}.lock`);
    for (const lock of locks) await mkdir(lock);
    try {
      const answer = await call('PUT', '/policy', { body: { text: `${POLICY}#` }, headers: { 'if-match': etag! } });
      assert.deepEqual([answer.status, answer.code], [503, 'UNAVAILABLE']);
      assert.match(String(answer.body), /cannot read or write the file of its policy/);
      assert.ok(!String(answer.body).includes(dir));
      assert.deepEqual(await status('POST', '/accounts', { body: { name: 'late' } }), [503, 'UNAVAILABLE']);
      assert.equal(registry.faults.splice(0).length, 2);
    } finally {
      for (const lock of locks) await rm(lock, { recursive: true });
    }
    assert.equal(await readFile(policyFile(), 'utf8'), before);
    assert.ok(!source.names.has('late'));
  });

  test('whatever is sent, the answer is one that the document has', async () => {
    const word = fc.oneof(
      fc.constantFrom('alice', 'team/app', 'public/app', '..', '%2e%2e', 'a%2fb', '', 'dave'),
      fc.string({ maxLength: 12 }).map(encodeURIComponent),
    );
    const request = fc.record({
      route: fc.constantFrom(
        ...ROUTES.filter(({ method, path }) => method !== 'DELETE' || path !== '/accounts/{name}'),
      ),
      method: fc.constantFrom(undefined, 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'),
      name: word,
      query: fc.option(
        fc.dictionary(fc.constantFrom('n', 'last', 'repository', 'user', 'x'), fc.string({ maxLength: 8 }), {
          maxKeys: 3,
        }),
        { nil: {} },
      ),
      body: fc.oneof(
        fc.jsonValue(),
        fc.record({ name: fc.string(), password: fc.string(), text: fc.string() }, { requiredKeys: [] }),
      ),
      user: fc.constantFrom('root', 'alice', '', 'nobody'),
      headers: fc.constantFrom(
        {},
        { 'if-match': '"x"' },
        { 'sec-fetch-site': 'cross-site' },
        { 'content-type': 'text/plain' },
      ),
    });
    await fc.assert(
      fc.asyncProperty(request, async ({ route, method = route.method, name, query, body, user, headers }) => {
        if (method === 'DELETE' && route.path === '/accounts/{name}') return;
        const path = route.path.replace(/\{\w+\}/, () => name);
        const search = new URLSearchParams(query as Record<string, string>).toString();
        const sends = ['POST', 'PUT', 'PATCH'].includes(method);
        const answer = await call(method, `${path}${search && `?${search}`}`, {
          user,
          headers,
          ...(sends && { body: JSON.stringify(body) }),
        });
        assert.ok(answer.status < 500, `${method} ${path}: ${answer.status}`);
      }),
      { numRuns: 300 },
    );
    assert.deepEqual(registry.faults, []);
    assert.equal(await readFile(policyFile(), 'utf8'), POLICY);
  });

  test('each operation of the document has answered in this test as it says, when all goes well', () => {
    const unseen = ROUTES.filter(({ id, status }) => !api.seen.has(`${id} ${status}`)).map(({ id }) => id);
    // These by test/cli/oidc.test.ts.
    assert.deepEqual(unseen, ['beginLogin', 'finishLogin', 'endSession']);
  });
});
