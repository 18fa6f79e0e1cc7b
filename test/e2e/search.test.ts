import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { Registry } from '../support/registry.js';

const alice = { user: 'alice', password: 'correct horse battery staple' };

/** docker asks /v1/search; podman asks it too, without its credentials, and then the catalog. */
describe('docker search and podman search', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let closed: Registry;
  let open: Registry;
  let docker: Docker;
  let podman: Podman;
  const images = [
    ['team/shop', 'org.opencontainers.image.description="Sells apples"'],
    ['team/plain', 'unrelated=1'],
    ['other/tool', 'org.opencontainers.image.title="Apple press"'],
  ] as const;

  before(async () => {
    namespace = await Namespace.create();
    const up = (port: number) => ['--addr', `${namespace.ip}:${port}`, '--ip', namespace.ip];
    const users = ['--user', alice.user, '--password-stdin'];
    [closed, open, docker] = await Promise.all([
      Registry.start(namespace, ['up', ...up(5000), ...users], { name: 'closed', input: `${alice.password}\n` }),
      Registry.start(namespace, ['serve', ...up(5001)], {
        name: 'open',
        host: `${namespace.ip}:5001`,
        env: { REGISTRY_AUTH: 'none' },
      }),
      Docker.start(namespace),
    ]);
    podman = new Podman(namespace);
    for (const registry of [closed, open]) await registry.trust('docker');
    const login = ['login', '-u', alice.user, '--password-stdin', closed.host];
    await docker.must(login, { input: alice.password });
    for (const [index, [name, label]] of images.entries()) {
      const folder = join(namespace.dir, `image${index}`);
      writeBuildFolder(folder, [1000]);
      appendFileSync(join(folder, 'Dockerfile'), `LABEL ${label}\n`);
      for (const { host } of [closed, open]) {
        await docker.build(folder, `${host}/${name}:1`);
        await docker.must(['push', '-q', `${host}/${name}:1`]);
      }
    }
  });
  after(() => namespace?.close());

  const byDocker = async (term: string) => {
    const format = '{{.Name}}|{{.Description}}';
    const found = await docker.must(['search', '--no-trunc', '--format', format, term]);
    return found.trim().split('\n').filter(Boolean);
  };
  const byPodman = async (term: string) => {
    const format = '{{.Name}}|{{.Description}}';
    const found = await podman.must('podman', ['search', '--no-trunc', '--format', format, term]);
    return found.trim().split('\n').filter(Boolean).sort();
  };

  test('docker finds by name and by description', async () => {
    assert.deepEqual(await byDocker(`${closed.host}/team`), ['team/plain|', 'team/shop|Sells apples']);
    assert.deepEqual(await byDocker(`${closed.host}/team/sh`), ['team/shop|Sells apples']);
    assert.deepEqual(await byDocker(`${closed.host}/apple`), ['other/tool|Apple press', 'team/shop|Sells apples']);
    assert.deepEqual(await byDocker(`${closed.host}/nothing`), []);
  });

  test('docker lists everything without a term', async () => {
    assert.deepEqual(await byDocker(`${closed.host}/`), [
      'other/tool|Apple press',
      'team/plain|',
      'team/shop|Sells apples',
    ]);
  });

  test('docker searches an open registry without credentials', async () => {
    assert.deepEqual(await byDocker(`${open.host}/apple`), ['other/tool|Apple press', 'team/shop|Sells apples']);
  });

  test('podman finds by name through the catalog, logged in, and everything without a term', async () => {
    const login = ['login', '-u', alice.user, '--password-stdin', closed.host];
    assert.match(await podman.must('podman', login, { input: alice.password }), /Login Succeeded/);
    const names = ['other/tool', 'team/plain', 'team/shop'].map(name => `${closed.host}/${name}|`);
    assert.deepEqual(await byPodman(`${closed.host}/`), names);
    assert.deepEqual(await byPodman(`${closed.host}/team`), names.slice(1));
  });

  test('podman finds by description where nobody is asked who they are', async () => {
    const found = ['other/tool|Apple press', 'team/shop|Sells apples'].map(line => `${open.host}/${line}`);
    assert.deepEqual(await byPodman(`${open.host}/apple`), found);
  });

  test('logged out, both are refused', async () => {
    await docker.must(['logout', closed.host]);
    assert.match(await docker.refused(['search', `${closed.host}/team`]), /401/);
    await podman.must('podman', ['logout', closed.host]);
    assert.match(await podman.refused('podman', ['search', `${closed.host}/team`]), /unauthorized|authentication/i);
  });
});
