import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { startChromium } from '../support/chromium.js';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { requireTools } from '../support/process.js';
import { program, Registry } from '../support/registry.js';

const alice = { user: 'alice', password: 'correct horse battery staple' };
const UNKNOWN = /certificate signed by unknown authority/;

// What is printed for each client is executed as printed, and then the real client has to trust the registry.
describe('trust, by real clients', { timeout: 600_000 }, () => {
  let machine: Namespace;
  let registry: Registry;
  let docker: Docker;
  let image: string;
  let sha256: string;
  let ca: string;

  before(async () => {
    requireTools('curl', 'openssl', 'certutil', 'keytool', 'busybox', 'update-ca-certificates');
    machine = await Namespace.create();
    // The store of this machine is not the test's to change; /etc is the namespace's own already.
    const store = join(machine.dir, 'local-certificates');
    mkdirSync(store);
    await machine.must(['mount', '--bind', store, '/usr/local/share/ca-certificates']);
    const up = ['up', '--addr', `${machine.ip}:5000`, '--ip', machine.ip, '--user', alice.user, '--password-stdin'];
    [registry, docker] = await Promise.all([
      Registry.start(machine, up, { input: `${alice.password}\n` }),
      Docker.start(machine),
    ]);
    ca = join(registry.dir, 'certs/ca.crt');
    sha256 = createHash('sha256').update(readFileSync(ca)).digest('hex');
    image = `${registry.host}/team/app:1`;
    const folder = join(machine.dir, 'build');
    writeBuildFolder(folder, [1_000, 10]);
    await docker.build(folder, image);
  });
  after(() => machine?.close());

  const login = (): [string[], { input: string }] => [
    ['login', '-u', alice.user, '--password-stdin', registry.host],
    { input: alice.password },
  ];
  const undo = async (client: string) => {
    const { undo } = await registry.instructions(client);
    await machine.must(['sh', '-euc', undo.join('\n')], { cwd: registry.dir });
  };
  /** The program on a client: nothing of the registry's folder is there. */
  const client = (...args: string[]) => {
    const cwd = mkdtempSync(join(machine.dir, 'client-'));
    return machine.run(program('trust', ...args), { cwd });
  };

  test('docker: one line, pasted where nothing is; with another SHA-256 it installs nothing', async () => {
    assert.match(await docker.refused(...login()), UNKNOWN);
    const { line } = await registry.instructions('docker');
    const cwd = mkdtempSync(join(machine.dir, 'client-'));
    const forged = line.replace(
      sha256,
      sha256.replace(/./g, digit => (digit === '0' ? '1' : '0')),
    );
    assert.match(await machine.refused(['sh', '-c', forged], { cwd }), /ca\.crt: FAILED/);
    assert.match(await docker.refused(...login()), UNKNOWN);
    await machine.must(['sh', '-c', line], { cwd });
    assert.deepEqual(readdirSync(cwd), []);
    assert.match(await docker.must(...login()), /Login Succeeded/);
    await docker.must(['push', '-q', image]);
    await undo('docker');
    assert.match(await docker.refused(...login()), UNKNOWN);
  });

  test('trust install finds the clients of the machine, and trust remove leaves them as they were', async () => {
    const wrong = await client('install', registry.host, '--fingerprint', 'ab'.repeat(32));
    assert.equal(wrong.status, 1);
    assert.ok(wrong.stderr.includes(sha256) && wrong.stderr.includes('ab'.repeat(32)), wrong.stderr);
    assert.match(await docker.refused(...login()), UNKNOWN);
    const { status, stdout, stderr } = await client('install', registry.host, '--fingerprint', sha256, '--json');
    assert.deepEqual([status, stderr], [0, '']);
    const clients: { client: string; changes: { action: string }[] }[] = JSON.parse(stdout).clients;
    for (const name of ['docker', 'podman', 'containerd'])
      assert.ok(
        clients.some(({ client }) => client === name),
        name,
      );
    assert.ok(!stdout.includes('update-ca-certificates'));
    assert.match(await docker.must(...login()), /Login Succeeded/);
    const again = JSON.parse((await client('install', registry.host, '--fingerprint', sha256, '--json')).stdout);
    for (const { changes } of again.clients as typeof clients)
      assert.ok(changes.every(({ action }) => action === 'unchanged'));
    assert.equal((await client('remove', registry.host)).status, 0);
    assert.match(await docker.refused(...login()), UNKNOWN);
    for (const folder of ['docker', 'containers', 'containerd'])
      assert.ok(!existsSync(join(machine.dir, 'etc', folder, 'certs.d', registry.host)), folder);
  });

  test("dockerd's own BuildKit trusts it from its next start on, as is printed", async () => {
    const { restart } = await registry.trust('docker');
    assert.match(restart, /builds with FROM this registry need one/);
    await docker.must(...login());
    await docker.must(['push', '-q', image]);
    await docker.must(['image', 'rm', image]);
    const second = await Docker.start(machine, { name: 'after' });
    const folder = join(machine.dir, 'from');
    mkdirSync(folder);
    writeFileSync(join(folder, 'Dockerfile'), `FROM ${image}\nLABEL a=b\n`);
    await second.must(...login());
    // Debian's client has BuildKit in it; a newer one wants a plug-in.
    const env = {
      DOCKER_BUILDKIT: '1',
      DOCKER_HOST: `unix://${join(second.dir, 's')}`,
      DOCKER_CONFIG: join(second.dir, 'client'),
    };
    await machine.must(['/usr/bin/docker', 'build', '-t', 'local/from', folder], { env });
    await second.daemon.stop();
    await undo('docker');
  });

  test('docker, rootless: its daemon reads the folder of the user', async () => {
    // What tells dockerd that it is rootless; a user namespace it does not look for.
    const [state, run] = ['rootless-state', 'rootless-run'].map(name => join(machine.dir, name)) as [string, string];
    for (const folder of [state, run]) mkdirSync(folder);
    // It asks whether this is there, and without a network of containers never starts it.
    writeFileSync(join(machine.dir, 'bin/rootlesskit-docker-proxy'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const env = {
      ROOTLESSKIT_STATE_DIR: state,
      XDG_RUNTIME_DIR: run,
      XDG_CONFIG_HOME: join(machine.home, 'configuration'),
    };
    const rootless = await Docker.start(machine, { name: 'rootless', env });
    assert.match(await rootless.refused(...login()), UNKNOWN);
    await registry.trust('docker-rootless', { env });
    assert.match(await rootless.must(...login()), /Login Succeeded/);
    await rootless.daemon.stop();
  });

  test('podman, skopeo and buildah: the folder of the user, also where Go is told by SSL_CERT_FILE', async () => {
    const podman = new Podman(machine);
    const list = ['list-tags', '--creds', `${alice.user}:${alice.password}`, `docker://${registry.host}/team/app`];
    assert.match(await podman.refused('skopeo', list), UNKNOWN);
    const { commands } = await registry.instructions('crane');
    const [, variable, file] = /^(SSL_CERT_FILE)=(\S+) /.exec(commands[0]!)!;
    await podman.must('skopeo', list, { env: { [variable!]: file! } });
    await registry.trust('podman-user');
    await podman.must('skopeo', list);
    const loginTo = ['login', '-u', alice.user, '--password-stdin', registry.host];
    await podman.must('podman', loginTo, { input: alice.password });
    await podman.must('buildah', loginTo, { input: alice.password });
    // The first folder that is there is used, even when it is empty: so it has to go with the file.
    await registry.trust('podman');
    await undo('podman-user');
    await podman.must('skopeo', list);
    await undo('podman');
    assert.match(await podman.refused('skopeo', list), UNKNOWN);
  });

  test("Debian's store: curl and openssl trust it with no option, and no longer after undo", async () => {
    const url = `https://${registry.host}/healthz`;
    assert.match(await machine.refused(['curl', '-sS', url]), /unable to get local issuer/);
    const { line } = await registry.instructions('system-debian');
    await machine.must(['sh', '-c', line]);
    await machine.must(['curl', '-sS', '--fail', url]);
    const verified = await machine.must([
      'sh',
      '-c',
      `openssl s_client -connect ${registry.host} -verify_return_error </dev/null`,
    ]);
    assert.match(verified, /Verify return code: 0 \(ok\)/);
    await undo('system-debian');
    assert.match(await machine.refused(['curl', '-sS', url]), /unable to get local issuer/);
    // The same by the program.
    const installed = await client(
      'install',
      registry.host,
      '--fingerprint',
      sha256,
      '--client',
      'system-debian,docker',
    );
    assert.match(installed.stdout, /^ {2}ran: sudo update-ca-certificates$/m);
    await machine.must(['curl', '-sS', '--fail', url]);
    assert.match((await client('remove', registry.host)).stdout, /^ {2}ran: sudo update-ca-certificates$/m);
    assert.match(await machine.refused(['curl', '-sS', url]), /unable to get local issuer/);
  });

  test("Firefox's store takes it: the same kind of store has Chromium trust the page", async () => {
    const profiles = join(machine.home, '.mozilla/firefox');
    mkdirSync(profiles, { recursive: true });
    const url = `https://${registry.host}/trust`;
    const refusing = await startChromium(machine);
    const page = await refusing.newPage();
    await assert.rejects(page.goto(url), /ERR_CERT_AUTHORITY_INVALID/);
    await refusing.close();
    symlinkSync(join(machine.dir, 'chromium/.pki/nssdb'), join(profiles, 'abc.default-esr'));
    mkdirSync(join(profiles, 'Crash Reports'));
    await registry.trust('firefox');
    const trusting = await startChromium(machine, { made: true });
    await (await trusting.newPage()).goto(url);
    await trusting.close();
    await undo('firefox');
    const again = await startChromium(machine, { made: true });
    await assert.rejects((await again.newPage()).goto(url), /ERR_CERT_AUTHORITY_INVALID/);
    await again.close();
  });

  test("Java's store: its own TLS trusts the registry", async () => {
    const home = join(machine.dir, 'java');
    const env = { JAVA_HOME: home };
    const store = join(home, 'lib/security/cacerts');
    mkdirSync(join(home, 'lib/security'), { recursive: true });
    copyFileSync('/etc/ssl/certs/java/cacerts', store);
    // keytool fetches by HTTPS like any program in Java; what it gets is no list of revocations, which is another error.
    const fetch = [
      'keytool',
      '-printcrl',
      `-J-Djavax.net.ssl.trustStore=${store}`,
      '-file',
      `https://${registry.host}/healthz`,
    ];
    assert.match(await machine.refused(fetch), /PKIX path building failed/);
    const { undo } = await registry.trust('java', { env });
    assert.doesNotMatch(await machine.refused(fetch), /PKIX|SSL/);
    await machine.must(['sh', '-euc', undo.join('\n')], { env });
    assert.match(await machine.refused(fetch), /PKIX path building failed/);
  });

  test('Kubernetes: what runs on each node, in a container as the manifest has it, makes containerd trust it', async () => {
    const { commands } = await registry.instructions('kubernetes');
    const manifest = /^kubectl apply -f - <<'EOF'\n([\s\S]*)\nEOF$/.exec(commands[0]!)![1]!;
    const documents = parseAllDocuments(manifest, { strict: true }).map(document => {
      assert.deepEqual([document.errors, document.warnings], [[], []]);
      return document.toJS();
    });
    const [, config, daemons] = documents;
    const [install] = daemons.spec.template.spec.initContainers;
    const trust = join(machine.dir, 'config-map');
    mkdirSync(trust);
    for (const [name, text] of Object.entries<string>(config.data)) writeFileSync(join(trust, name), text);

    // The smallest image with a shell.
    const root = join(machine.dir, 'busybox');
    mkdirSync(join(root, 'bin'), { recursive: true });
    const busybox = (await machine.must(['sh', '-c', 'command -v busybox'])).trim();
    copyFileSync(busybox, join(root, 'bin/busybox'));
    for (const name of ['sh', 'mkdir', 'cat', 'mv', 'sleep']) symlinkSync('busybox', join(root, 'bin', name));
    await docker.recipe(`tar -C ${root} -c . | docker import - local/busybox`);
    const node = join(machine.dir, 'etc/containerd/certs.d');
    mkdirSync(node, { recursive: true });
    const { securityContext, command } = install;
    assert.deepEqual(
      [securityContext.readOnlyRootFilesystem, securityContext.capabilities, securityContext.allowPrivilegeEscalation],
      [true, { drop: ['ALL'] }, false],
    );
    const limits = [
      '--read-only',
      '--cap-drop=ALL',
      '--security-opt=no-new-privileges',
      '--network=none',
      `--user=${securityContext.runAsUser}`,
    ];
    const run = [
      'run',
      '--rm',
      ...limits,
      '-v',
      `${node}:/certs.d`,
      '-v',
      `${trust}:/trust:ro`,
      'local/busybox',
      ...command,
    ];
    for (let times = 0; times < 2; times++) await docker.must(run);
    const { commands: own } = await registry.instructions('containerd');
    assert.ok(own[1]!.includes(readFileSync(join(node, registry.host, 'hosts.toml'), 'utf8')));
    assert.deepEqual(readdirSync(join(node, registry.host)).sort(), ['ca.crt', 'hosts.toml']);
    assert.equal(readFileSync(join(node, registry.host, 'ca.crt'), 'utf8'), readFileSync(ca, 'utf8'));

    const socket = join(docker.dir, 'exec/containerd/containerd.sock');
    const pull = (hosts: string) => [
      'ctr',
      '-a',
      socket,
      '-n',
      't',
      'images',
      'pull',
      '--hosts-dir',
      hosts,
      '-u',
      `${alice.user}:${alice.password}`,
      image,
    ];
    assert.match(await machine.refused(pull(machine.dir)), UNKNOWN);
    await machine.must(pull('/etc/containerd/certs.d'));
    // The folder of a user, as nerdctl reads it.
    await machine.must(['ctr', '-a', socket, '-n', 't', 'images', 'rm', '--sync', image]);
    await registry.trust('containerd-rootless');
    await machine.must(pull(join(machine.home, '.config/containerd/certs.d')));
  });
});
