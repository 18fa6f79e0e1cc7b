import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { CLIENT_ERRORS, type ClientError } from '../../src/doctor/client-errors.js';
import { Docker } from '../support/docker.js';
import { type Forged, forge, type Wish } from '../support/forge.js';
import { Namespace } from '../support/namespace.js';
import { startPeer } from '../support/peer.js';
import { type Daemon, type RunOptions, requireTools } from '../support/process.js';
import { program, Registry } from '../support/registry.js';

const ADDRESS = '192.168.0.12';
const NAME = 'reg.lan';
const DAY = 86_400_000;

interface Finding {
  readonly check: string;
  readonly severity: 'ok' | 'warning' | 'error';
  readonly message: string;
  readonly shows?: string;
  readonly fix?: string;
  readonly commands?: readonly string[];
}

// Every row of the table of errors, twice: a server is set up wrong in just that way, a real client shows the text, and
// doctor, run beside the client against the same server, finds the row.
describe('doctor: what clients show, and what it finds', { timeout: 600_000 }, () => {
  let machine: Namespace;
  let docker: Docker;
  let ca: Forged;
  let port = 5000;
  let host: string;
  const running: Daemon[] = [];

  before(async () => {
    requireTools('docker-registry', 'openssl', 'iptables');
    machine = await Namespace.create(ADDRESS);
    appendFileSync(join(machine.dir, 'etc', 'hosts'), `${ADDRESS} ${NAME}\n`);
    // A server of names that knows none.
    const unknown =
      "s=require('dgram').createSocket('udp4');s.on('message',(q,{port,address})=>{q[2]|=128;q[3]=131;s.send(q,port,address)});s.bind(53,'127.0.0.1',()=>console.log('bound'))";
    const names = machine.start('names', [process.execPath, '-e', unknown]);
    await names.ready(async () => /bound/.test(names.output));
    writeFileSync(join(machine.dir, 'etc', 'resolv.conf'), 'nameserver 127.0.0.1\n');
    docker = await Docker.start(machine);
    console.log(`docker ${await docker.versions()}`);
    ca = forge({ authority: 1, commonName: 'test CA' });
  });
  after(() => machine?.close());
  beforeEach(async () => {
    for (const daemon of running.splice(0)) await daemon.stop();
    rmSync(join(machine.dir, 'etc/docker/certs.d'), { recursive: true, force: true });
    rmSync(join(docker.dir, 'client'), { recursive: true, force: true });
    host = `${ADDRESS}:${++port}`;
  });

  const certsOf = (reference: string) => join(machine.dir, 'etc/docker/certs.d', reference);

  function put(path: string, text: string): void {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text, { mode: 0o600 });
  }

  const leaf = (wish: Wish = {}): Forged => forge({ issuer: ca, names: [ADDRESS, NAME], ...wish });

  /** The original registry with this chain, at a port of its own; docker has the authority in the right place. */
  async function serve(chain: readonly Forged[], trusted: Forged | 'nobody' = ca, reference = host): Promise<void> {
    const certs = join(machine.dir, `certs-${port}`);
    put(join(certs, 'domain.crt'), chain.map(({ pem }) => pem).join(''));
    put(join(certs, 'domain.key'), chain[0]!.keyPem);
    if (trusted !== 'nobody') put(join(certsOf(reference), 'ca.crt'), trusted.pem);
    running.push(
      await startPeer(
        machine,
        { address: `${ADDRESS}:${port}`, certs, data: join(machine.dir, `data-${port}`) },
        `registry-${port}`,
      ),
    );
  }

  const login = (reference = host, options: RunOptions = {}) =>
    docker.refused(['login', '-u', 'alice', '--password-stdin', reference], { input: 'secret\n', ...options });
  const loggedIn = (reference = host) =>
    docker.must(['login', '-u', 'alice', '--password-stdin', reference], { input: 'secret\n' });

  async function doctor(reference = host, ...more: string[]): Promise<{ status: number | null; findings: Finding[] }> {
    const env = { DOCKER_CONFIG: join(docker.dir, 'client') };
    const { status, stdout, stderr } = await machine.run(
      program('doctor', reference, '--json', '--client', 'docker', ...more),
      { env },
    );
    assert.ok(stdout.startsWith('{'), stdout + stderr);
    const { findings } = JSON.parse(stdout) as { findings: Finding[] };
    return { status, findings };
  }

  /** A client has shown the text of the row, and doctor finds it: one finding, that is. */
  async function recognised(row: ClientError, shown: string, reference = host, ...more: string[]): Promise<Finding> {
    const { shows, or = shows }: { shows: string; or?: string } = CLIENT_ERRORS[row];
    const pattern = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('…', '.+');
    assert.match(shown, new RegExp(`${pattern(shows)}|${pattern(or)}`, 'i'));
    const { status, findings } = await doctor(reference, ...more);
    assert.equal(status, 1);
    const found = findings.filter(finding => finding.shows === shows && finding.severity === 'error');
    assert.ok(found[0], `not recognised: ${JSON.stringify(findings, undefined, 2)}`);
    console.log(`${row}: docker: ${shown.trim().split('\n').at(-1)}`);
    console.log(`${' '.repeat(row.length)}  doctor: ${found.map(({ message }) => message).join(' | ')}`);
    assert.ok(found[0].fix || found[0].commands, 'it says how to mend it');
    return found[0];
  }

  /** What a docker shows whose client certificate is refused. */
  async function refusedCertificate(): Promise<string> {
    // The refusal comes while it writes its request already: where it is quicker, it hears of a connection that was reset.
    for (let tries = 1; ; tries++) {
      const shown = await login();
      if (tries === 20 || !/connection reset by peer|broken pipe/.test(shown)) return shown;
    }
  }

  async function isWell(reference = host): Promise<void> {
    const { status, findings } = await doctor(reference);
    assert.deepEqual([status, findings.filter(({ severity }) => severity !== 'ok')], [0, []]);
  }

  test('where nothing is wrong, docker logs in and doctor finds nothing', async () => {
    await serve([leaf()]);
    await loggedIn();
    await isWell();
  });

  test('no IP address in the certificate, and an address that stands there as a name', async () => {
    await serve([leaf({ names: [NAME] })]);
    await recognised('no-ip-names', await login());
    host = `${ADDRESS}:${++port}`;
    await serve([leaf({ names: [`DNS:${ADDRESS}`] })]);
    const { message } = await recognised('no-ip-names', await login());
    assert.match(message, /as a DNS name/);
  });

  test('another name', async () => {
    await serve([leaf({ names: ['10.0.0.1'] })]);
    const { commands } = await recognised('other-names', await login());
    assert.deepEqual(commands, [`registry-secure init-certs --ip ${ADDRESS}`]);
  });

  test('no DNS name at all', async () => {
    const reference = `${NAME}:${port}`;
    await serve([leaf({ names: [ADDRESS] })], ca, reference);
    await recognised('no-names', await login(reference), reference);
  });

  test('a common name alone', async () => {
    await serve([leaf({ names: [], commonName: ADDRESS })]);
    await recognised('common-name', await login());
  });

  test('no authority on the client', async () => {
    await serve([leaf()], 'nobody');
    const { message, fix } = await recognised('unknown-authority', await login());
    assert.match(message, /there is no \/etc\/docker\/certs\.d\/192\.168\.0\.12:\d+\/ca\.crt/);
    assert.match(fix!, /registry-secure trust install 192\.168\.0\.12:\d+ --client docker --fingerprint/);
  });

  for (const [what, folder] of [
    ['without the port', () => ADDRESS],
    ['with a scheme', () => `https_${host}`],
    ['with an underscore', () => host.replace(':', '_')],
  ] as const)
    test(`the authority in a folder that is named otherwise, ${what}: what mends it does`, async () => {
      await serve([leaf()], 'nobody');
      put(join(certsOf(folder()), 'ca.crt'), ca.pem);
      const { commands } = await recognised('unknown-authority', await login());
      await machine.must(['sh', '-euc', commands!.join('\n')]);
      await loggedIn();
      await isWell();
    });

  test('a file that does not end in .crt: what mends it does', async () => {
    await serve([leaf()], 'nobody');
    put(join(certsOf(host), 'ca.pem'), ca.pem);
    await recognised('unknown-authority', await login());
    const { findings } = await doctor();
    const { commands } = findings.find(({ message }) => /does not end in \.crt/.test(message))!;
    await machine.must(['sh', '-euc', commands!.join('\n')]);
    await loggedIn();
    await isWell();
  });

  test('an old authority of the same name', async () => {
    const old = forge({ authority: 1, commonName: 'test CA' });
    await serve([leaf()], old);
    const { message } = await recognised('unknown-authority', await login());
    assert.ok(message.includes(old.certificate.fingerprint256) && /another key/.test(message), message);
  });

  test('an intermediate that is not sent', async () => {
    const between = forge({ authority: 0, issuer: ca });
    await serve([leaf({ issuer: between, issuerUrl: 'http://ca.lan/ca.der' })]);
    const { message } = await recognised('unknown-authority', await login());
    assert.match(message, /neither sent nor trusted/);
  });

  test('an authority that may not sign', async () => {
    const mute = forge({ authority: 1, usage: ['cRLSign'] });
    await serve([leaf({ issuer: mute })], mute);
    const { message } = await recognised('unknown-authority', await login());
    assert.match(message, /keyCertSign/);
  });

  for (const [what, from, to] of [
    ['expired', -2, -1],
    ['not yet valid', 1, 90],
  ] as const)
    test(`a certificate that is ${what}: both times are told`, async () => {
      await serve([leaf({ from, to })]);
      const { message } = await recognised('dates', await login());
      const told = message.match(/\d{4}-\d\d-\d\dT[\d:.]+Z/g)!.map(time => Date.parse(time));
      assert.equal(told.length, 2);
      assert.ok(Math.abs(told[1]! - Date.now()) < DAY / 24);
    });

  test('an authority that has expired', async () => {
    const old = forge({ authority: 1, from: -2, to: -1 });
    await serve([leaf({ issuer: old })], old);
    await recognised('dates', await login());
  });

  test('plain HTTP', async () => {
    running.push(
      await startPeer(machine, { address: host, data: join(machine.dir, `data-${port}`) }, `registry-${port}`),
    );
    await recognised('plain-http', await login());
  });

  test('a certificate for clients', async () => {
    await serve([leaf({ extendedUsage: ['client'] })]);
    await recognised('key-usage', await login());
  });

  test('an authority for clients', async () => {
    const clients = forge({ authority: 1, extendedUsage: ['client'] });
    await serve([leaf({ issuer: clients })], clients);
    await recognised('key-usage', await login());
  });

  test('a negative serial number', async t => {
    const built = await docker.must(['version', '--format', '{{.Client.GoVersion}}']);
    if (Number(/^go1\.(\d+)/.exec(built)?.[1]) < 23) {
      t.skip(`the docker client is built with ${built.trim()}, which takes them: put a newer one first in the path`);
      return;
    }
    await serve([leaf({ serial: Buffer.from([0x80, 1]) })]);
    // The client itself meets the server, as if that were a dockerd. It is built with a Go that can refuse such numbers,
    // and does where programs begin with the defaults of that version.
    const args = [`--host=tcp://${host}`, '--tlsverify', `--tlscacert=${join(certsOf(host), 'ca.crt')}`, 'version'];
    await recognised('negative-serial', await docker.refused(args, { env: { GODEBUG: 'x509negativeserial=0' } }));
  });

  /** A registry that asks for certificates of this authority. */
  async function serveMutual(clients: Forged): Promise<void> {
    const path = join(machine.dir, `clients-${port}.crt`);
    put(path, clients.pem);
    await serve([leaf()]);
    await running.pop()!.stop();
    const certs = join(machine.dir, `certs-${port}`);
    const config = join(machine.dir, `mutual-${port}.yml`);
    const tls = { certificate: join(certs, 'domain.crt'), key: join(certs, 'domain.key'), clientcas: [path] };
    const storage = { filesystem: { rootdirectory: join(machine.dir, `data-${port}`) } };
    put(config, JSON.stringify({ version: 0.1, storage, http: { addr: host, tls } }));
    const daemon = machine.start(`mutual-${port}`, ['docker-registry', 'serve', config]);
    running.push(daemon);
    await daemon.ready(async () => /listening on/.test(daemon.output));
  }

  function putPair({ pem, keyPem }: Forged, certificate = 'client.cert'): void {
    put(join(certsOf(host), certificate), pem);
    put(join(certsOf(host), 'client.key'), keyPem);
  }

  test('client certificates: none, of another authority, for servers, and the right one', async () => {
    const clients = forge({ authority: 1, commonName: 'clients' });
    const alice = (wish: Wish = {}) =>
      forge({ issuer: clients, commonName: 'alice', extendedUsage: ['client'], ...wish });
    await serveMutual(clients);
    const { message } = await recognised('bad-certificate', await refusedCertificate());
    assert.match(message, /has no client certificate in \/etc\/docker\/certs\.d/);
    putPair(alice({ issuer: forge({ authority: 1, commonName: 'others' }) }));
    const other = await recognised('bad-certificate', await refusedCertificate());
    assert.match(other.message, /of another authority \(CN=others\)/);
    putPair(alice({ extendedUsage: ['server'] }));
    assert.match(await refusedCertificate(), /bad certificate/);
    const { findings } = await doctor();
    assert.ok(
      findings.some(({ shows, message }) => shows === CLIENT_ERRORS['key-usage'].shows && /clientAuth/.test(message)),
      JSON.stringify(findings),
    );
    putPair(alice());
    await loggedIn();
    await isWell();
  });

  test('a client certificate is required, by the words of OpenSSL', async () => {
    await serve([leaf()]);
    await running.pop()!.stop();
    const file = (name: string) => join(machine.dir, `certs-${port}`, name);
    const server = machine.start(`s_server-${port}`, [
      'openssl',
      's_server',
      '-accept',
      host,
      '-cert',
      file('domain.crt'),
      '-key',
      file('domain.key'),
      '-Verify',
      '1',
      '-CAfile',
      file('domain.crt'),
      '-www',
    ]);
    running.push(server);
    await server.ready(async () => /ACCEPT/.test(server.output));
    await recognised('certificate-required', await refusedCertificate());
  });

  test('a client certificate without its key, and as .crt: what mends it does', async () => {
    await serve([leaf()]);
    put(join(certsOf(host), 'client.cert'), leaf().pem);
    await recognised('missing-key', await login());
    rmSync(join(certsOf(host), 'client.cert'));
    putPair(leaf(), 'client.crt');
    const { commands } = await recognised('missing-certificate', await login());
    await machine.must(['sh', '-euc', commands!.join('\n')]);
    await loggedIn();
    await isWell();
  });

  test('a name that the authority may not sign for', async () => {
    const few = forge({ authority: 1, constraints: { permitted: ['10.0.0.0/8'], excluded: [] } });
    await serve([leaf({ issuer: few, names: [ADDRESS] })], few);
    const { message } = await doctorOf('constraints');
    assert.match(message, /may not sign for 192\.168\.0\.12/);
  });

  async function doctorOf(row: ClientError): Promise<Finding> {
    return recognised(row, await login());
  }

  test('an authority too many', async () => {
    const top = forge({ authority: 0 });
    const between = forge({ authority: 0, issuer: top });
    await serve([leaf({ issuer: between }), between], top);
    await doctorOf('path-length');
  });

  test('nothing listens', async () => {
    put(join(certsOf(host), 'ca.crt'), ca.pem);
    await doctorOf('refused');
  });

  test('a name without an address', async () => {
    await recognised('no-host', await login('nowhere.lan:5000'), 'nowhere.lan:5000');
  });

  test('packets that are dropped', async () => {
    await machine.must(['iptables', '-A', 'INPUT', '-p', 'tcp', '--dport', `${port}`, '-j', 'DROP']);
    await doctorOf('timeout');
  });

  test('a TLS that is too old', async () => {
    await serve([leaf()]);
    await running.pop()!.stop();
    const file = (name: string) => join(machine.dir, `certs-${port}`, name);
    const server = machine.start(`s_server-${port}`, [
      'openssl',
      's_server',
      '-accept',
      host,
      '-cert',
      file('domain.crt'),
      '-key',
      file('domain.key'),
      '-tls1_1',
      '-cipher',
      'ALL:@SECLEVEL=0',
      '-www',
    ]);
    running.push(server);
    await server.ready(async () => /ACCEPT/.test(server.output));
    await doctorOf('old-tls');
  });

  test('no login, one under another name, a wrong password, and the right one', async () => {
    const registry = await Registry.start(
      machine,
      ['up', '--addr', host, '--ip', ADDRESS, '--user', 'alice', '--password-stdin'],
      { name: `own-${port}`, host, input: 'secret\n' },
    );
    running.push(registry.daemon);
    await registry.trust('docker');
    const pull = () => docker.refused(['pull', `${host}/a/b:1`]);
    const config = join(docker.dir, 'client/config.json');
    const store = (key: string, password: string) =>
      put(config, JSON.stringify({ auths: { [key]: { auth: Buffer.from(`alice:${password}`).toString('base64') } } }));
    const finds = async (row: ClientError, shown: string) => {
      assert.match(shown, new RegExp(CLIENT_ERRORS[row].shows));
      const found = (await doctor()).findings.find(({ shows }) => shows === CLIENT_ERRORS[row].shows);
      assert.ok(found, row);
      assert.deepEqual(found.commands, [`docker login ${host}`]);
      console.log(`${row}: docker: ${shown.trim()}`);
      return found.message;
    };
    assert.match(await finds('no-login', await pull()), /nobody is logged in/);
    store(ADDRESS, 'secret');
    assert.match(await finds('no-login', await pull()), /it has one for 192\.168\.0\.12, which is not the same/);
    store(host, 'wrong');
    await finds('unauthorized', await pull());
    await loggedIn();
    await isWell();
    for (const [password, status] of [
      ['secret', 0],
      ['wrong', 1],
    ] as const) {
      const tried = await machine.run(
        program('doctor', host, '--client', 'docker', '--user', 'alice', '--password-stdin'),
        { input: password, env: { DOCKER_CONFIG: join(docker.dir, 'client') } },
      );
      assert.equal(tried.status, status, tried.stdout + tried.stderr);
      assert.ok(!`${tried.stdout}${tried.stderr}`.includes(password === 'secret' ? 'secret ' : 'wrong '));
    }
    assert.ok(existsSync(config) && readFileSync(config, 'utf8').includes(host));
  });
});
