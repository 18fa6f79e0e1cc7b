import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { requireTools } from '../support/process.js';
import { program, Registry } from '../support/registry.js';

// The recipes that people have followed for years, with `registry:2` replaced by this program and nothing else changed.
describe('the old recipes', { timeout: 240_000 }, () => {
  let server: Namespace;
  let docker: Docker;

  before(async () => {
    server = await Namespace.create();
    docker = await Docker.start(server);
    const folder = join(server.dir, 'ubuntu');
    writeBuildFolder(folder, [100_000, 10]);
    await docker.build(folder, 'ubuntu:18.04');
  });
  after(() => server?.close());

  /** The commands of the recipe: tag, push, remove, pull; the image must come back as it was. */
  async function copyImage(client: Docker, host: string): Promise<void> {
    const before = await client.imageId('ubuntu:18.04');
    await client.must(['image', 'tag', 'ubuntu:18.04', `${host}/ubuntu:18.04`]);
    await client.must(['image', 'push', `${host}/ubuntu:18.04`]);
    await client.must(['image', 'remove', `${host}/ubuntu:18.04`]);
    await client.must(['image', 'pull', `${host}/ubuntu:18.04`]);
    assert.equal(await client.imageId(`${host}/ubuntu:18.04`), before);
  }

  const login = (host: string) => ['login', '-u', 'admin', '--password-stdin', host];
  const initialPassword = ({ dir }: Registry) => readFileSync(join(dir, 'auth', 'initial-password'), 'utf8').trim();
  const curl = (...args: string[]) => server.must(['curl', '-sS', ...args]);
  const status = ['-o', '/dev/null', '-w', '%{http_code}'];

  describe('curl <docker_registry_host>:<port>', () => {
    let registry: Registry;
    before(async () => {
      registry = await Registry.start(server, ['up', '--addr', `${server.ip}:5000`, '--ip', server.ip], {
        name: 'ping',
      });
    });
    after(() => registry?.stop());

    test('answers over TLS, verified, without a login', async () => {
      const ca = ['--cacert', join(registry.dir, 'certs', 'ca.crt')];
      assert.equal(await curl(...ca, ...status, `https://${registry.host}`), '200');
      assert.equal(await curl(...ca, ...status, `https://${registry.host}/v2/`), '401');
    });

    test('over plain HTTP, as the recipe has it, says to use https', async () => {
      const said = await curl('-w', '%{http_code}', registry.host);
      assert.match(said, /https[\s\S]*400$/i);
    });

    test('its password, made at the first start, logs in', async () => {
      await registry.trust('docker');
      await docker.must(login(registry.host), { input: initialPassword(registry) });
      await copyImage(docker, registry.host);
    });
  });

  describe('a self-signed certificate with an IP address, on port 443', () => {
    let registry: Registry;
    const certs = () => join(server.dir, 'public', 'certs');

    before(async () => {
      const dir = join(server.dir, 'public');
      await server.must(['mkdir', '-p', certs()]);
      await server.must(['cp', '/etc/ssl/openssl.cnf', dir]);
      const sed = [
        's/^# *req_extensions = v3_req.*/req_extensions = v3_req/',
        `/^\\[ v3_ca \\]/a subjectAltName=@alt_names`,
        `$a [alt_names]\\nIP.1 = ${server.ip}`,
      ];
      await server.must(['sed', '-i', ...sed.flatMap(line => ['-e', line]), 'openssl.cnf'], { cwd: dir });
      const make =
        'openssl req -newkey rsa:4096 -nodes -sha256 -keyout certs/domain.key -x509 -days 365 -out certs/domain.crt -config openssl.cnf';
      // Country, state, locality, organisation and unit as offered, then the common name.
      await server.must(make.split(' '), { cwd: dir, input: `\n\n\n\n\n${server.ip}\n\n` });
    });
    after(() => registry?.stop());

    const variables = () => ({
      REGISTRY_HTTP_ADDR: '0.0.0.0:443',
      REGISTRY_HTTP_TLS_CERTIFICATE: join(certs(), 'domain.crt'),
      REGISTRY_HTTP_TLS_KEY: join(certs(), 'domain.key'),
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
      REGISTRY_AUTH_HTPASSWD_PATH: join(server.dir, 'public', 'auth', 'htpasswd'),
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(server.dir, 'public', 'data'),
    });

    test('a plain line in auth/htpasswd is named, and the printed command mends it', async () => {
      const dir = join(server.dir, 'public');
      await server.must(['sh', '-euc', 'mkdir auth && echo "testuser test123" >> auth/htpasswd'], { cwd: dir });
      const said = await server.refused(program('serve'), { cwd: dir, env: variables() });
      assert.match(said, /auth\/htpasswd, line 1\b/);
      assert.doesNotMatch(said, /test123/);
      const [, command] = /registry-secure (user add testuser --file \S+)/.exec(said) ?? assert.fail(said);
      await server.must(program(...command!.split(' '), '--password-stdin'), { input: 'test123\n' });
    });

    test('with the variables as written it serves, and docker trusts what the recipe copies', async () => {
      const dir = join(server.dir, 'public');
      registry = await Registry.start(server, ['serve'], { name: 'public', host: server.ip, env: variables() });
      const challenge = await curl('--cacert', join(certs(), 'domain.crt'), '-I', `https://${server.ip}/v2/`);
      assert.match(challenge, /^www-authenticate: Basic realm="Registry Realm"/im);

      await docker.must(['tag', 'ubuntu:18.04', `${server.ip}/ubuntu`]);
      assert.match(
        await docker.refused(['push', `${server.ip}/ubuntu`]),
        /x509: certificate signed by unknown authority/,
      );
      await server.must(['sudo', 'mkdir', '-p', `/etc/docker/certs.d/${server.ip}`]);
      await server.must(['sudo', 'cp', 'certs/domain.crt', `/etc/docker/certs.d/${server.ip}/ca.crt`], { cwd: dir });
      assert.match(await docker.refused(['push', `${server.ip}/ubuntu`]), /no basic auth credentials/);
      await docker.must(['login', '-u', 'testuser', '--password-stdin', server.ip], { input: 'test123' });
      await copyImage(docker, server.ip);
    });

    test('trust has the client install that very certificate', async () => {
      const installed = join(server.dir, 'etc', 'docker', 'certs.d', server.ip, 'ca.crt');
      writeFileSync(installed, '');
      await registry.trust('docker');
      assert.equal(readFileSync(installed, 'utf8'), readFileSync(join(certs(), 'domain.crt'), 'utf8'));
      await docker.must(['pull', '-q', `${server.ip}/ubuntu:18.04`]);
    });
  });

  describe('an SSH tunnel to a registry that only the server itself can reach', () => {
    let client: Namespace;
    let key: string;
    let known: string;

    before(async () => {
      requireTools('sshd', 'ssh', 'ssh-keygen');
      client = await Namespace.create('192.168.0.13');
      await server.connect('server', client, 'client');
      [key, known] = [join(client.dir, 'key'), join(client.dir, 'known_hosts')];
      const hostKey = join(server.dir, 'host_key');
      for (const [name, path] of [
        ['client', key],
        ['server', hostKey],
      ] as const)
        await server.must(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', path]);
      writeFileSync(known, `server ${readFileSync(`${hostKey}.pub`, 'utf8')}`);
      const config = join(server.dir, 'sshd_config');
      writeFileSync(
        config,
        `ListenAddress ${server.ip}:22
HostKey ${hostKey}
PidFile none
AuthorizedKeysFile ${key}.pub
StrictModes no
UsePAM no
PasswordAuthentication no
`,
      );
      // `!` in the place of a password locks the account for keys too; this is the private copy.
      await server.must(['sed', '-i', 's/^root:!/root:*/', '/etc/shadow']);
      await server.must(['mkdir', '-m', '755', '/run/sshd']);
      const sshd = server.start('sshd', ['/usr/sbin/sshd', '-D', '-e', '-f', config]);
      await sshd.ready(
        async () => (await server.run(['sh', '-c', `ss -ltn | grep -q '${server.ip}:22 '`])).status === 0,
      );
    });
    after(() => client?.close());

    async function tunnel(forward: string, url: string): Promise<void> {
      const options = ['-F', 'none', '-i', key, '-o', `UserKnownHostsFile=${known}`, '-o', 'StrictHostKeyChecking=yes'];
      const argv = ['ssh', ...options, '-o', 'ExitOnForwardFailure=yes', '-N', '-L', forward, 'root@server'];
      await client.start(`ssh-${forward.split(':')[0]}`, argv).ready(() => client.answers(url));
    }

    test('plain HTTP on loopback, only by name; docker pushes and pulls at localhost:5000', async () => {
      const plain = ['serve', '--addr', '127.0.0.1:5000'];
      const registry = await Registry.start(server, [...plain, '--insecure-plain-http'], {
        name: 'tunnelled',
        host: '127.0.0.1:5000',
        scheme: 'http',
      });
      assert.match(registry.daemon.output, /plain HTTP/i);
      assert.equal(await client.answers(`http://${server.ip}:5000/v2/`), false, 'closed to other machines');
      await tunnel('5000:localhost:5000', 'http://localhost:5000/v2/');

      const remote = await Docker.start(client);
      const archive = join(client.dir, 'ubuntu.tar');
      await docker.must(['save', '-o', archive, 'ubuntu:18.04']);
      await remote.must(['load', '-i', archive]);
      await remote.must(login('localhost:5000'), { input: initialPassword(registry) });
      await copyImage(remote, 'localhost:5000');
      await registry.stop();
    });

    test('the same with TLS from end to end, the certificate naming localhost', async () => {
      const up = ['up', '--addr', '127.0.0.1:5443', '--dns', 'localhost', '--ip', '127.0.0.1'];
      const registry = await Registry.start(server, up, { name: 'tunnelled-tls', host: '127.0.0.1:5443' });
      await tunnel('15443:localhost:5443', 'https://localhost:15443/v2/');
      const podman = new Podman(client);
      const layout = `oci:${join(client.dir, 'layout')}`;
      await podman.must('skopeo', ['copy', '-q', `docker-archive:${join(client.dir, 'ubuntu.tar')}`, `${layout}:1`]);
      const target = 'docker://localhost:15443/ubuntu:18.04';
      const input = initialPassword(registry);
      assert.match(await podman.refused('skopeo', login('localhost:15443'), { input }), /unknown authority/);
      const trusted = join(client.dir, 'etc/docker/certs.d/localhost:15443/ca.crt');
      await client.must(['install', '-D', join(registry.dir, 'certs', 'ca.crt'), trusted]);
      await podman.must('skopeo', login('localhost:15443'), { input });
      await podman.must('skopeo', ['copy', '-q', `${layout}:1`, target]);
      await podman.must('skopeo', ['copy', '-q', target, `${layout}:2`]);
      const raw = (reference: string) => podman.must('skopeo', ['inspect', '--raw', reference]);
      assert.equal(await raw(`${layout}:2`), await raw(`${layout}:1`));
    });
  });
});
