import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { addClient, revokeClient } from '../../src/pki/clients.js';
import { TestAuthority } from '../support/client-authority.js';
import { all, until } from '../support/listener.js';
import { LocalRegistry } from '../support/local-registry.js';

const REQUIRE = { REGISTRY_HTTP_TLS_CLIENTAUTH: 'require-and-verify-client-cert' };

let dir: string;
const running: LocalRegistry[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'registry-secure-mtls-'));
});
afterEach(async () => {
  await Promise.all(running.splice(0).map(registry => registry.stop()));
  rmSync(dir, { recursive: true, force: true });
});

async function start(env: NodeJS.ProcessEnv = REQUIRE, args: string[] = []): Promise<LocalRegistry> {
  const registry = await LocalRegistry.start(dir, ['up', ...args], { env });
  running.push(registry);
  return registry;
}

const client = (...args: string[]) => LocalRegistry.run(dir, ['certs', 'client', ...args]);

async function added(name: string): Promise<{ cert: Buffer; key: Buffer; serial: string }> {
  const { certificate, key, entry } = await addClient({ dir: join(dir, 'certs/clients'), name });
  return { cert: readFileSync(certificate), key: readFileSync(key), serial: entry.serial };
}

type Pair = { cert: Buffer | string; key: Buffer | string };

const ca = () => readFileSync(join(dir, 'certs/ca.crt'));

function get({ port }: LocalRegistry, path: string, pair?: Pair): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest({ host: '127.0.0.1', port, path, ca: ca(), agent: false, ...pair }, response => {
      let body = '';
      response.on('data', chunk => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode!, body }));
    });
    request.on('error', reject);
    request.end();
  });
}

/** A connection on which one request was answered, and which stays open. */
async function keptAlive({ port }: LocalRegistry, pair: Pair): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, ca: ca(), ...pair });
  await once(socket, 'secureConnect');
  socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(socket, '"ok"');
  return socket;
}

test('a revocation by command closes the connections of that client in every process, and no others', async t => {
  const both = [await start(), await start()];
  const [alice, bob] = [await added('alice'), await added('bob')];
  for (const registry of both) {
    assert.match((await get(registry, '/v2/')).body, /a client certificate is required/);
    assert.match((await get(registry, '/v2/', alice)).body, /UNAUTHORIZED/);
  }
  const connections = await Promise.all(both.map(registry => keptAlive(registry, bob)));
  const others = await Promise.all(both.map(registry => keptAlive(registry, alice)));
  // They may be closed before the command has ended.
  const closed = Promise.all(connections.map(all));
  const { stdout } = await client('revoke', 'bob', '--reason', 'keyCompromise');
  assert.equal(stdout, `"bob" revoked, serial ${bob.serial}\n`);
  const from = performance.now();
  await closed;
  t.diagnostic(`closed ${Math.round(performance.now() - from)} ms after the command had ended`);
  for (const [index, registry] of both.entries()) {
    assert.match((await get(registry, '/v2/', bob)).body, /the client certificate was revoked/);
    others[index]!.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(others[index]!, '"ok"');
    others[index]!.destroy();
    await registry.until(() => registry.stderr.includes('msg="closed a connection"'));
    const line = new RegExp(`path=/v2/ .*client=alice serial=${alice.serial}`);
    await registry.until(() => line.test(registry.stdout));
  }
  const again = await added('bob');
  assert.equal((await get(both[0]!, '/healthz', again)).status, 200);
});

test('a list that is damaged is not taken over, and the one before stays in force', async () => {
  const registry = await start();
  const alice = await added('alice');
  const list = join(dir, 'certs/clients/crl.pem');
  const older = readFileSync(list, 'utf8');
  await revokeClient({ dir: join(dir, 'certs/clients'), which: 'alice' });
  await registry.until(async () => (await get(registry, '/healthz', alice)).status === 403);
  const foreign = (await TestAuthority.make('other')).list().pem;
  for (const [bad, told] of [
    ['nonsense', 'holds no PEM revocation list'],
    [foreign, 'was not signed by an authority of the client certificates'],
    [older, 'is older than the one in force'],
  ] as const) {
    writeFileSync(`${list}.bad`, bad);
    renameSync(`${list}.bad`, list);
    await registry.until(() => registry.stderr.includes(told));
    assert.match((await get(registry, '/healthz', alice)).body, /was revoked/);
  }
});

test('a company authority with its list: expired, nobody is let in, and the log says so', async () => {
  const company = await TestAuthority.make('company');
  const [own, list] = [join(dir, 'company.pem'), join(dir, 'company.crl')];
  writeFileSync(own, company.certificate.toString());
  writeFileSync(list, company.list([], -1).pem);
  const registry = await start({ REGISTRY_HTTP_TLS_CLIENTCAS_0: own, REGISTRY_HTTP_TLS_CLIENTCRLS_0: list });
  const carol = await company.client('carol');
  await registry.until(() => /level=error msg="the list of revoked client certificates expired/.test(registry.stderr));
  assert.match((await get(registry, '/healthz', carol)).body, /no valid list of the revoked ones/);
  writeFileSync(list, company.list().pem);
  await registry.until(async () => (await get(registry, '/healthz', carol)).status === 200);
  // There is no key of that authority here, so that the question for the health learns that something answers.
  const config = join(dir, 'config.yml');
  const tls = JSON.stringify({
    certificate: join(dir, 'certs/domain.crt'),
    key: join(dir, 'certs/domain.key'),
    clientcas: [own],
  });
  writeFileSync(config, `{version: 0.1, http: {addr: '127.0.0.1:${registry.port}', tls: ${tls}}}`);
  assert.deepEqual(await LocalRegistry.run(dir, ['health', config]), {
    status: 0,
    stdout: 'alive; it tells its health to clients with a certificate only\n',
    stderr: '',
  });
});

test('the health is told to a certificate of the moment; an authority with an encrypted key serves as well', async () => {
  const passphrase = join(dir, 'passphrase');
  writeFileSync(passphrase, 'four words for it\n', { mode: 0o600 });
  const env = { ...REQUIRE, REGISTRY_SECURE_CA_PASSPHRASE_FILE: passphrase };
  const registry = await start(env);
  const addr = `127.0.0.1:${registry.port}`;
  assert.match(readFileSync(join(dir, 'certs/clients/ca.key'), 'utf8'), /ENCRYPTED/);
  assert.deepEqual(await LocalRegistry.run(dir, ['health', '--addr', addr], { env }), {
    status: 0,
    stdout: '{"status":"ok"}\n',
    stderr: '',
  });
  const without = await LocalRegistry.run(dir, ['health', '--addr', addr], { env: REQUIRE });
  assert.deepEqual([without.status, without.stdout.split(';')[0]], [0, 'alive']);
  const { status, stderr } = await LocalRegistry.run(dir, ['certs', 'client', 'add', 'alice'], { env });
  assert.equal(status, 0, stderr);
});

test('the commands: what they print, what they refuse', async () => {
  const password = join(dir, 'password');
  writeFileSync(password, 'canary for alice\n');
  await LocalRegistry.run(dir, ['init-certs', '--dns', 'registry.lan']);
  const first = await client('add', 'alice', '--password-file', password, '--p12', 'compatible');
  assert.equal(first.status, 0, first.stderr);
  assert.match(first.stdout, /install -Dm600 .*alice\.key .*\/certs\.d\/registry\.lan:5000\/client\.key/);
  assert.match(first.stdout, /alice\.p12 {2}both and the authority/);
  assert.ok(!`${first.stdout}${first.stderr}`.includes('canary'));
  assert.equal(first.stderr, '');

  const second = await client('add', 'bob', '--key', 'rsa-2048', '--days', '30');
  assert.match(second.stderr, /^registry-secure: warning: no PKCS#12 file was made.*--password-file/);
  assert.match(second.stdout, /of "bob", rsa-2048/);

  writeFileSync(password, 'short\n');
  for (const [args, fault] of [
    [['add', 'dave', '--password-file', password], /at least 8 characters/],
    [['add', 'dave', '--days', '5000'], /too long; use at most 3650 days/],
    [['add', 'da:ve'], /the name of a client holds a colon/],
  ] as const) {
    const { status, stdout, stderr } = await client(...args);
    assert.deepEqual([status, stdout], [1, ''], stderr);
    assert.match(stderr, fault);
  }
  const list = JSON.parse((await client('list', '--json')).stdout);
  assert.deepEqual(
    list.map(({ name, state }: { name: string; state: string }) => [name, state]),
    [
      ['alice', 'valid'],
      ['bob', 'valid'],
    ],
  );
  const crl = JSON.parse((await client('crl', '--days', '365', '--json')).stdout);
  assert.equal(Math.round((Date.parse(crl.nextUpdate) - Date.now()) / 86_400_000), 365);
});
