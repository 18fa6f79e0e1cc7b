import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { describe, test } from 'node:test';
import { Authenticator } from '../../src/auth/authenticate.js';
import { ANONYMOUS } from '../../src/auth/identity.js';
import { createPolicy } from '../../src/auth/policy.js';
import { RegistryError } from '../../src/errors.js';

const source = { verify: (user: string, password: string) => user === 'alice' && password === 'secret' };
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const request = (...values: string[]) =>
  ({
    headers: values.length > 0 ? { authorization: values[0] } : {},
    rawHeaders: values.flatMap(value => ['authorization', value]),
  }) as unknown as IncomingMessage;

describe('authentication', () => {
  const authenticator = new Authenticator({ realm: 'Registry Realm', source });

  test('a user with the right password', async () => {
    const identity = await authenticator.authenticate(request(basic('alice:secret')));
    assert.deepEqual(identity, { kind: 'user', name: 'alice' });
    const later = new Authenticator({ realm: 'r', source: { verify: async (...pair) => source.verify(...pair) } });
    assert.deepEqual(await later.authenticate(request(basic('alice:secret'))), identity);
    await assert.rejects(later.authenticate(request(basic('alice:wrong'))), { status: 401 });
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
      await authenticator.authenticate(request(...refused)).then(
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
    assert.rejects(authenticator.authenticate(request(basic('alice:secret'), basic('alice:secret'))), { status: 400 }));

  test('over real HTTP: the header once, twice in any case, and the challenge as it is sent', async () => {
    const server = createServer((request, response) =>
      authenticator.authenticate(request).then(
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
      new Authenticator({ realm, source }).authenticate(request()).then(
        () => assert.fail(),
        (error: RegistryError) => error.headers['WWW-Authenticate']!,
      );
    assert.equal(await challenge('a "b" \\c'), 'Basic realm="a \\"b\\" \\\\c", charset="UTF-8"');
    const sent = Buffer.from(await challenge('Zürich ✓'), 'latin1').toString();
    assert.equal(sent, 'Basic realm="Zürich ✓", charset="UTF-8"');
    assert.throws(() => new Authenticator({ realm: 'a\r\nSet-Cookie: b', source }), { name: 'OperatorError' });
  });

  test('what the source refuses for now goes through', () => {
    const busy = new RegistryError('TOOMANYREQUESTS', { headers: { 'Retry-After': '3' } });
    const full = new Authenticator({ realm: 'r', source: { verify: () => Promise.reject(busy) } });
    return assert.rejects(full.authenticate(request(basic('alice:secret'))), busy);
  });

  test('an open registry asks nobody', async () => {
    const open = new Authenticator('open');
    for (const values of [[], [basic('alice:wrong')], ['Bearer x']])
      assert.equal(await open.authenticate(request(...values)), ANONYMOUS);
  });
});

test('the policy: users do everything, and others only where the registry is open', () => {
  const alice = { kind: 'user', name: 'alice' } as const;
  for (const action of ['pull', 'push', 'delete', 'catalog'] as const) {
    assert.equal(createPolicy({ open: false })(alice, action, 'a/b'), true);
    assert.equal(createPolicy({ open: false })(ANONYMOUS, action, 'a/b'), false);
    assert.equal(createPolicy({ open: true })(ANONYMOUS, action), true);
    assert.equal(createPolicy({ open: true })(alice, action), true);
  }
});
