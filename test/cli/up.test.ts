import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { usualWorkers } from '../../src/config/workers.js';
import { LocalRegistry } from '../support/local-registry.js';
import { selfSigned } from '../support/pair.js';

describe('up and serve', () => {
  let dir: string;
  const running: LocalRegistry[] = [];
  const folders: string[] = [];
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-secure-up-'));
    folders.push(dir);
  });
  afterEach(async () => {
    for (const registry of running.splice(0)) await registry.stop('SIGKILL');
  });
  after(async () => {
    for (const folder of folders) await rm(folder, { recursive: true, force: true });
  });
  const start = async (
    ...[args, options]: [readonly string[], { env?: NodeJS.ProcessEnv; input?: string; cwd?: string }?]
  ) => {
    // As users start it: in as many processes as the machine has it serve in.
    const env = { REGISTRY_WORKERS: '', ...options?.env };
    const registry = await LocalRegistry.start(dir, args, { ...options, env });
    running.push(registry);
    return registry;
  };

  test('from an empty folder to a pushed blob, and the same again without making anything', async () => {
    const first = await start(['up', '--ip', '192.168.0.12']);
    await first.until(() => first.stdout.includes('docker login'));
    const host = `192\\.168\\.0\\.12:${first.port}`;
    for (const line of [
      `^Registry +https://${host}/$`,
      '^Certificate .*domain\\.crt \\(created\\), until \\d{4}-\\d\\d-\\d\\d$',
      'good for +192\\.168\\.0\\.12, ',
      'SHA-256 +([0-9A-F]{2}:){31}[0-9A-F]{2}$',
      `^sudo install -Dm644 ${dir}/certs/ca\\.crt /etc/docker/certs\\.d/${host}/ca\\.crt$`,
      '^sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System\\.keychain ca\\.crt$',
      `^docker login -u admin ${host}$`,
    ])
      assert.match(first.stdout, new RegExp(line, 'm'));

    const expected = usualWorkers();
    if (expected > 1) await first.until(() => first.stderr.includes(`msg="all workers serve" workers=${expected}`));
    const children = await readFile(`/proc/${first.child.pid}/task/${first.child.pid}/children`, 'utf8');
    assert.equal(children.split(' ').filter(Boolean).length, expected === 1 ? 0 : expected);

    const { password } = first;
    assert.ok(!`${first.stdout}${first.stderr}`.includes(password), 'a log is no place for a password');
    for (const secret of ['auth/initial-password', 'auth/htpasswd', 'certs/ca.key', 'certs/domain.key'])
      assert.equal((await stat(join(dir, secret))).mode & 0o777, 0o600, secret);

    const data = randomBytes(100_000);
    const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    const auth = `admin:${password}`;
    for (const wrong of [undefined, 'admin:wrong', 'nobody:x'])
      assert.equal((await first.call('POST', '/v2/a/b/blobs/uploads/', wrong ? { auth: wrong } : {})).status, 401);
    assert.equal(
      (await first.call('POST', `/v2/a/b/blobs/uploads/?digest=${digest}`, { auth, body: data })).status,
      201,
    );
    for (const path of ['/', '/healthz']) assert.equal((await first.call('GET', path)).status, 200);
    assert.equal(await first.stop(), 0);

    const second = await start(['up', '--ip', '192.168.0.12']);
    await second.until(() => second.stdout.includes('docker login'));
    assert.match(second.stdout, /^Certificate .*\(reused\)/m);
    assert.match(second.stdout, /^Authority .*\(reused\)/m);
    assert.match(second.stdout, /^Users .*\(reused\)/m);
    assert.ok((await second.call('GET', `/v2/a/b/blobs/${digest}`, { auth })).body.equals(data));
    assert.equal(await second.stop('SIGINT'), 0, 'Ctrl-C drains as well');
  });

  test('a user and password of the operator’s; an address that the machine has gained', async () => {
    const first = await start(['up', '--user', 'alice', '--password-stdin'], { input: 'canary-7Kq\n' });
    assert.equal((await first.call('GET', '/v2/', { auth: 'alice:canary-7Kq' })).status, 200);
    assert.equal((await first.call('GET', '/v2/', { auth: 'admin:canary-7Kq' })).status, 401);
    assert.ok(!`${first.stdout}${first.stderr}`.includes('canary-7Kq'));
    await first.stop();
    const authority = await readFile(join(dir, 'certs/ca.crt'));
    const second = await start(['up'], { env: { REGISTRY_SECURE_NAMES: '192.168.7.7 registry.lan' } });
    await second.until(() => second.stdout.includes('docker login'));
    assert.match(second.stdout, /^Certificate .*\(reissued\)/m);
    assert.match(second.stdout, /good for .*192\.168\.7\.7.*registry\.lan/);
    assert.deepEqual(await readFile(join(dir, 'certs/ca.crt')), authority);
    assert.match(second.stdout, /docker login -u NAME 192\.168\.7\.7/);
    await second.stop();

    const elsewhere = join(dir, 'a folder');
    await mkdir(elsewhere);
    const third = await start(['up', '--dir', dir, '--password-stdin'], { input: 'another\n', cwd: elsewhere });
    await third.until(() => third.stdout.includes('docker login'));
    const file = join(dir, 'auth/htpasswd');
    assert.ok(
      third.stdout.includes(
        `admin was not added, since there are users: registry-secure user add admin --file ${file}`,
      ),
    );
    assert.ok(third.stdout.includes(`registry-secure user passwd admin --file ${file}`));
    assert.ok(third.stdout.includes(`or registry-secure trust --dir ${dir})`));
  });

  test('the variables of the old recipes; the old recipe’s certificate is served as it is', async () => {
    await mkdir(join(dir, 'certs'));
    const { certificate, key } = selfSigned();
    await writeFile(join(dir, 'certs/domain.crt'), certificate);
    await writeFile(join(dir, 'certs/domain.key'), key, { mode: 0o600 });
    await LocalRegistry.run(dir, ['user', 'add', 'testuser', '--password-stdin'], { input: 'test123' });
    const env = {
      REGISTRY_HTTP_TLS_CERTIFICATE: join(dir, 'certs/domain.crt'),
      REGISTRY_HTTP_TLS_KEY: join(dir, 'certs/domain.key'),
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
      REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'auth/htpasswd'),
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(dir, 'volume'),
      REGISTRY_CONFIGURATION_PATH: join(dir, 'config.yml'),
    };
    await writeFile(join(dir, 'config.yml'), 'version: 0.1\n');
    const registry = await start(['serve'], { env });
    const ca = Buffer.from(certificate);
    assert.equal((await registry.call('GET', '/v2/', { auth: 'testuser:test123', ca })).status, 200);
    assert.equal((await registry.call('POST', '/v2/a/blobs/uploads/', { auth: 'testuser:test123', ca })).status, 202);
    assert.ok((await stat(join(dir, 'volume/docker/registry/v2/repositories/a'))).isDirectory());
    assert.equal(await readFile(join(dir, 'certs/domain.crt'), 'utf8'), certificate);
  });

  test('certificates and users are reloaded; bad ones are refused and the old stay', async () => {
    // One process: that all of several follow is for workers-shared.test.ts.
    const registry = await start(['up', '--ip', '127.0.0.1'], { env: { REGISTRY_WORKERS: '1' } });
    const serial = async () => {
      let number = '';
      await registry.call('GET', '/', { onPeer: peer => (number = peer.serialNumber) });
      return number;
    };
    const before = await serial();
    assert.equal((await LocalRegistry.run(dir, ['init-certs', '--ip', '127.0.0.1', '--force'])).status, 0);
    const renewed = await registry.until(async () => (await serial()) !== before && serial());
    await writeFile(join(dir, 'certs/domain.key'), 'no key');
    await registry.until(() => /kept the old certificate/.test(registry.stderr));
    assert.equal(await serial(), renewed);

    const auth = 'bob:secret-Word-1';
    assert.equal((await registry.call('GET', '/v2/', { auth })).status, 401);
    await LocalRegistry.run(dir, ['user', 'add', 'bob', '--password-stdin'], { input: 'secret-Word-1' });
    await registry.until(async () => (await registry.call('GET', '/v2/', { auth })).status === 200);
    const htpasswd = await readFile(join(dir, 'auth/htpasswd'), 'utf8');
    await writeFile(join(dir, 'auth/htpasswd'), `${htpasswd}testuser test123\n`);
    await registry.until(() => /kept the old htpasswd file/.test(registry.stderr));
    assert.equal((await registry.call('GET', '/v2/', { auth })).status, 200);
    await writeFile(join(dir, 'auth/htpasswd'), htpasswd.replace(/^bob:.*\n/m, ''));
    await registry.until(async () => (await registry.call('GET', '/v2/', { auth })).status === 401);
    assert.ok(!registry.stderr.includes('test123'));
  });

  test('SIGTERM lets a running push finish, and takes no new one', async () => {
    const registry = await start(['up'], { env: { REGISTRY_HTTP_DRAINTIMEOUT: '120s' } });
    const auth = `admin:${registry.password}`;
    const { location } = await registry.call('POST', '/v2/a/blobs/uploads/', { auth });
    const patch = request({
      host: '127.0.0.1',
      port: registry.port,
      method: 'PATCH',
      path: location,
      auth,
      ca: await readFile(join(dir, 'certs/ca.crt')),
    });
    const answered = new Promise<number>((resolve, reject) => {
      patch.once('response', response => resolve(response.statusCode!)).once('error', reject);
    });
    await new Promise(resolve => patch.write(randomBytes(100_000), resolve));
    await registry.until(async () => {
      const folder = join(
        dir,
        'data/docker/registry/v2/repositories/a/_uploads',
        location!.split('/').at(-1)!,
        'segments',
      );
      return stat(folder).then(
        () => true,
        () => false,
      );
    });
    registry.child.kill('SIGTERM');
    await registry.until(() => /msg="stopping/.test(registry.stderr));
    // As long as another process has not closed the port, its kernel takes connections.
    await registry.until(() =>
      registry.call('GET', '/').then(
        () => false,
        error => error.code === 'ECONNREFUSED',
      ),
    );
    patch.end(randomBytes(1000));
    assert.equal(await answered, 202);
    assert.equal(await registry.exited, 0);
  });

  test('plain HTTP and an open registry only by name, each with a warning', async () => {
    await writeFile(
      join(dir, 'config.yml'),
      'version: 0.1\nauth: { none: {} }\nstorage: { filesystem: { rootdirectory: data } }\n',
    );
    const registry = await start(['serve', join(dir, 'config.yml'), '--insecure-plain-http']);
    assert.match(registry.stderr, /level=warn msg="serving plain HTTP/);
    assert.match(registry.stderr, /level=warn msg="the registry is open/);
    const answer = await fetch(`http://127.0.0.1:${registry.port}/v2/`);
    assert.equal(answer.status, 200);
  });

  test('a fault is logged as the access log shows requests, without what may be a secret', async () => {
    const tag = join(dir, 'data/docker/registry/v2/repositories/a/_manifests/tags/t/current');
    await mkdir(tag, { recursive: true });
    await writeFile(join(tag, 'link'), 'x'.repeat(2000));
    const registry = await start(['up']);
    const answer = await registry.call('GET', '/v2/a/manifests/t?n=1&code=canary', {
      auth: `admin:${registry.password}`,
    });
    assert.equal(answer.status, 503);
    await registry.until(() => /a request failed/.test(registry.stderr));
    assert.match(registry.stderr, /path="?\/v2\/a\/manifests\/t\?n=1&code=\*\*\*/);
    assert.ok(!registry.stderr.includes('canary'));
  });

  test('what keeps it from starting is one line with the fix, and exit code 1', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await new Promise(resolve => taken.once('listening', resolve));
    const { port } = taken.address() as { port: number };
    await writeFile(join(dir, 'a-file'), '');
    const { certificate } = selfSigned();
    await writeFile(join(dir, 'a.crt'), certificate);
    await writeFile(join(dir, 'other.key'), selfSigned().key, { mode: 0o600 });
    const cases: ReadonlyArray<[readonly string[], RegExp]> = [
      [['--addr', `127.0.0.1:${port}`], new RegExp(`127\\.0\\.0\\.1:${port}.*; .+`)],
      [['--root', join(dir, 'a-file')], /a-file.*; .+/],
      [
        ['--certificate', join(dir, 'a.crt'), '--key', join(dir, 'other.key')],
        /other\.key does not belong to .*a\.crt; .+/,
      ],
      [['--certificate', join(dir, 'absent.crt'), '--key', join(dir, 'other.key')], /absent\.crt.*; .+/],
      [['--htpasswd', dir], /is a folder.*; .+/],
      [['--addr', 'nowhere'], /--addr.*; .+/],
      [['--htpasswd', join(dir, 'a-file', 'htpasswd')], /a-file.*; .+/],
    ];
    for (const [args, message] of cases) {
      const addr = args.includes('--addr') ? [] : ['--addr', '127.0.0.1:0'];
      const { status, stderr } = await LocalRegistry.run(dir, ['up', ...args, ...addr]);
      const lines = stderr
        .trimEnd()
        .split('\n')
        .filter(line => !/ level=(info|warn) /.test(line));
      assert.equal(status, 1, `${args.join(' ')}: ${stderr}`);
      assert.equal(lines.length, 1, stderr);
      assert.match(lines[0]!, /^registry-secure: /);
      assert.match(lines[0]!, message);
    }
    taken.close();
  });
});
