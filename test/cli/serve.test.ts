import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { selfSigned } from '../support/pair.js';
import { inAFolder } from '../support/started.js';

describe('up and serve', () => {
  const place = inAFolder();

  test('a user and password of the operator’s; an address that the machine has gained', async () => {
    const first = await place.start(['up', '--user', 'alice', '--password-stdin'], { input: 'canary-7Kq\n' });
    assert.equal((await first.call('GET', '/v2/', { auth: 'alice:canary-7Kq' })).status, 200);
    assert.equal((await first.call('GET', '/v2/', { auth: 'admin:canary-7Kq' })).status, 401);
    assert.ok(!`${first.stdout}${first.stderr}`.includes('canary-7Kq'));
    await first.stop();
    const authority = await readFile(join(place.dir, 'certs/ca.crt'));
    const second = await place.start(['up'], { env: { REGISTRY_SECURE_NAMES: '192.168.7.7 registry.lan' } });
    await second.until(() => second.stdout.includes('docker login'));
    assert.match(second.stdout, /^Certificate .*\(reissued\)/m);
    assert.match(second.stdout, /good for .*192\.168\.7\.7.*registry\.lan/);
    assert.deepEqual(await readFile(join(place.dir, 'certs/ca.crt')), authority);
    assert.match(second.stdout, /docker login -u NAME 192\.168\.7\.7/);
    await second.stop();

    const elsewhere = join(place.dir, 'a folder');
    await mkdir(elsewhere);
    const third = await place.start(['up', '--dir', place.dir, '--password-stdin'], {
      input: 'another\n',
      cwd: elsewhere,
    });
    await third.until(() => third.stdout.includes('docker login'));
    const file = join(place.dir, 'auth/htpasswd');
    assert.ok(
      third.stdout.includes(
        `admin was not added, since there are users: registry-secure user add admin --file ${file}`,
      ),
    );
    assert.ok(third.stdout.includes(`registry-secure user passwd admin --file ${file}`));
    assert.ok(third.stdout.includes(`or registry-secure trust --dir ${place.dir})`));
  });

  test('the variables of the old recipes; the old recipe’s certificate is served as it is', async () => {
    await mkdir(join(place.dir, 'certs'));
    const { certificate, key } = selfSigned();
    await writeFile(join(place.dir, 'certs/domain.crt'), certificate);
    await writeFile(join(place.dir, 'certs/domain.key'), key, { mode: 0o600 });
    await LocalRegistry.run(place.dir, ['user', 'add', 'testuser', '--password-stdin'], { input: 'test123' });
    const env = {
      REGISTRY_HTTP_TLS_CERTIFICATE: join(place.dir, 'certs/domain.crt'),
      REGISTRY_HTTP_TLS_KEY: join(place.dir, 'certs/domain.key'),
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
      REGISTRY_AUTH_HTPASSWD_PATH: join(place.dir, 'auth/htpasswd'),
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(place.dir, 'volume'),
      REGISTRY_CONFIGURATION_PATH: join(place.dir, 'config.yml'),
    };
    await writeFile(join(place.dir, 'config.yml'), 'version: 0.1\n');
    const registry = await place.start(['serve'], { env });
    const ca = Buffer.from(certificate);
    assert.equal((await registry.call('GET', '/v2/', { auth: 'testuser:test123', ca })).status, 200);
    assert.equal((await registry.call('POST', '/v2/a/blobs/uploads/', { auth: 'testuser:test123', ca })).status, 202);
    assert.ok((await stat(join(place.dir, 'volume/docker/registry/v2/repositories/a'))).isDirectory());
    assert.equal(await readFile(join(place.dir, 'certs/domain.crt'), 'utf8'), certificate);
  });

  test('certificates and users are reloaded; bad ones are refused and the old stay', async () => {
    // One process: that all of several follow is for workers-shared.test.ts.
    const registry = await place.start(['up', '--ip', '127.0.0.1'], { env: { REGISTRY_WORKERS: '1' } });
    const serial = async () => {
      let number = '';
      await registry.call('GET', '/', { onPeer: peer => (number = peer.serialNumber) });
      return number;
    };
    const before = await serial();
    assert.equal((await LocalRegistry.run(place.dir, ['init-certs', '--ip', '127.0.0.1', '--force'])).status, 0);
    const renewed = await registry.until(async () => (await serial()) !== before && serial());
    await writeFile(join(place.dir, 'certs/domain.key'), 'no key');
    await registry.until(() => /kept the old certificate/.test(registry.stderr));
    assert.equal(await serial(), renewed);

    const auth = 'bob:secret-Word-1';
    assert.equal((await registry.call('GET', '/v2/', { auth })).status, 401);
    await LocalRegistry.run(place.dir, ['user', 'add', 'bob', '--password-stdin'], { input: 'secret-Word-1' });
    await registry.until(async () => (await registry.call('GET', '/v2/', { auth })).status === 200);
    const htpasswd = await readFile(join(place.dir, 'auth/htpasswd'), 'utf8');
    await writeFile(join(place.dir, 'auth/htpasswd'), `${htpasswd}testuser test123\n`);
    await registry.until(() => /kept the old htpasswd file/.test(registry.stderr));
    assert.equal((await registry.call('GET', '/v2/', { auth })).status, 200);
    await writeFile(join(place.dir, 'auth/htpasswd'), htpasswd.replace(/^bob:.*\n/m, ''));
    await registry.until(async () => (await registry.call('GET', '/v2/', { auth })).status === 401);
    assert.ok(!registry.stderr.includes('test123'));
  });

  test('SIGTERM lets a running push finish, and takes no new one', async () => {
    const registry = await place.start(['up'], { env: { REGISTRY_HTTP_DRAINTIMEOUT: '120s' } });
    const auth = `admin:${registry.password}`;
    const { location } = await registry.call('POST', '/v2/a/blobs/uploads/', { auth });
    const patch = request({
      host: '127.0.0.1',
      port: registry.port,
      method: 'PATCH',
      path: location,
      auth,
      ca: await readFile(join(place.dir, 'certs/ca.crt')),
    });
    const answered = new Promise<number>((resolve, reject) => {
      patch.once('response', response => resolve(response.statusCode!)).once('error', reject);
    });
    await new Promise(resolve => patch.write(randomBytes(100_000), resolve));
    await registry.until(async () => {
      const folder = join(
        place.dir,
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

  test('a fault is logged as the access log shows requests, without what may be a secret', async () => {
    const tag = join(place.dir, 'data/docker/registry/v2/repositories/a/_manifests/tags/t/current');
    await mkdir(tag, { recursive: true });
    await writeFile(join(tag, 'link'), 'x'.repeat(2000));
    const registry = await place.start(['up']);
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
    await writeFile(join(place.dir, 'a-file'), '');
    const { certificate } = selfSigned();
    await writeFile(join(place.dir, 'a.crt'), certificate);
    await writeFile(join(place.dir, 'other.key'), selfSigned().key, { mode: 0o600 });
    const cases: ReadonlyArray<[readonly string[], RegExp]> = [
      [['--addr', `127.0.0.1:${port}`], new RegExp(`127\\.0\\.0\\.1:${port}.*; .+`)],
      [['--root', join(place.dir, 'a-file')], /a-file.*; .+/],
      [
        ['--certificate', join(place.dir, 'a.crt'), '--key', join(place.dir, 'other.key')],
        /other\.key does not belong to .*a\.crt; .+/,
      ],
      [['--certificate', join(place.dir, 'absent.crt'), '--key', join(place.dir, 'other.key')], /absent\.crt.*; .+/],
      [['--htpasswd', place.dir], /is a folder.*; .+/],
      [['--addr', 'nowhere'], /--addr.*; .+/],
      [['--htpasswd', join(place.dir, 'a-file', 'htpasswd')], /a-file.*; .+/],
    ];
    for (const [args, message] of cases) {
      const addr = args.includes('--addr') ? [] : ['--addr', '127.0.0.1:0'];
      const { status, stderr } = await LocalRegistry.run(place.dir, ['up', ...args, ...addr]);
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
