import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { copyCheckout } from '../support/checkout.js';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { provideBaseImage } from '../support/own-image.js';
import { shellBlocks } from '../support/readme.js';
import { program } from '../support/registry.js';

/** The user that the image takes for a volume of nobody's. */
const SERVICE = 65532;

// The image under test carries the name of the one whose place it takes, so that the old recipes run as they are.
describe('the container image', { timeout: 900_000 }, () => {
  let machine: Namespace;
  let docker: Docker;
  let checkout: string;
  let folder: string;
  let number = 0;

  before(async () => {
    machine = await Namespace.create();
    await machine.must(['mount', '-t', 'tmpfs', 'mnt', '/mnt']);
    docker = await Docker.start(machine, { bridge: true });
    await provideBaseImage(docker);
    checkout = join(machine.dir, 'checkout');
    copyCheckout(checkout);
    // A build that the daemon has cached takes no time when the README asks for it again.
    await docker.must(['build', '--network', 'none', '-t', 'registry:2', '.'], { cwd: checkout, timeout: 300_000 });
    const build = join(machine.dir, 'ubuntu');
    writeBuildFolder(build, [100_000, 10]);
    await docker.build(build, 'ubuntu:18.04');
  });
  after(() => machine?.close());
  afterEach(async () => {
    const containers = (await docker.must(['ps', '-aq'])).split('\n').filter(Boolean);
    if (containers.length > 0) await docker.must(['rm', '-fv', ...containers]);
  });

  /** A working directory of a test's own. */
  function workFolder(): string {
    folder = join(machine.dir, `work${number++}`);
    mkdirSync(folder);
    return folder;
  }

  const logs = async (name: string) => {
    const { stdout, stderr } = await docker.run(['logs', name]);
    return stdout + stderr;
  };
  const isRunning = async (name: string) =>
    (await docker.must(['inspect', '-f', '{{.State.Running}}', name])).trim() === 'true';

  async function until(what: string, name: string, condition: () => Promise<boolean>): Promise<void> {
    for (const deadline = Date.now() + 120_000; !(await condition()); await pause(100))
      if (Date.now() > deadline || !(await isRunning(name))) assert.fail(`${what}: not so\n${await logs(name)}`);
  }

  /** Each process looks at the files by itself: waits until all of them have read this one as it is now. */
  async function allHaveRead(name: string, what: string, file: string): Promise<void> {
    const { ctimeMs } = statSync(file);
    const line = new RegExp(`^time=(\\S+) .*msg="reloaded the ${what}"(?:.* worker=(\\d+))?`, 'gm');
    await until(`all have read ${file}`, name, async () => {
      const read = [...(await logs(name)).matchAll(line)].filter(([, time]) => Date.parse(time!) >= ctimeMs);
      return new Set(read.map(([, , worker]) => worker)).size === Math.max(1, (await workers(name)).length);
    });
  }

  /** Runs the lines of a recipe and waits until the container listens. */
  async function start(name: string, lines: string): Promise<void> {
    await docker.recipe(lines, { cwd: folder });
    await listening(name);
  }

  async function listening(name: string): Promise<void> {
    await until('listening', name, async () => {
      const said = await logs(name);
      return /msg=listening/.test(said) && (/all workers serve/.test(said) || (await workers(name)).length === 0);
    });
  }

  /** The processes that the first one has started; none where it serves alone. */
  async function workers(name: string): Promise<string[]> {
    return (await docker.must(['exec', name, 'cat', '/proc/1/task/1/children'])).split(' ').filter(Boolean);
  }

  /** Whose a process is: the first one unless told. */
  async function ownerOf(
    name: string,
    process = '1',
  ): Promise<{ uid: number; gid: number; groups: number[]; capabilities: string }> {
    const status = await docker.must(['exec', name, 'cat', `/proc/${process}/status`]);
    const field = (title: string) => new RegExp(`^${title}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(status)![1]!;
    const ids = (title: string) => {
      const [real, ...others] = field(title).split(/\s+/).map(Number);
      assert.deepEqual(others, [real, real, real], title);
      return real!;
    };
    const gid = ids('Gid');
    const groups = field('Groups').split(/\s+/).filter(Boolean).map(Number);
    return { uid: ids('Uid'), gid, groups: groups.filter(group => group !== gid), capabilities: field('CapEff') };
  }

  /** That all who face the network are a user's, for good. */
  async function assertUnprivileged(name: string, uid: number, gid = uid): Promise<void> {
    const expected = { uid, gid, groups: [], capabilities: '0'.repeat(16) };
    // One that is only starting is still who started it, and faces nobody.
    await until(`user ${uid}`, name, async () => {
      const started = await workers(name);
      const owners = (started.length > 0 ? started : ['1']).map(process =>
        ownerOf(name, process).catch(() => undefined),
      );
      return (await Promise.all(owners)).every(owner => isDeepStrictEqual(owner, expected));
    });
  }

  /** The commands of the recipes: tag, push, remove, pull; the image must come back as it was. */
  async function copyImage(host: string): Promise<void> {
    const before = await docker.imageId('ubuntu:18.04');
    await docker.recipe(`
docker image tag ubuntu:18.04 ${host}/ubuntu:18.04
docker image push ${host}/ubuntu:18.04
docker image remove ${host}/ubuntu:18.04
docker image pull ${host}/ubuntu:18.04`);
    assert.equal(await docker.imageId(`${host}/ubuntu:18.04`), before);
  }

  async function login(host: string, user: string, password: string): Promise<void> {
    await docker.must(['login', '-u', user, '--password-stdin', host], { input: password });
  }

  const initialPassword = async (name: string) =>
    (await docker.must(['exec', name, 'cat', '/auth/initial-password'])).trim();

  /** Trusts what the recipes copy, on this machine. */
  async function trust(host: string, certificate: string): Promise<void> {
    await machine.must(['install', '-D', '-m', '644', certificate, `/etc/docker/certs.d/${host}/ca.crt`]);
  }

  /** The self-signed certificate of the second recipe, made anew; its key is root's alone. */
  async function selfSigned(): Promise<void> {
    mkdirSync(join(folder, 'certs'), { recursive: true });
    const make =
      'openssl req -newkey rsa:2048 -nodes -sha256 -x509 -days 365 -keyout certs/domain.key -out certs/domain.crt';
    const names = ['-subj', `/CN=${machine.ip}`, '-addext', `subjectAltName=IP:${machine.ip}`];
    await machine.must([...make.split(' '), ...names], { cwd: folder });
    chmodSync(join(folder, 'certs', 'domain.key'), 0o600);
  }

  test('as the README has it, in the folder of the checkout', async () => {
    const [build, password, old] = shellBlocks().get('As a container') as string[];
    folder = checkout;
    await start('registry', build!);
    await assertUnprivileged('registry', SERVICE);
    const shown = docker.recipe(`script -qec '${password!.trim().replaceAll('\n', ' && ')}' /dev/null`, {
      cwd: folder,
      input: 'a word of alice\na word of alice\n',
    });
    assert.match(await shown, /user "alice" added/);
    await trust('192.168.0.12:5000', join(folder, 'certs', 'ca.crt'));
    await login('192.168.0.12:5000', 'admin', readFileSync(join(folder, 'auth', 'initial-password'), 'utf8').trim());
    await copyImage('192.168.0.12:5000');
    await allHaveRead('registry', 'htpasswd file', join(folder, 'auth', 'htpasswd'));
    await login('192.168.0.12:5000', 'alice', 'a word of alice');

    await start('registry-443', old!);
    await assertUnprivileged('registry-443', SERVICE);
    await trust('192.168.0.12', join(folder, 'certs', 'ca.crt'));
    await login('192.168.0.12', 'alice', 'a word of alice');
    await copyImage('192.168.0.12');
  });

  test('as the recipe starts it: a bind mount, port 5000; push, remove, pull; stopped, it drains and ends with 0', async () => {
    workFolder();
    await start(
      'local-registry',
      `docker container run -d \\
  -p 5000:5000 \\
  --restart=always \\
  --name local-registry \\
  --volume /mnt/registry:/var/lib/registry \\
  registry:2`,
    );
    await assertUnprivileged('local-registry', SERVICE);
    assert.match(
      await logs('local-registry'),
      /good for localhost, .* alone and the addresses of this container say nothing/,
    );
    for (const file of ['/certs/domain.key', '/certs/ca.key', '/auth/htpasswd', '/auth/initial-password'])
      assert.equal(
        await docker.must(['exec', 'local-registry', 'stat', '-c', '%u %a', file]),
        `${SERVICE} 600\n`,
        file,
      );
    await login('localhost:5000', 'admin', await initialPassword('local-registry'));
    await copyImage('localhost:5000');
    assert.equal((await machine.must(['stat', '-c', '%u', '/mnt/registry/docker'])).trim(), `${SERVICE}`);
    for (const state of ['on', 'off'])
      await docker.must(['exec', 'local-registry', 'registry-secure', 'maintenance', state]);
    const cron = 'docker exec local-registry bin/registry garbage-collect /etc/docker/registry/config.yml';
    await docker.recipe(cron);
    await docker.must(['image', 'rm', 'localhost:5000/ubuntu:18.04']);
    await docker.must(['image', 'pull', '-q', 'localhost:5000/ubuntu:18.04']);
    const foreign = ['find', '/mnt/registry', '!', '-uid', `${SERVICE}`];
    assert.equal(
      await machine.must(foreign),
      '',
      'also what root does by docker exec is done as the owner of the volume',
    );
    await docker.must(['container', 'stop', '--time', '100', 'local-registry']);
    assert.match(await logs('local-registry'), /msg="stopping/);
    assert.equal(await docker.must(['inspect', '-f', '{{.State.ExitCode}}', 'local-registry']), '0\n');

    await docker.must(['container', 'start', 'local-registry']);
    await until(
      'listening again',
      'local-registry',
      async () => (await logs('local-registry')).split('msg=listening').length > 2,
    );
    await assertUnprivileged('local-registry', SERVICE);
    await docker.must(['image', 'pull', '-q', 'localhost:5000/ubuntu:18.04']);
  });

  test('the recipe for TLS on 443, with root’s own key: read, never served as root, reloaded once it may be', async () => {
    workFolder();
    await selfSigned();
    await start(
      'registry',
      `docker container run -d \\
  --restart=always \\
  --name registry \\
  --volume "$(pwd)"/certs:/certs \\
  -e REGISTRY_HTTP_ADDR=0.0.0.0:443 \\
  -e REGISTRY_HTTP_TLS_CERTIFICATE=/certs/domain.crt \\
  -e REGISTRY_HTTP_TLS_KEY=/certs/domain.key \\
  -p 443:443 \\
  --health-interval=1s \\
  registry:2`,
    );
    await assertUnprivileged('registry', SERVICE);
    await trust(machine.ip, join(folder, 'certs', 'domain.crt'));
    await login(machine.ip, 'admin', await initialPassword('registry'));
    await copyImage(machine.ip);
    await until('healthy', 'registry', async () => {
      return (await docker.must(['inspect', '-f', '{{.State.Health.Status}}', 'registry'])).trim() === 'healthy';
    });

    assert.match(
      await logs('registry'),
      /\/certs\/domain\.key may not be read by user 65532.*chown 65532 \/certs\/domain\.key/,
    );
    const old = readFileSync(join(folder, 'certs', 'domain.crt'), 'utf8');
    await selfSigned();
    await until('kept', 'registry', async () => /kept the old certificate.*domain\.key/.test(await logs('registry')));
    await docker.must(['pull', '-q', `${machine.ip}/ubuntu:18.04`]);
    chownSync(join(folder, 'certs', 'domain.key'), SERVICE, SERVICE);
    await allHaveRead('registry', 'certificate', join(folder, 'certs', 'domain.key'));
    assert.match(await docker.refused(['pull', `${machine.ip}/ubuntu:18.04`]), /x509/);
    await trust(machine.ip, join(folder, 'certs', 'domain.crt'));
    assert.notEqual(readFileSync(join(folder, 'certs', 'domain.crt'), 'utf8'), old);
    await docker.must(['pull', '-q', `${machine.ip}/ubuntu:18.04`]);
  });

  test('the recipe for users, with root’s own password file; the realm is the one that is given', async () => {
    workFolder();
    await selfSigned();
    await machine.must(program('user', 'add', 'testuser', '--password-stdin'), { cwd: folder, input: 'test123' });
    assert.equal(statSync(join(folder, 'auth', 'htpasswd')).mode & 0o777, 0o600);
    await start(
      'registry',
      `docker container run -d \\
  -p 5000:5000 \\
  --restart=always \\
  --name registry \\
  --volume "$(pwd)"/auth:/auth \\
  -e "REGISTRY_AUTH=htpasswd" \\
  -e "REGISTRY_AUTH_HTPASSWD_REALM=Registry Realm" \\
  --volume "$(pwd)"/certs:/certs \\
  -e REGISTRY_HTTP_TLS_CERTIFICATE=/certs/domain.crt \\
  -e REGISTRY_HTTP_TLS_KEY=/certs/domain.key \\
  registry:2`,
    );
    await assertUnprivileged('registry', SERVICE);
    const challenge = await machine.must(['curl', '-skI', 'https://localhost:5000/v2/']);
    assert.match(challenge, /^www-authenticate: Basic realm="Registry Realm"/im);
    await login('localhost:5000', 'testuser', 'test123');
    await copyImage('localhost:5000');

    // Changed from inside, the file stays its owner's, and counts at once where it may be read.
    chownSync(join(folder, 'auth', 'htpasswd'), SERVICE, SERVICE);
    await docker.must(['exec', '-i', 'registry', 'registry-secure', 'user', 'add', 'second', '--password-stdin'], {
      input: 'test456',
    });
    assert.equal(statSync(join(folder, 'auth', 'htpasswd')).uid, SERVICE);
    await allHaveRead('registry', 'htpasswd file', join(folder, 'auth', 'htpasswd'));
    await login('localhost:5000', 'second', 'test456');
  });

  test('the recipe for a service of a swarm: real secrets, a constraint, a bind mount', async () => {
    workFolder();
    await selfSigned();
    await machine.must(['mkdir', '-p', '/mnt/registry-of-the-swarm']);
    await docker.must(['swarm', 'init', '--advertise-addr', machine.ip]);
    const node = (await docker.must(['node', 'ls', '-q'])).trim();
    // As printed, but for the slips of the pen and what this machine lacks: IPVS in its kernel, which a port of the whole
    // swarm needs, so the port is the host's (mode=host); a network, so no digest is looked up; the recipe's host name.
    await docker.recipe(
      `docker secret create domain.crt certs/domain.crt
docker secret create domain.key certs/domain.key
docker node update --label-add registry=true ${node}
docker service create --detach=false --quiet --no-resolve-image \\
  --name registry \\
  --secret domain.crt \\
  --secret domain.key \\
  --constraint 'node.labels.registry==true' \\
  --mount source=/mnt/registry-of-the-swarm,destination=/var/lib/registry,type=bind \\
  -e REGISTRY_HTTP_ADDR=0.0.0.0:443 \\
  -e REGISTRY_HTTP_TLS_CERTIFICATE=/run/secrets/domain.crt \\
  -e REGISTRY_HTTP_TLS_KEY=/run/secrets/domain.key \\
  --publish mode=host,published=443,target=443 \\
  --replicas 1 \\
  registry:2`,
      { cwd: folder },
    );
    const container = (
      await docker.must(['ps', '-q', '--filter', 'label=com.docker.swarm.service.name=registry'])
    ).trim();
    await listening(container);
    await assertUnprivileged(container, SERVICE);
    assert.match(
      await logs(container),
      /level=warn msg="\/run\/secrets\/domain\.key can be read by others \(mode 0444\)/,
    );
    await trust(machine.ip, join(folder, 'certs', 'domain.crt'));
    await login(machine.ip, 'admin', await initialPassword(container));
    await copyImage(machine.ip);
    await docker.must(['service', 'rm', 'registry']);
    await docker.must(['swarm', 'leave', '--force']);
  });

  test('a volume that registry:2 has written to as root is served by root, with the way out; once given away, by its owner', async () => {
    workFolder();
    const data = '/mnt/old';
    const run = `docker run -d --name registry -p 5000:5000 -v ${data}:/var/lib/registry`;
    await start('registry', `${run} -e REGISTRY_SECURE_USER= registry:2`);
    await login('localhost:5000', 'admin', await initialPassword('registry'));
    await copyImage('localhost:5000');
    await docker.must(['rm', '-fv', 'registry']);

    await start('registry', `${run} registry:2`);
    assert.equal((await ownerOf('registry')).uid, 0);
    const warned = await logs('registry');
    assert.match(warned, /level=warn msg="running as root.*belongs to root.*chown -R 65532:65532/);
    await docker.must(['rm', '-fv', 'registry']);

    // A folder that its user made for registry:2: the top is the user's, the content root's.
    await machine.must(['chown', '1000:1000', data]);
    await start('registry', `${run} registry:2`);
    assert.equal((await ownerOf('registry')).uid, 0);
    assert.match(await logs('registry'), /the users 0 and 1000;.*chown -R 1000:1000/);
    await docker.must(['rm', '-fv', 'registry']);

    await machine.must(['chown', '-R', '1000:1000', data]);
    await start('registry', `${run} registry:2`);
    await assertUnprivileged('registry', 1000);
    await login('localhost:5000', 'admin', await initialPassword('registry'));
    await docker.must(['image', 'rm', 'localhost:5000/ubuntu:18.04']);
    await docker.must(['pull', '-q', 'localhost:5000/ubuntu:18.04']);
  });

  test('as many processes as the container may use of cores and memory, unless told', async () => {
    workFolder();
    for (const [limits, expected] of [
      ['--cpus 0.5', 0],
      ['--memory 250m', 0],
      ['--cpus 1.5', Math.min(2, availableParallelism())],
      ['--cpus 1 -e REGISTRY_WORKERS=3', 3],
    ] as const) {
      await start('registry', `docker run -d --name registry ${limits} registry:2`);
      // One serves by itself, without another to start it.
      assert.equal((await workers('registry')).length, expected === 1 ? 0 : expected, limits);
      await docker.must(['rm', '-fv', 'registry']);
    }
  });

  test('a key that only root may read is there for the worker that takes the place of another', async () => {
    workFolder();
    await selfSigned();
    await start(
      'registry',
      `docker run -d --name registry -v "$(pwd)"/certs:/certs -e REGISTRY_WORKERS=2 \\
  -e REGISTRY_HTTP_TLS_CERTIFICATE=/certs/domain.crt -e REGISTRY_HTTP_TLS_KEY=/certs/domain.key registry:2`,
    );
    await assertUnprivileged('registry', SERVICE);
    // The first process has the rights of the same user; what it keeps is the way back to root, to start another.
    const status = await docker.must(['exec', 'registry', 'cat', '/proc/1/status']);
    assert.match(status, new RegExp(`^Uid:\\t0\\t${SERVICE}\\t0\\t${SERVICE}$`, 'm'));
    assert.match(status, /^CapEff:\t0{16}$/m);
    const [victim] = await workers('registry');
    await docker.must(['exec', 'registry', 'sh', '-c', `kill -KILL ${victim}`]);
    await until('replaced', 'registry', async () => /a worker serves in its place/.test(await logs('registry')));
    await assertUnprivileged('registry', SERVICE);
  });

  test('--user, a read-only root file system, no capabilities: nothing has to be prepared', async () => {
    workFolder();
    await start(
      'registry',
      `docker run -d --name registry -p 5000:5000 --user 1000:1000 --read-only --cap-drop ALL \\
  --security-opt no-new-privileges registry:2`,
    );
    await assertUnprivileged('registry', 1000);
    await login('localhost:5000', 'admin', await initialPassword('registry'));
    await copyImage('localhost:5000');
    assert.match(await docker.must(['exec', 'registry', 'registry-secure', 'health']), /"status":"ok"/);
    await docker.must(['stop', '--time', '100', 'registry']);
    assert.equal(await docker.must(['inspect', '-f', '{{.State.ExitCode}}', 'registry']), '0\n');
  });

  test('as root without the capabilities to become another it does not serve, and says what to do', async () => {
    for (const [volume, message] of [
      ['/mnt/given', /\/var\/lib\/registry cannot be given to user 65532 \(EPERM\); .*--user/],
      ['data', /cannot become the owner of the volume, user 65532 \(EPERM\); .*--user 65532:65532/],
    ] as const) {
      const args = ['run', '--rm', '--cap-drop', 'ALL', '-v', `${volume}:/var/lib/registry`, 'registry:2'];
      assert.match(await docker.refused(args), message);
    }
  });

  test('what it makes in certs/ and auth/ is who serves’, and so are the folders where nobody else has put anything', async () => {
    workFolder();
    for (const name of ['certs', 'auth', 'data']) mkdirSync(join(folder, name));
    chownSync(join(folder, 'data'), 1000, 1000);
    // Somebody else's, and not empty.
    writeFileSync(join(folder, 'auth', 'mine'), '', { mode: 0o600 });
    chownSync(join(folder, 'auth'), 2000, 2000);
    const run = (names: string) =>
      `docker run -d --name registry -p 5000:5000 -e REGISTRY_SECURE_NAMES=${names} \\
  -v "$(pwd)"/certs:/certs -v "$(pwd)"/auth:/auth -v "$(pwd)"/data:/var/lib/registry registry:2`;
    await start('registry', run(machine.ip));
    await assertUnprivileged('registry', 1000);
    await docker.must(['rm', '-f', 'registry']);
    const before = readFileSync(join(folder, 'certs', 'domain.crt'), 'utf8');
    await start('registry', run(`${machine.ip},registry.lan`));
    assert.notEqual(readFileSync(join(folder, 'certs', 'domain.crt'), 'utf8'), before);
    const owners = (name: string) =>
      Object.fromEntries(
        ['.', ...readdirSync(join(folder, name))].map(file => [file, statSync(join(folder, name, file)).uid]),
      );
    assert.deepEqual(owners('certs'), {
      '.': 1000,
      'ca.crt': 1000,
      'ca.key': 1000,
      'domain.crt': 1000,
      'domain.key': 1000,
    });
    assert.deepEqual(owners('auth'), { '.': 2000, htpasswd: 1000, 'initial-password': 1000, mine: 0 });
    assert.doesNotMatch(await logs('registry'), /may not be read by user/);
    assert.match(
      await docker.must(['exec', 'registry', 'registry-secure', 'init-certs', '--dir', '/', '--force']),
      /reissued/,
    );
    await until('settled', 'registry', async () =>
      /(kept the old|reloaded the) certificate/.test(await logs('registry')),
    );
    assert.match(await docker.must(['exec', 'registry', 'registry-secure', 'health']), /"status":"ok"/);
  });

  test('the command may be a configuration file, serve and one, up, another of the program, or any other', async () => {
    workFolder();
    const version = await docker.must(['run', '--rm', 'registry:2', '--version']);
    assert.match(version, /^\d+\.\d+\.\d+\n$/);
    assert.equal(await docker.must(['run', '--rm', 'registry:2', 'sh', '-c', 'id -u']), '0\n');
    assert.equal(await docker.must(['run', '--rm', 'registry:2', 'bin/registry', '--version']), version);
    const check = ['run', '--rm', 'registry:2', 'config', 'check'];
    assert.match(await docker.must(check), /^\/etc\/docker\/registry\/config\.yml: valid$/m);
    assert.match(
      await docker.refused(['run', '--rm', 'registry:2', 'health']),
      /127\.0\.0\.1:5000 does not answer: .*ECONNREFUSED/,
    );

    const file = '/etc/docker/registry/config.yml';
    const mounted = '-v "$(pwd)"/mine.yml:/mine.yml:ro';
    await machine.must(['sh', '-c', 'echo "{version: 0.1, http: {addr: \':7000\'}}" > mine.yml'], { cwd: folder });
    for (const [options, command, port] of [
      ['', file, 5000],
      ['', `serve ${file}`, 5000],
      [mounted, '/mine.yml', 7000],
      [`${mounted} --init`, 'serve /mine.yml', 7000],
      ['-e REGISTRY_HTTP_ADDR=:7001', 'serve', 7001],
      ['--init', 'serve --insecure-plain-http --addr 0.0.0.0:7002', 7002],
      ['', 'up --addr 127.0.0.1:7003 --ip 192.168.0.12', 7003],
    ] as const) {
      await start('registry', `docker run -d --name registry ${options} registry:2 ${command}`);
      assert.match(await logs('registry'), new RegExp(`port=${port} .*data=/var/lib/registry`), command);
      assert.match(await docker.must(['exec', 'registry', 'registry-secure', 'health']), /"status":"ok"/, command);
      await docker.must(['rm', '-fv', 'registry']);
    }
  });

  test('holds no source, no test, no tool for development, and no secret of the checkout', async () => {
    const [modules, top] = (
      await docker.must([
        'run',
        '--rm',
        'registry:2',
        'sh',
        '-c',
        'cd /opt/registry-secure && ls node_modules && echo -- && ls -a . bin dist',
      ])
    ).split('--\n');
    for (const name of ['typescript', 'knip', 'fast-check']) assert.ok(!modules!.split('\n').includes(name), name);
    assert.doesNotMatch(top!, /^(src\.ts|test|certs|auth|\.git)$/m);
    assert.ok(existsSync(folder));
  });
});
