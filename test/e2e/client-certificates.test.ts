import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { requireTools } from '../support/process.js';
import { Registry } from '../support/registry.js';

const alice = { user: 'alice', password: 'correct horse battery staple' };
const env = { REGISTRY_HTTP_TLS_CLIENTAUTH: 'require-and-verify-client-cert' };
const REQUIRED = /a client certificate is required/;
const REVOKED = /the client certificate was revoked/;

describe('client certificates, by real clients', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let registry: Registry;
  let docker: Docker;
  let podman: Podman;
  let ctr: (...args: string[]) => string[];
  let image: string;

  before(async () => {
    requireTools('ctr', 'containerd', 'curl', 'openssl', 'certutil', 'pk12util');
    namespace = await Namespace.create();
    const up = ['up', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip, '--user', alice.user, '--password-stdin'];
    [registry, docker] = await Promise.all([
      Registry.start(namespace, up, { input: `${alice.password}\n`, env }),
      Docker.start(namespace),
    ]);
    podman = new Podman(namespace);
    image = `${registry.host}/team/app:1`;
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [10_000, 10]);
    await docker.build(folder, image);

    const dir = join(namespace.dir, 'containerd');
    mkdirSync(dir);
    const config = join(dir, 'config.toml');
    writeFileSync(
      config,
      `version = 2
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "${dir}/s"
[ttrpc]
address = "${dir}/s.ttrpc"
`,
    );
    const daemon = namespace.start('containerd', ['containerd', '-c', config]);
    ctr = (...args) => ['ctr', '-a', join(dir, 's'), '-n', 'test', ...args];
    await daemon.ready(async () => (await namespace.run(ctr('version'))).status === 0);
    for (const client of ['docker', 'podman', 'containerd']) await registry.trust(client);
  });
  after(() => namespace?.close());

  const login = () => ['login', '-u', alice.user, '--password-stdin', registry.host];
  const pullByCtr = () =>
    ctr('images', 'pull', '--hosts-dir', '/etc/containerd/certs.d', '-u', `${alice.user}:${alice.password}`, image);
  const curl = (...args: string[]) =>
    namespace.run(['curl', '-sS', '-w', ' %{http_code}', '--cacert', join(registry.dir, 'certs/ca.crt'), ...args]);

  /** What each client says when it is refused. */
  async function refusals(): Promise<Record<string, string>> {
    return {
      'docker login': await docker.refused(login(), { input: alice.password }),
      'docker push': await docker.refused(['push', image]),
      'docker pull': await docker.refused(['pull', image]),
      'podman login': await podman.refused('podman', login(), { input: alice.password }),
      'podman pull': await podman.refused('podman', ['pull', image]),
      'skopeo inspect': await podman.refused('skopeo', ['inspect', `docker://${image}`]),
      ctr: await namespace.refused(pullByCtr()),
    };
  }

  test('without a certificate each client is refused, and those that show an answer say why', async () => {
    check(await refusals(), REQUIRED);
    const { stdout } = await curl(`https://${registry.host}/v2/`);
    assert.match(stdout, REQUIRED);
    assert.match(stdout, / 403$/);
    // Nothing is served before it: not the health either, although asking for it from inside works.
    assert.match((await curl(`https://${registry.host}/healthz`)).stdout, / 403$/);
    const health = ['health', '--addr', `${namespace.ip}:5000`];
    assert.match(await registry.command(health, { env }), /"ok"/);
  });

  test('with the pair installed as printed, docker, podman, skopeo and containerd push and pull', async () => {
    const printed = await registry.command(['certs', 'client', 'add', 'alice', '--host', registry.host]);
    const commands = printed.slice(printed.indexOf('# On the client'));
    const answer = await namespace.must(['sh', '-euc', commands], { cwd: join(registry.dir, 'certs') });
    // curl comes as far as the login.
    assert.match(answer, /UNAUTHORIZED/);
    assert.match(await docker.must(login(), { input: alice.password }), /Login Succeeded/);
    await docker.must(['push', '-q', image]);
    await docker.must(['image', 'rm', image]);
    await docker.must(['pull', '-q', image]);
    assert.match(await podman.must('podman', login(), { input: alice.password }), /Login Succeeded/);
    await podman.must('podman', ['pull', '-q', image]);
    await podman.must('podman', ['push', '-q', image]);
    await podman.must('skopeo', ['inspect', `docker://${image}`]);
    await namespace.must(pullByCtr());
    const [own] = JSON.parse(await registry.command(['certs', 'client', 'list', '--json']));
    assert.ok(registry.daemon.output.includes(`client=alice serial=${own.serial}`));
  });

  test('curl takes the PKCS#12 file, and so do openssl and NSS', async () => {
    const password = 'for carol only';
    for (const [name, kind] of [
      ['carol', 'modern'],
      ['caroline', 'compatible'],
    ] as const) {
      const add = ['certs', 'client', 'add', name, '--password-stdin', '--p12', kind];
      await registry.command(add, { input: `${password}\n` });
      const file = join(registry.dir, 'certs/clients', `${name}.p12`);
      const { stdout, stderr } = await curl(
        ...['--cert-type', 'P12', '--cert', `${file}:${password}`, `https://${registry.host}/v2/`],
      );
      assert.match(stdout, /UNAUTHORIZED.* 401$/, stderr);

      const secret = ['-passin', 'stdin'];
      const read = (...args: string[]) =>
        namespace.must(['openssl', 'pkcs12', '-in', file, ...args, ...secret], { input: `${password}\n` });
      const info = await namespace.run(['openssl', 'pkcs12', '-in', file, '-info', '-noout', ...secret], {
        input: `${password}\n`,
      });
      assert.match(
        info.stderr,
        kind === 'modern'
          ? /MAC: sha256, Iteration 100000[\s\S]*PBES2, PBKDF2, AES-256-CBC, Iteration 100000, PRF hmacWithSHA256/
          : /MAC: sha1, Iteration 2048[\s\S]*pbeWithSHA1And3-KeyTripleDES-CBC/,
      );
      const key = createPrivateKey(await read('-nocerts', '-noenc'));
      const leaf = new X509Certificate(await read('-clcerts', '-nokeys'));
      assert.ok(leaf.checkPrivateKey(key));
      assert.equal(leaf.subject, `CN=${name}`);
      const authority = new X509Certificate(await read('-cacerts', '-nokeys'));
      assert.ok(leaf.verify(authority.publicKey));
      assert.equal(
        (await namespace.run(['openssl', 'pkcs12', '-in', file, '-noout', '-passin', 'pass:wrong'])).status,
        1,
      );

      const database = join(namespace.dir, `nss-${name}`);
      const words = join(namespace.dir, `${name}.password`);
      mkdirSync(database);
      writeFileSync(words, password);
      await namespace.must(['certutil', '-N', '-d', `sql:${database}`, '--empty-password']);
      await namespace.must(['pk12util', '-i', file, '-d', `sql:${database}`, '-w', words]);
      // `u,u,u`: NSS has the key of it as well.
      assert.match(
        await namespace.must(['certutil', '-L', '-d', `sql:${database}`]),
        new RegExp(`^${name} +u,u,u`, 'm'),
      );
    }
  });

  test('a server certificate of the registry itself is none for a client', async () => {
    const [cert, key] = ['domain.crt', 'domain.key'].map(file => join(registry.dir, 'certs', file));
    const { stdout } = await curl('--cert', cert!, '--key', key!, `https://${registry.host}/v2/`);
    assert.match(stdout, /was not signed by an authority.* 403$/);
  });

  test('revoked, the same pair is refused by all of them, and openssl agrees', async () => {
    const files = ['crl.pem', 'ca.crt', 'alice.crt'].map(file => join(registry.dir, 'certs/clients', file));
    const [crl, ca, own] = files as [string, string, string];
    const verify = ['openssl', 'verify', '-x509_strict', '-purpose', 'sslclient', '-crl_check', '-CAfile', ca];
    await namespace.must([...verify, '-CRLfile', crl, own]);
    await registry.command(['certs', 'client', 'revoke', 'alice', '--reason', 'keyCompromise']);
    const told = await namespace.must(['openssl', 'crl', '-in', crl, '-noout', '-text', '-verify', '-CAfile', ca]);
    assert.match(told, /Version 2[\s\S]*X509v3 Authority Key Identifier[\s\S]*X509v3 CRL Number[\s\S]*Key Compromise/);
    assert.match(await namespace.refused([...verify, '-CRLfile', crl, own]), /certificate revoked/);

    const pair = ['--cert', own, '--key', own.replace(/crt$/, 'key')];
    const deadline = Date.now() + 60_000;
    while (!REVOKED.test((await curl(...pair, `https://${registry.host}/v2/`)).stdout))
      assert.ok(Date.now() < deadline);
    check(await refusals(), REVOKED);
    assert.match((await curl(...pair, `https://${registry.host}/v2/`)).stdout, REVOKED);
  });

  test('added again, a client is let in again', async () => {
    const printed = await registry.command(['certs', 'client', 'add', 'alice', '--host', registry.host]);
    const commands = printed.slice(printed.indexOf('# On the client'));
    await namespace.must(['sh', '-euc', commands], { cwd: join(registry.dir, 'certs') });
    await docker.must(['pull', '-q', image]);
    await podman.must('podman', ['pull', '-q', image]);
    await namespace.must(pullByCtr());
  });
});

/** podman and skopeo of this age, and docker's login, show the status of an answer and nothing else of it. */
function check(refusals: Record<string, string>, reason: RegExp): void {
  for (const [client, said] of Object.entries(refusals))
    assert.match(said, /docker login|podman|skopeo/.test(client) ? /403/ : reason, client);
}
