import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { onlyActive } from '../../src/auth/accounts.js';
import { Authenticator } from '../../src/auth/authenticate.js';
import { HtpasswdCredentials } from '../../src/auth/credentials.js';
import { ANONYMOUS, type Identity } from '../../src/auth/identity.js';
import { usersMay } from '../../src/auth/policy.js';
import { Realms } from '../../src/auth/realms.js';
import type { CredentialSource, Member } from '../../src/auth/source.js';
import { RegistryError } from '../../src/errors.js';
import { identityFrom } from '../support/identity.js';

const member = (name: string): Member => ({ name, groups: [], version: `of ${name}` });
const source: CredentialSource = {
  remembers: () => false,
  verify: async (user, password) => user === 'alice' && password === 'secret',
  find: user => (user === 'alice' ? member(user) : undefined),
};
const realmsOf = (name: string, source: CredentialSource) =>
  new Realms([{ name, covers: () => true, passwords: [source], requests: [] }]);
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const request = (...values: string[]) =>
  ({
    headers: values.length > 0 ? { authorization: values[0] } : {},
    rawHeaders: values.flatMap(value => ['authorization', value]),
    socket: { remoteAddress: '192.0.2.1' },
  }) as unknown as IncomingMessage;

/** Who has logged in with a password in the one realm of that name. */
const alice = (realm: string) => ({
  kind: 'user',
  name: 'alice',
  via: 'password',
  realms: new Map([[realm, { groups: [], version: '0:of alice' }]]),
});

describe('authentication', () => {
  const authenticator = new Authenticator({ realms: realmsOf('Registry Realm', source) });

  test('a user with the right password', async () => {
    const identity = await identityFrom(authenticator, request(basic('alice:secret')));
    assert.deepEqual(identity, alice('Registry Realm'));
    const checked: string[] = [];
    const remembering = new Authenticator({
      realms: realmsOf('r', {
        ...source,
        remembers: (user, password) => user === 'alice' && password === 'secret',
        verify: async (...given) => checked.push(given.join(' ')) < 0,
      }),
    });
    assert.deepEqual(await identityFrom(remembering, request(basic('alice:secret'))), alice('r'));
    assert.deepEqual(checked, [], 'what is remembered is not checked again');
    await assert.rejects(identityFrom(remembering, request(basic('alice:wrong'))), { status: 401 });
    assert.deepEqual(checked, ['alice wrong 192.0.2.1']);
  });

  test('nobody can tell no, malformed, unknown and wrong credentials apart', async () => {
    const answers = new Set<string>();
    for (const refused of [
      [],
      ['Basic Og=='],
      ['Basic ?'],
      ['Bearer x'],
      [basic('alice:wrong')],
      [basic('bob:secret')],
    ])
      await identityFrom(authenticator, request(...refused)).then(
        () => assert.fail(refused.join()),
        (error: RegistryError) => answers.add(JSON.stringify([error.status, error.headers, error])),
      );
    assert.deepEqual(
      [...answers].map(answer => JSON.parse(answer)),
      [
        [
          401,
          { 'WWW-Authenticate': 'Basic realm="Registry Realm", charset="UTF-8"' },
          { errors: [{ code: 'UNAUTHORIZED', message: 'authentication required' }] },
        ],
      ],
    );
  });

  test('two Authorization headers', () =>
    assert.rejects(identityFrom(authenticator, request(basic('alice:secret'), basic('alice:secret'))), {
      status: 400,
    }));

  test('over real HTTP: the header once, twice in any case, and the challenge as it is sent', async () => {
    const server = createServer((request, response) =>
      identityFrom(authenticator, request).then(
        () => response.end(),
        (error: RegistryError) => response.writeHead(error.status, error.headers).end(),
      ),
    );
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    const ask = async (...lines: string[]) => {
      const socket = connect(port, '127.0.0.1');
      socket.end(`GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${lines.map(line => `${line}\r\n`).join('')}\r\n`);
      return Buffer.concat(await socket.toArray()).toString();
    };
    const right = basic('alice:secret');
    assert.match(await ask(`authorization: ${right}`), /^HTTP\/1.1 200 /);
    assert.match(await ask(`Authorization: ${right}`, `AUTHORIZATION: ${right}`), /^HTTP\/1.1 400 /);
    const refused = await ask();
    assert.match(refused, /^HTTP\/1.1 401 /);
    assert.deepEqual(refused.match(/^www-authenticate: .*$/gim), [
      'WWW-Authenticate: Basic realm="Registry Realm", charset="UTF-8"',
    ]);
    server.close();
    await once(server, 'close');
  });

  test('a realm is quoted, and sent in UTF-8', async () => {
    const challenge = (realm: string) =>
      identityFrom(new Authenticator({ realms: realmsOf(realm, source) }), request()).then(
        () => assert.fail(),
        (error: RegistryError) => error.headers['WWW-Authenticate']!,
      );
    assert.equal(await challenge('a "b" \\c'), 'Basic realm="a \\"b\\" \\\\c", charset="UTF-8"');
    const sent = Buffer.from(await challenge('Zürich ✓'), 'latin1').toString();
    assert.equal(sent, 'Basic realm="Zürich ✓", charset="UTF-8"');
    assert.throws(() => new Authenticator({ realms: realmsOf('a\r\nSet-Cookie: b', source) }), {
      name: 'OperatorError',
    });
  });

  test('what the source refuses for now goes through', () => {
    const busy = new RegistryError('TOOMANYREQUESTS', { headers: { 'Retry-After': '3' } });
    const full = new Authenticator({ realms: realmsOf('r', { ...source, verify: () => Promise.reject(busy) }) });
    return assert.rejects(identityFrom(full, request(basic('alice:secret'))), busy);
  });

  test('too many failures of one user from one network cost no more checks; who is known passes', async context => {
    // What is forgiven with time is not, here.
    context.mock.method(performance, 'now', () => 0);
    let checks = 0;
    const counted = new Authenticator({
      realms: realmsOf('r', {
        ...source,
        remembers: (user, password) => user === 'alice' && password === 'remembered',
        verify: (...given) => {
          checks++;
          return source.verify(...given);
        },
      }),
    });
    const status = (credentials: string) =>
      identityFrom(counted, request(basic(credentials))).then(
        () => 200,
        (error: RegistryError) => error.status,
      );
    const answers: number[] = [];
    for (let i = 0; i < 30; i++) answers.push(await status('alice:wrong'));
    assert.deepEqual([answers.slice(0, 10), new Set(answers.slice(10))], [Array(10).fill(401), new Set([429])]);
    assert.equal(checks, 10);
    assert.equal(await status('alice:secret'), 429, 'not even the right password is checked, or guessing would go on');
    assert.equal(await status('alice:remembered'), 200);
    assert.equal(await status('bob:wrong'), 401, 'another name has failures of its own');
  });

  describe('where anybody may be anonymous', () => {
    const realm = 'https://registry.lan/token';
    const tokens = {
      identify: async (token: string) =>
        token === 'good' ? ({ kind: 'user', name: 'alice', via: 'token' } as const) : undefined,
      issue: async () => ({ token: 't', access_token: 't', expires_in: 300, issued_at: '' }),
    };
    let known: string | undefined = realm;
    const welcoming = new Authenticator({
      realms: realmsOf('r', source),
      welcomesAnonymous: () => true,
      tokens,
      tokenRealm: () => known,
    });
    const challenge = (...values: string[]) =>
      identityFrom(welcoming, request(...values)).then(
        () => assert.fail(),
        (error: RegistryError) => [error.status, error.headers['WWW-Authenticate']],
      );
    const bearer = `Bearer realm="${realm}",service="registry-secure"`;

    test('who has no credentials goes on, who has wrong ones does not', async () => {
      for (const values of [[], ['Basic Og==']])
        assert.equal(await identityFrom(welcoming, request(...values)), ANONYMOUS);
      assert.deepEqual(await challenge(basic('alice:wrong')), [401, bearer]);
      assert.deepEqual(await challenge('Digest x'), [401, bearer]);
      assert.deepEqual(await challenge('Bearer bad'), [401, `${bearer},error="invalid_token"`]);
    });

    test('a token counts, and a password too', async () => {
      const byToken = { kind: 'user', name: 'alice', via: 'token' };
      assert.deepEqual(await identityFrom(welcoming, request('Bearer good')), byToken);
      assert.deepEqual(await identityFrom(welcoming, request(basic('alice:secret'))), alice('r'));
    });

    test('what anonymous may not do asks for a token, what a user may not do is denied', () => {
      const scope = 'repository:team/app:pull,push';
      const refusal = (identity: Identity, ...values: string[]) => {
        const { status, headers, message } = welcoming.refusal(identity, request(...values), 'push', {
          repository: 'team/app',
          scope,
        });
        return [status, headers['WWW-Authenticate'] ?? message];
      };
      assert.deepEqual(refusal(ANONYMOUS), [401, `${bearer},scope="${scope}"`]);
      assert.deepEqual(refusal(ANONYMOUS, 'Bearer x'), [401, `${bearer},scope="${scope}",error="insufficient_scope"`]);
      assert.deepEqual(refusal({ kind: 'user', name: 'alice' }, 'Bearer x'), [403, 'you have no right to push here']);
    });

    test('a client that came by another name is asked for a password', async () => {
      known = undefined;
      assert.deepEqual(await challenge(basic('alice:wrong')), [401, 'Basic realm="r", charset="UTF-8"']);
      known = realm;
    });

    test('without anonymous a token still counts, and the challenge is Basic', async () => {
      const closed = new Authenticator({ realms: realmsOf('r', source), tokens, tokenRealm: () => realm });
      assert.deepEqual(await identityFrom(closed, request('Bearer good')), {
        kind: 'user',
        name: 'alice',
        via: 'token',
      });
      await assert.rejects(identityFrom(closed, request()), (error: RegistryError) =>
        error.headers['WWW-Authenticate']!.startsWith('Basic '),
      );
    });
  });

  test('an open registry asks nobody', async () => {
    const open = new Authenticator('open');
    for (const values of [[], [basic('alice:wrong')], ['Bearer x']])
      assert.equal(await identityFrom(open, request(...values)), ANONYMOUS);
  });
});

test('the policy: users do everything, and others only where the registry is open', () => {
  const alice = { kind: 'user', name: 'alice' } as const;
  for (const action of ['pull', 'push', 'delete', 'catalog'] as const) {
    assert.equal(usersMay({ open: false })(alice, action, 'a/b'), true);
    assert.equal(usersMay({ open: false })(ANONYMOUS, action, 'a/b'), false);
    assert.equal(usersMay({ open: true })(ANONYMOUS, action), true);
    assert.equal(usersMay({ open: true })(alice, action), true);
  }
});

describe('credentials that come again on a connection', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'registry-secure-authenticate-'));
  });
  after(() => rm(folder, { recursive: true }));

  /** The users of a real file, each hash of which is that of the password behind the last dollar. */
  async function opened(...lines: string[]) {
    const file = join(folder, 'htpasswd');
    const write = (...lines: string[]) => writeFile(file, lines.join(''));
    await write(...lines);
    const checked: string[] = [];
    const credentials = await HtpasswdCredentials.open(file, {
      check: async ({ passwords: [password = ''], hash }) => {
        checked.push(password);
        return hash.endsWith(password.padEnd(53, '.'));
      },
    });
    const authenticator = new Authenticator({ realms: realmsOf('r', credentials) });
    return { authenticator, credentials, checked, write };
  }
  const line = (user: string, password: string) => `${user}:$2b$04$${password.padEnd(53, '.')}\n`;
  const connection = () => {
    const socket = { remoteAddress: '192.0.2.1' };
    return (...values: string[]) => ({ ...request(...values), socket }) as IncomingMessage;
  };
  const refused = { status: 401 };

  test('are known at once, and only the very same', async () => {
    const { authenticator, checked } = await opened(line('alice', 'secret'), line('bob', 'secret'));
    const on = connection();
    const first = authenticator.authenticate(on(basic('alice:secret')));
    assert.ok(first instanceof Promise, 'it takes a check');
    const alice = await first;
    assert.equal(authenticator.authenticate(on(basic('alice:secret'))), alice);
    assert.deepEqual(checked, ['secret']);
    await assert.rejects(identityFrom(authenticator, on()), refused);
    await assert.rejects(identityFrom(authenticator, on(basic('alice:wrong'))), refused);
    await assert.rejects(identityFrom(authenticator, on('several')), refused);
    await assert.rejects(identityFrom(authenticator, on(basic('alice:secret'), basic('alice:secret'))), {
      status: 400,
    });
    const bob = await identityFrom(authenticator, on(basic('bob:secret')));
    assert.equal(bob.kind === 'user' && bob.name, 'bob');
    assert.equal(await identityFrom(authenticator, on(basic('alice:secret'))), alice);
    assert.equal(await identityFrom(authenticator, connection()(basic('alice:secret'))), alice, 'elsewhere too');
  });

  test('no longer count once the user has another password, or is gone', async () => {
    const { authenticator, credentials, write } = await opened(line('alice', 'secret'), line('bob', 'secret'));
    const [one, other] = [connection(), connection()];
    for (const [on, name] of [
      [one, 'alice'],
      [other, 'bob'],
    ] as const) {
      await authenticator.authenticate(on(basic(`${name}:secret`)));
      assert.ok(!(authenticator.authenticate(on(basic(`${name}:secret`))) instanceof Promise));
    }
    await write(line('alice', 'new'));
    await credentials.reload();
    await assert.rejects(identityFrom(authenticator, one(basic('alice:secret'))), refused);
    await assert.rejects(identityFrom(authenticator, other(basic('bob:secret'))), refused);
    const alice = await identityFrom(authenticator, one(basic('alice:new')));
    assert.equal(authenticator.authenticate(one(basic('alice:new'))), alice);
  });

  test('are checked again after five minutes', async context => {
    const { authenticator, checked } = await opened(line('alice', 'secret'));
    const on = connection();
    const start = performance.now();
    let minutes = 0;
    context.mock.method(performance, 'now', () => start + minutes * 60_000);
    await authenticator.authenticate(on(basic('alice:secret')));
    for (minutes of [1, 4.9]) {
      await new Promise(setImmediate);
      assert.ok(!(authenticator.authenticate(on(basic('alice:secret'))) instanceof Promise));
    }
    assert.equal(checked.length, 1);
    minutes = 5.1;
    await new Promise(resolve => setTimeout(resolve, 5));
    await authenticator.authenticate(on(basic('alice:secret')));
    assert.equal(checked.length, 2);
  });

  test('count for nobody whose account is off', async () => {
    const { authenticator } = await opened(line('alice', 'secret'));
    let active = true;
    const gate = onlyActive(authenticator, () => active);
    const on = connection();
    await gate.authenticate(on(basic('alice:secret')));
    assert.ok(!(gate.authenticate(on(basic('alice:secret'))) instanceof Promise));
    active = false;
    assert.throws(() => gate.authenticate(on(basic('alice:secret'))), refused);
  });
});
