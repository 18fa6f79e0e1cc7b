import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { say } from '../support/listener.js';
import { type LocalOptions, LocalRegistry } from '../support/local-registry.js';

const canary = (what: string) => `canary-${what}-${randomBytes(9).toString('hex')}`;

/** Every secret that this test gives to the program, by what it is. */
const SECRETS = {
  first: canary('first-password'),
  alice: canary('password'),
  changed: canary('changed-password'),
  wrong: canary('wrong-password'),
  misplaced: canary('password-as-user'),
  authority: canary('ca-passphrase'),
  newAuthority: canary('new-ca-passphrase'),
  client: canary('client-passphrase'),
  bearer: canary('bearer-token'),
  scheme: canary('unknown-scheme'),
  inPath: canary('password-in-url'),
  inQuery: canary('password-in-query'),
  httpSecret: canary('http-secret'),
  header: canary('secret-header'),
  directory: canary('directory-password'),
  inUrl: canary('password-in-configured-url'),
};

/** As it is, and as it stands in an Authorization header, in hexadecimal and in a URL. */
function spellings(secret: string): string[] {
  const encoded = ['', 'a', 'ab'].map(before => {
    const text = Buffer.from(before + secret).toString('base64');
    // Whatever stands around it, these characters are the same.
    return text.slice(before === '' ? 0 : 4, text.length - 4);
  });
  return [secret, ...encoded, Buffer.from(secret).toString('hex')];
}

function* filesBelow(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true }))
    if (entry.isFile()) yield join(entry.parentPath, entry.name);
}

test('a secret given to the program comes out of it nowhere', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'registry-secure-canary-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const own = join(dir, 'secrets');
  mkdirSync(own, { mode: 0o700 });
  const secretFile = (name: keyof typeof SECRETS) => {
    writeFileSync(join(own, name), `${SECRETS[name]}\n`, { mode: 0o600 });
    return join(own, name);
  };
  const heard: Array<readonly [where: string, text: string]> = [];
  const run = async (args: string[], options: LocalOptions = {}) => {
    const said = await LocalRegistry.run(dir, args, options);
    heard.push([args.join(' '), said.stdout + said.stderr]);
    return said;
  };

  writeFileSync(
    join(dir, 'policy.yml'),
    'rules:\n  - {who: [anonymous], may: [pull], on: ["public/**"]}\n  - {who: [authenticated], may: [push, delete], on: ["**"]}\n',
  );
  // A directory that hears the password of the account and leaves.
  let binds = 0;
  const directory = createServer(socket => {
    socket.on('error', () => {});
    socket.on('data', data => {
      if (data.includes(SECRETS.directory)) binds++;
      socket.destroy();
    });
  });
  directory.listen(0, '127.0.0.1');
  await once(directory, 'listening');
  t.after(() => void directory.close());
  const { port: directoryPort } = directory.address() as AddressInfo;
  const ldap = {
    url: `ldap://127.0.0.1:${directoryPort}`,
    starttls: false,
    binddn: 'cn=reader',
    bindpasswordfile: secretFile('directory'),
    userbase: 'ou=people',
  };
  const realms = [{ name: 'directory', repositories: ['directory/**'], sources: [{ ldap }] }];
  const configured = {
    REGISTRY_AUTH_REALMS: JSON.stringify(realms),
    REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'auth/htpasswd'),
    REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
    REGISTRY_LOG_LEVEL: 'debug',
    REGISTRY_STORAGE_DELETE_ENABLED: 'true',
  };
  const secretKeys = {
    REGISTRY_HTTP_SECRET: SECRETS.httpSecret,
    REGISTRY_HTTP_HEADERS_X__API__KEY: SECRETS.header,
    REGISTRY_PROXY_REMOTEURL: `https://user:${SECRETS.inUrl}@upstream.example`,
  };
  const passphrase = ['--passphrase-file', secretFile('authority')];
  const registry = await LocalRegistry.start(dir, ['up', '--password-stdin', ...passphrase], {
    env: configured,
    input: `${SECRETS.first}\n`,
  });
  t.after(() => registry.stop('SIGKILL'));

  // Commands that are given secrets, with and without success.
  const stdin = ['--password-stdin'];
  assert.equal((await run(['user', 'add', 'alice', ...stdin], { input: SECRETS.alice })).status, 0);
  assert.equal((await run(['user', 'add', 'alice', ...stdin], { input: SECRETS.wrong })).status, 1);
  assert.equal((await run(['user', 'verify', 'alice', ...stdin], { input: SECRETS.wrong })).status, 1);
  assert.equal((await run(['user', 'verify', 'alice', ...stdin], { input: SECRETS.alice })).status, 0);
  await run(['user', 'list', '--json']);
  const pkcs12 = ['--password-file', secretFile('client'), ...passphrase];
  assert.equal((await run(['certs', 'client', 'add', 'ci', ...pkcs12])).status, 0);
  await run(['certs', 'client', 'add', 'ci', ...pkcs12]);
  assert.equal((await run(['certs', 'renew', ...passphrase])).status, 0);
  assert.equal((await run(['certs', 'renew', '--passphrase-file', secretFile('wrong')])).status, 1);
  const next = ['--new-passphrase-file', secretFile('newAuthority')];
  assert.equal((await run(['certs', 'passphrase', ...passphrase, ...next])).status, 0);
  await run(['certs', 'inspect']);
  for (const args of [
    ['config', 'print'],
    ['config', 'check'],
    ['serve', '--addr', '127.0.0.1:0'],
  ])
    await run([...args, '--dir', dir], { env: { ...configured, ...secretKeys } });

  // Requests: right, wrong, misplaced, in other schemes, in places where no secret belongs.
  const alice = `alice:${SECRETS.alice}`;
  await registry.until(async () => (await registry.call('GET', '/v2/', { auth: alice })).status === 200);
  const token = JSON.parse((await registry.call('GET', '/token', { auth: alice })).body.toString()).token as string;
  // Shown once, where it is made: that output is not among what was heard.
  const making = ['token', 'create', '--user', 'alice', '--allow', 'pull:**', '--dir', dir];
  const made = await LocalRegistry.run(dir, making);
  assert.equal(made.status, 0, made.stderr);
  heard.push(['standard error of token create', made.stderr]);
  const machine = made.stdout.trim();
  await run(['token', 'list', '--dir', dir, '--json']);
  await registry.until(async () => (await registry.call('GET', '/v2/', { auth: `alice:${machine}` })).status === 200);
  const replies = [
    await registry.call('GET', '/v2/', { auth: `admin:${SECRETS.first}` }),
    await registry.call('GET', '/v2/', { auth: `alice:${SECRETS.wrong}` }),
    await registry.call('GET', '/v2/', { auth: `nobody:${SECRETS.wrong}` }),
    await registry.call('GET', '/v2/', { auth: `${SECRETS.misplaced}:${SECRETS.wrong}` }),
    await registry.call('GET', `/v2/_catalog?password=${SECRETS.inQuery}&${SECRETS.inQuery}`, { auth: alice }),
    await registry.call('GET', `/healthz?token=${SECRETS.inQuery}`),
    await registry.call('GET', `/token?account=alice&password=${SECRETS.inQuery}`),
    await registry.call('GET', '/v2/directory/app/tags/list', { auth: `bob:${SECRETS.wrong}` }),
    await registry.call('POST', '/v2/team/app/blobs/uploads/', { auth: alice }),
    await registry.call('PUT', '/v2/team/app/manifests/v1', { auth: alice, body: SECRETS.wrong }),
    await registry.call('DELETE', '/v2/team/app/manifests/v1', { auth: alice }),
  ];
  for (const { body } of replies) heard.push(['an answer', body.toString('latin1')]);
  const raw = async (...lines: string[]) => {
    const socket = connect({ host: '127.0.0.1', port: registry.port, ca: readFileSync(join(dir, 'certs/ca.crt')) });
    await once(socket, 'secureConnect');
    heard.push(['an answer', await say(socket, `${[...lines, 'Host: x', 'Connection: close'].join('\r\n')}\r\n\r\n`)]);
  };
  await raw('GET /v2/ HTTP/1.1', `Authorization: Bearer ${token}`);
  await raw('GET /v2/ HTTP/1.1', `Authorization: Bearer ${token}x`);
  await raw('GET /v2/ HTTP/1.1', `Authorization: Bearer ${SECRETS.bearer}`);
  await raw('GET /v2/ HTTP/1.1', `Authorization: Digest ${SECRETS.scheme}`);
  await raw('GET /v2/ HTTP/1.1', `Authorization: Basic ${SECRETS.scheme}`);
  await raw('GET /v2/ HTTP/1.1', `Authorization: Bearer ${SECRETS.bearer}`, `Authorization: Bearer ${SECRETS.bearer}`);
  await raw(`GET https://alice:${SECRETS.inPath}@127.0.0.1/v2/ HTTP/1.1`);
  await raw(`GET /v2/ HTTP/1.1 ${SECRETS.inPath}`);
  assert.equal((await run(['user', 'passwd', 'alice', ...stdin], { input: SECRETS.changed })).status, 0);
  await registry.until(async () => (await registry.call('GET', '/v2/', { auth: alice })).status !== 200);
  assert.ok(binds > 0, 'the directory was asked');

  // Of the processes too, while they run.
  const { pid } = registry.child;
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean);
  for (const process of [pid, ...children])
    for (const file of ['cmdline', 'environ'])
      heard.push([`/proc/PID/${file}`, readFileSync(`/proc/${process}/${file}`, 'latin1')]);
  assert.equal(await registry.stop(), 0);
  assert.ok(registry.stdout.includes('status=401') && registry.stderr.includes('level='), 'there was a log');
  heard.push(['standard output', registry.stdout], ['standard error', registry.stderr]);
  let files = 0;
  for (const file of filesBelow(dir)) {
    if (file.startsWith(own)) continue;
    files++;
    heard.push([file.slice(dir.length + 1), readFileSync(file, 'latin1')]);
    const secret = /(?:\.key|\.p12|htpasswd)$|^data\/registry-secure|^audit\//.test(file.slice(dir.length + 1));
    if (secret) assert.equal(statSync(file).mode & 0o077, 0, `${file} is for its owner alone`);
  }
  assert.ok(files > 10 && readdirSync(join(dir, 'audit')).length >= 5, 'the files were found');

  for (const [name, secret] of [
    ...Object.entries(SECRETS),
    ['a token', token],
    ["a machine's token", machine],
  ] as const)
    for (const spelling of spellings(secret))
      for (const [where, text] of heard) {
        // The one answer in which the token belongs is not among these.
        assert.ok(!text.includes(spelling), `${name} is in ${where}`);
      }
});
