import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Docker } from '../support/docker.js';
import { forge } from '../support/forge.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { Registry } from '../support/registry.js';

const SERVER = fileURLToPath(new URL('../support/token-server.js', import.meta.url));
const password = 'correct horse battery staple';

/** Users whom only a token server of somebody else's knows: clients log in at the one and pull from the other. */
describe('an outside token server', { timeout: 300_000 }, () => {
  let namespace: Namespace;
  let registry: Registry;
  let docker: Docker;
  let podman: Podman;
  let open: string;
  let closed: string;

  before(async () => {
    namespace = await Namespace.create();
    const dir = join(namespace.dir, 'auth-server');
    mkdirSync(dir);
    const root = forge({ commonName: 'token root', authority: true });
    const signer = forge({ commonName: 'token signer', issuer: root });
    writeFileSync(join(dir, 'root.crt'), root.pem);
    writeFileSync(join(dir, 'signer.key'), signer.keyPem, { mode: 0o600 });
    const realm = `https://${namespace.ip}:5001/token`;
    const env = {
      REGISTRY_AUTH: 'token',
      REGISTRY_AUTH_TOKEN_REALM: realm,
      REGISTRY_AUTH_TOKEN_SERVICE: 'registry.lan',
      REGISTRY_AUTH_TOKEN_ISSUER: 'auth.lan',
      REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: join(dir, 'root.crt'),
      REGISTRY_STORAGE_DELETE_ENABLED: 'true',
    };
    const serve = ['serve', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip];
    [registry, docker] = await Promise.all([Registry.start(namespace, serve, { env }), Docker.start(namespace)]);
    const config = {
      issuer: 'auth.lan',
      service: 'registry.lan',
      header: { x5c: [signer.certificate.raw.toString('base64')] },
      users: { alice: password, bob: password },
      grants: {
        alice: { 'repository:team/app': ['pull', 'push', 'delete', '*'], 'repository:public/app': ['pull', 'push'] },
        bob: { 'repository:team/app': ['pull'], 'repository:public/app': ['pull'] },
        '': { 'repository:public/app': ['pull'] },
      },
      keyFile: join(dir, 'signer.key'),
      host: namespace.ip,
      port: 5001,
      // One that the clients trust as they trust the registry's, by the same authority.
      tls: { certificate: join(registry.dir, 'certs', 'domain.crt'), key: join(registry.dir, 'certs', 'domain.key') },
    };
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
    const server = namespace.start('token-server', [process.execPath, SERVER, join(dir, 'config.json')]);
    await server.ready(() => namespace.answers(realm));
    podman = new Podman(namespace);
    for (const client of ['docker', 'podman']) await registry.trust(client);
    [open, closed] = ['public/app', 'team/app'].map(name => `${registry.host}/${name}:1`) as [string, string];
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [10_000]);
    await docker.build(folder, open);
    await docker.must(['tag', open, closed]);
  });
  after(() => namespace?.close());

  const login = (user: string, secret = password) =>
    [['login', '-u', user, '--password-stdin', registry.host], { input: secret }] as const;

  test('docker: login, push, pull; without a login what is public; refused beyond', async () => {
    assert.match(await docker.refused(...login('alice', 'wrong')), /unauthorized|401/i);
    assert.match(await docker.must(...login('alice')), /Login Succeeded/);
    for (const image of [open, closed]) await docker.must(['push', '-q', image]);
    await docker.must(['logout', registry.host]);
    await docker.must(['image', 'rm', open, closed]);
    await docker.must(['pull', '-q', open]);
    assert.match(await docker.refused(['pull', '-q', closed]), /unauthorized|denied/);
    assert.match(await docker.refused(['push', open]), /unauthorized|denied/);
    await docker.must(...login('bob'));
    await docker.must(['pull', '-q', closed]);
    assert.match(await docker.refused(['push', closed]), /unauthorized|denied/);
    await docker.must(['logout', registry.host]);
  });

  test('podman and skopeo: the same', async () => {
    await podman.must('podman', ['pull', '-q', open]);
    assert.match(await podman.refused('podman', ['pull', '-q', closed]), /unauthorized|authentication required|denied/);
    const [bob, secret] = login('bob');
    assert.match(await podman.must('podman', [...bob], secret), /Login Succeeded/);
    await podman.must('podman', ['pull', '-q', closed]);
    assert.match(await podman.refused('podman', ['push', closed]), /unauthorized|authentication required|denied/);
    const [alice, options] = login('alice');
    await podman.must('podman', [...alice], options);
    await podman.must('podman', ['push', '-q', closed]);
    assert.match(await podman.must('skopeo', ['inspect', `docker://${closed}`]), /team\/app/);
    await podman.must('skopeo', ['delete', `docker://${closed}`]);
    assert.match(await podman.refused('skopeo', ['inspect', `docker://${closed}`]), /manifest unknown|unknown/);
  });
});
