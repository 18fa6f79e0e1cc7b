import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CHECKOUT, copyCheckout, npmEnvironment } from '../support/checkout.js';
import { LocalRegistry } from '../support/local-registry.js';

describe('the package', { timeout: 240_000 }, () => {
  const env = npmEnvironment();
  let dir: string;
  let home: string;
  let packed: { filename: string; files: { path: string; mode: number }[] };

  const npm = async (cwd: string, ...args: string[]) => {
    const { status, stdout, stderr } = await LocalRegistry.run(cwd, args, { env, command: ['npm'] });
    assert.equal(status, 0, `npm ${args.join(' ')}\n${stdout}${stderr}`);
    return stdout;
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'registry-secure-package-'));
    const sources = join(dir, 'sources');
    home = join(dir, 'home');
    copyCheckout(sources, { linkModules: true });
    mkdirSync(home);
    [packed] = JSON.parse(await npm(sources, 'pack', '--json', '--silent', '--pack-destination', dir));
    writeFileSync(join(home, 'package.json'), '{}');
    await npm(home, 'install', join('..', packed.filename));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('holds the built program and its documents, and nothing of where it was built', () => {
    const files = packed.files.map(file => file.path);
    const others = files.filter(file => !/^(dist\/src|docs)\//.test(file)).sort();
    const documents = ['CHANGELOG.md', 'README.md', 'package.json'];
    assert.deepEqual(
      others.filter(file => !documents.includes(file)),
      ['bin/node-version.js', 'bin/registry-secure.js'],
    );
    for (const file of files) assert.match(file, /\.(js|md|json)$/);
    assert.ok(files.some(file => file === 'dist/src/cli/index.js'));
    const root = join(home, 'node_modules', 'registry-secure');
    for (const entry of readdirSync(root, { recursive: true, encoding: 'utf8', withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const content = readFileSync(join(entry.parentPath, entry.name), 'utf8');
      assert.ok(!content.includes(dir) && !content.includes(CHECKOUT), entry.name);
      assert.doesNotMatch(content, /sourceMappingURL/, entry.name);
    }
  });

  test('says for which Node it is', () => {
    const { engines, bin } = JSON.parse(readFileSync(join(home, 'node_modules/registry-secure/package.json'), 'utf8'));
    assert.deepEqual(engines, { node: '>=20.19' });
    assert.deepEqual(Object.keys(bin), ['registry-secure']);
  });

  test('runs by npx, keeps its folders where it is started, and takes and gives a blob', async () => {
    const npx = { env, command: ['npx', 'registry-secure'], cwd: home } as const;
    const { version } = JSON.parse(readFileSync(join(home, 'node_modules/registry-secure/package.json'), 'utf8'));
    assert.equal((await LocalRegistry.run(home, ['--version'], npx)).stdout, `${version}\n`);

    const registry = await LocalRegistry.start(home, ['up'], { ...npx, detached: true });
    try {
      const data = randomBytes(100_000);
      const path = `sha256:${createHash('sha256').update(data).digest('hex')}`;
      const auth = `admin:${registry.password}`;
      const pushed = await registry.call('POST', `/v2/a/b/blobs/uploads/?digest=${path}`, { auth, body: data });
      assert.equal(pushed.status, 201);
      assert.ok((await registry.call('GET', `/v2/a/b/blobs/${path}`, { auth })).body.equals(data));
    } finally {
      process.kill(-registry.child.pid!, 'SIGTERM');
    }
    await registry.exited;
    assert.match(registry.stderr, /msg="stopping/);
    for (const folder of ['auth', 'certs', 'data']) assert.ok(readdirSync(join(home, folder)).length > 0, folder);
  });
});
