import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer, type ServerOptions } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { type Check, type Diagnosis, examine } from '../../src/doctor/check.js';
import { CLIENT_ERRORS, type ClientError } from '../../src/doctor/client-errors.js';
import { clientChecks } from '../../src/doctor/clients.js';
import { refusalOf, shakeHands } from '../../src/doctor/connection.js';
import { credentialChecks } from '../../src/doctor/credentials.js';
import { REGISTRY_CHECKS, Registry } from '../../src/doctor/registry.js';
import { type Forged, forge } from '../support/forge.js';

const NAME = '127.0.0.1';
const API = { 'Docker-Distribution-API-Version': 'registry/2.0' };
const LOGIN = { ...API, 'WWW-Authenticate': 'Basic realm="x"' };

let ca: Forged;
let leaf: Forged;
before(() => {
  ca = forge({ authority: 1, commonName: 'test CA' });
  leaf = forge({ issuer: ca, names: [NAME] });
});

async function listening(t: TestContext, server: TcpServer | Server): Promise<number> {
  await new Promise<void>(resolve => server.listen(0, NAME, resolve));
  t.after(() => {
    (server as Server).closeAllConnections?.();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

const answer: RequestListener = (_request, response) => void response.writeHead(401, LOGIN).end();

function serve(
  t: TestContext,
  options: ServerOptions & { chain?: readonly Forged[]; handler?: RequestListener } = {},
): Promise<number> {
  const { chain = [leaf], handler = answer, ...more } = options;
  return listening(
    t,
    createHttpsServer({ cert: chain.map(({ pem }) => pem).join(''), key: chain[0]!.keyPem, ...more }, handler),
  );
}

async function look(
  port: number,
  more: { now?: () => Date; checks?: readonly Check<Registry>[]; root?: string; env?: Record<string, string> } = {},
): Promise<Diagnosis[]> {
  const machine = { root: more.root ?? '/nowhere', env: more.env ?? {}, platform: 'linux' as const };
  const registry = new Registry(`${NAME}:${port}`, NAME, port, machine, more.now);
  return examine([...REGISTRY_CHECKS, ...(more.checks ?? [])], registry);
}

const wrong = (found: readonly Diagnosis[]) => found.filter(({ severity }) => severity !== 'ok');

test('a registry without a fault: each check says that all is well', async t => {
  const found = await look(await serve(t));
  assert.deepEqual(wrong(found), []);
  assert.deepEqual(
    [...new Set(found.map(({ check }) => check))],
    ['proxy', 'tcp', 'tls', 'certificate', 'api', 'clock'],
  );
  assert.match(
    found.map(({ message }) => message).join('\n'),
    /TLSv1\.2 and TLSv1\.3[\s\S]*good for 127\.0\.0\.1[\s\S]*asks for a login \(Basic\)/,
  );
});

test('a handshake tells the chain just as it was sent, and whether a certificate is asked for', async t => {
  const top = forge({ authority: 2 });
  const upper = forge({ authority: 1, issuer: top });
  const lower = forge({ authority: 0, issuer: upper });
  const chain = [forge({ issuer: lower, names: [NAME] }), upper, lower, top];
  const port = await serve(t, { chain, requestCert: true, rejectUnauthorized: false });
  const endpoint = { address: NAME, port, name: NAME };
  const old = await shakeHands(endpoint, 'TLSv1.2');
  assert.deepEqual(
    old.chain.map(({ fingerprint256 }) => fingerprint256),
    chain.map(({ certificate }) => certificate.fingerprint256),
  );
  assert.deepEqual([old.version, old.asksForCertificate, old.failure], ['TLSv1.2', true, undefined]);
  const fresh = await shakeHands(endpoint, 'TLSv1.3');
  assert.deepEqual([fresh.version, fresh.chain.length], ['TLSv1.3', 4]);
  const messages = wrong(await look(port))
    .map(({ message }) => message)
    .join('\n');
  assert.match(messages, /wrong order/);
  assert.match(messages, /holds the root/);
});

test('only TLS 1.3, or only TLS 1.2: both are well', async t => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const port = await serve(t, { minVersion: version, maxVersion: version });
    assert.deepEqual(wrong(await look(port)), [], version);
  }
});

/** Where a server is wrong in one way: the row that is found. */
async function finds(found: readonly Diagnosis[], row: ClientError, message: RegExp): Promise<Diagnosis> {
  const finding = found.find(({ error }) => error === row);
  assert.ok(finding, JSON.stringify(found, undefined, 2));
  assert.match(finding.message, message);
  assert.ok(finding.fix ?? finding.commands, 'it says how to mend it');
  return finding;
}

test('plain HTTP, nothing, a port that says nothing of sense', async t => {
  const plain = await listening(t, createHttpServer(answer));
  await finds(await look(plain), 'plain-http', /answered 401/);
  // Nobody has that port, and no socket of another test is given it.
  await finds(await look(1), 'refused', /nothing listens there/);
  const odd = await listening(
    t,
    createTcpServer(socket => socket.on('error', () => undefined).end('SSH-2.0-OpenSSH_9\r\n')),
  );
  assert.match(
    wrong(await look(odd))
      .map(({ message }) => message)
      .join(),
    /neither TLS nor HTTP/,
  );
});

test('a server that never answers: each step ends by itself', async t => {
  const silent = await listening(
    t,
    createTcpServer(() => undefined),
  );
  assert.equal(await refusalOf({ address: NAME, port: silent }), undefined);
  const { failure } = await shakeHands({ address: NAME, port: silent, name: NAME }, 'TLSv1.3');
  assert.equal(failure, 'ETIMEDOUT');
});

test('what only macOS refuses: too many days, and no extended key usage', async t => {
  const port = await serve(t, { chain: [forge({ issuer: ca, names: [NAME], to: 900 })] });
  const { severity } = await finds(await look(port), 'not-compliant', /901 days/);
  assert.equal(severity, 'warning');
  await finds(
    await look(await serve(t, { chain: [forge({ issuer: ca, names: [NAME], extendedUsage: 'none' })] })),
    'not-compliant',
    /no extended key usage/,
  );
});

test('the answer of /v2/: no header, no registry, not well', async t => {
  for (const [status, headers, said] of [
    [401, API, /401 without WWW-Authenticate/],
    [401, { 'WWW-Authenticate': 'Basic realm="x"' }, /lacks Docker-Distribution-API-Version/],
    [404, {}, /answers 404: no registry/],
    [502, {}, /answers 502: the registry, or the proxy in front of it, is not well/],
  ] as const) {
    const port = await serve(t, { handler: (_request, response) => void response.writeHead(status, headers).end() });
    const found = wrong(await look(port));
    assert.equal(found.length, 1, JSON.stringify(found));
    assert.match(found[0]!.message, said);
  }
});

test('the clock here is wrong: by that of the registry the certificate is valid', async t => {
  const found = await look(await serve(t), { now: () => new Date(Date.now() + 400 * 86_400_000) });
  assert.equal(found.filter(({ error }) => error === 'dates').length, 2, 'the certificate, and why');
  const clock = found.find(({ check }) => check === 'clock');
  assert.match(
    clock?.message ?? '',
    /the clock here says .*, the one of the registry .*: by that one the certificate is valid/,
  );
  const [slow] = wrong(await look(await serve(t), { now: () => new Date(Date.now() - 600_000) }));
  assert.deepEqual([slow?.check, slow?.severity], ['clock', 'warning']);
});

test('a check that breaks, and one that hangs, hide none of the others', async () => {
  const started: string[] = [];
  const found = await examine<undefined>(
    [
      { name: 'breaks', title: '', run: () => Promise.reject(new Error('out of order')) },
      {
        name: 'hangs',
        title: '',
        run: async (_subject, say) => {
          say.error('half of it');
          await new Promise(() => undefined);
        },
      },
      { name: 'works', title: '', run: (_subject, say) => say.ok('well') },
    ],
    undefined,
    ({ name }) => started.push(name),
    20,
  );
  assert.deepEqual(started, ['breaks', 'hangs', 'works']);
  assert.deepEqual(
    found.map(({ check, severity, message }) => `${check} ${severity} ${message}`),
    [
      'breaks warning could not be looked at: out of order',
      'hangs error half of it',
      'hangs warning could not be looked at: it took longer than 0.02 s',
      'works ok well',
    ],
  );
});

/** A machine with podman, which verifies loopback addresses too, and what lies in its files. */
function withPodman(t: TestContext, port: number, files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'doctor-registry-'));
  t.after(() => rmSync(root, { recursive: true }));
  const folder = join(root, 'etc/containers/certs.d', `${NAME}:${port}`);
  mkdirSync(folder, { recursive: true });
  mkdirSync(join(root, 'usr/bin'), { recursive: true });
  writeFileSync(join(root, 'usr/bin/podman'), '', { mode: 0o755 });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text, { mode: 0o600 });
  return root;
}

for (const [what, refuse] of [
  ['in the handshake', undefined],
  ['by an answer, in its own words', { errors: [{ code: 'DENIED', message: 'a client certificate is required' }] }],
] as const)
  test(`client certificates, refused ${what}: none, and the right one`, async t => {
    const clients = forge({ authority: 1, commonName: 'clients' });
    const pair = forge({ issuer: clients, commonName: 'alice', extendedUsage: ['client'] });
    const port = await serve(t, {
      requestCert: true,
      rejectUnauthorized: refuse === undefined,
      ca: clients.pem,
      handler: (request, response) => {
        const { authorized } = request.socket as { authorized?: boolean };
        if (authorized) response.writeHead(200, API).end('{}');
        else response.writeHead(403).end(JSON.stringify(refuse));
      },
    });
    const checks = [clientChecks(['podman'])];
    const without = await look(port, { checks, root: withPodman(t, port, { 'ca.crt': ca.pem }) });
    await finds(wrong(without), refuse ? 'certificate-denied' : 'certificate-required', /has no client certificate in/);
    const stranger = forge({ commonName: 'mallory', extendedUsage: ['client'] });
    const other = await look(port, {
      checks,
      root: withPodman(t, port, { 'ca.crt': ca.pem, 'client.cert': stranger.pem, 'client.key': stranger.keyPem }),
    });
    await finds(
      wrong(other),
      refuse ? 'certificate-denied' : 'bad-certificate',
      refuse ? /a client certificate is required/ : /of another authority \(CN=mallory\)/,
    );
    const right = await look(port, {
      checks,
      root: withPodman(t, port, { 'ca.crt': ca.pem, 'client.cert': pair.pem, 'client.key': pair.keyPem }),
    });
    assert.deepEqual(wrong(right), []);
    assert.ok(right.some(({ message }) => /takes the client certificate/.test(message)));
  });

test('logins: none, under another name, wrong, right; never sent to a server that is not trusted', async t => {
  const authorizations: Array<string | undefined> = [];
  const port = await serve(t, {
    handler: (request, response) => {
      authorizations.push(request.headers.authorization);
      const right = request.headers.authorization === `Basic ${Buffer.from('alice:secret').toString('base64')}`;
      response.writeHead(right ? 200 : 401, LOGIN).end();
    },
  });
  const root = withPodman(t, port, { 'ca.crt': ca.pem });
  const file = join(root, 'auth.json');
  const env = { REGISTRY_AUTH_FILE: file };
  const trusting = [credentialChecks(undefined, () => [ca.certificate])];
  const store = (key: string, login: string) =>
    writeFileSync(file, JSON.stringify({ auths: { [key]: { auth: Buffer.from(login).toString('base64') } } }));
  const host = `${NAME}:${port}`;

  writeFileSync(file, '{"auths":{}}');
  assert.deepEqual(
    (await finds(await look(port, { checks: trusting, root, env }), 'no-login', /nobody is logged in/)).commands,
    [`podman login ${host}`],
  );
  store(`https://${NAME}:1/v2/`, 'alice:secret');
  await finds(
    await look(port, { checks: trusting, root, env }),
    'no-login',
    /it has one for https:\/\/127\.0\.0\.1:1\/v2\/, which is not the same/,
  );
  store(host, 'alice:wrong');
  await finds(await look(port, { checks: trusting, root, env }), 'unauthorized', /the login of alice is refused/);
  store(host, 'alice:secret');
  assert.deepEqual(wrong(await look(port, { checks: trusting, root, env })), []);
  writeFileSync(file, 'no JSON');
  assert.match(wrong(await look(port, { checks: trusting, root, env }))[0]?.message ?? '', /is no JSON/);

  const sent = authorizations.filter(value => value !== undefined).length;
  store(host, 'alice:secret');
  const given = { user: 'alice', password: 'secret' };
  for (const checks of [[credentialChecks(undefined, () => [])], [credentialChecks(given, () => [])]]) {
    const found = wrong(await look(port, { checks, root, env }));
    assert.match(found[0]?.message ?? '', /was not tried: no password is sent to a server that is not trusted/);
    assert.ok(!JSON.stringify(found).includes('secret'));
  }
  assert.equal(authorizations.filter(value => value !== undefined).length, sent, 'no password has left');
});

test('where tokens are given out, the password is checked there; where another server does it, it stays here', async t => {
  const asked: string[] = [];
  let realm = '';
  const port = await serve(t, {
    handler: (request, response) => {
      if (request.headers.authorization) asked.push(request.url!);
      const right = request.headers.authorization === `Basic ${Buffer.from('alice:secret').toString('base64')}`;
      const token = request.url!.startsWith('/token');
      response
        .writeHead(token && right ? 200 : 401, { ...API, 'WWW-Authenticate': `Bearer realm="${realm}",service="s"` })
        .end();
    },
  });
  const tried = (password: string) =>
    look(port, { checks: [credentialChecks({ user: 'alice', password }, () => [ca.certificate])] });
  realm = `https://${NAME}:${port}/token`;
  assert.ok((await tried('secret')).some(({ message }) => message === 'the user alice can log in'));
  await finds(await tried('wrong'), 'unauthorized', /alice is refused/);
  assert.deepEqual(asked, ['/token?service=s', '/token?service=s']);
  realm = 'https://auth.example.com/token';
  assert.ok((await tried('secret')).some(({ message }) => /another server checks it/.test(message)));
  assert.equal(asked.length, 2);
});

test('every row of the table says what, why and how, and no two say the same', () => {
  const rows = Object.values(CLIENT_ERRORS);
  for (const { shows, cause, fix } of rows) assert.ok(shows && cause.endsWith('.') && fix.endsWith('.'), shows);
  assert.equal(new Set(rows.map(({ shows }) => shows)).size, rows.length);
});
