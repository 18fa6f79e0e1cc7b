import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ensureCertificates } from '../../src/pki/certificates.js';
import { certificatePem } from '../../src/pki/issue.js';
import { renewNow } from '../../src/pki/renewal.js';
import { readPemCertificates } from '../../src/pki/x509.js';
import { startChromium } from '../support/chromium.js';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { LocalRegistry } from '../support/local-registry.js';
import { Namespace } from '../support/namespace.js';
import { startPeer } from '../support/peer.js';
import { must, requireTools, run } from '../support/process.js';
import { program, Registry } from '../support/registry.js';

const alice = { user: 'alice', password: 'correct horse battery staple' };

describe('docker through a rotation of the authority', { timeout: 400_000 }, () => {
  let machine: Namespace;
  before(async () => {
    machine = await Namespace.create();
  });
  after(() => machine?.close());

  test('it pulls all the while: with the old authority, both, and the new one alone', async t => {
    const up = ['up', '--addr', `${machine.ip}:5000`, '--ip', machine.ip, '--user', alice.user, '--password-stdin'];
    const [registry, docker] = await Promise.all([
      Registry.start(machine, up, { input: `${alice.password}\n` }),
      Docker.start(machine),
    ]);
    const image = `${registry.host}/team/app:1`;
    writeBuildFolder(join(machine.dir, 'build'), [10_000, 1000]);
    await registry.trust('docker');
    await docker.must(['login', '-u', alice.user, '--password-stdin', registry.host], { input: alice.password });
    await docker.build(join(machine.dir, 'build'), image);
    await docker.must(['push', image]);

    let running = true;
    let pulls = 0;
    const failures: string[] = [];
    // What a client is told to install replaces a file, which for a moment is not there: no pull falls into that moment.
    let turn: Promise<unknown> = Promise.resolve();
    const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
      const done = turn.then(work);
      turn = done.catch(() => undefined);
      return done;
    };
    const pulling = (async () => {
      await docker.must(['image', 'rm', image]);
      while (running) {
        const { status, stderr } = await inTurn(() => docker.run(['pull', '-q', image]));
        if (status !== 0) {
          failures.push(stderr);
          continue;
        }
        pulls++;
        await docker.must(['image', 'rm', image]);
      }
    })();
    /** Three whole pulls that began after now. */
    const pull = async () => {
      const enough = pulls + failures.length + 4;
      while (pulls + failures.length < enough) await new Promise(resolve => setTimeout(resolve, 50));
    };
    const ca = () => readPemCertificates(readFileSync(join(registry.dir, 'certs/ca.crt'), 'utf8')).length;
    const serving = async (lines: number) => {
      const reloads = () => registry.daemon.output.split('reloaded the certificate').length - 1;
      await registry.daemon.ready(async () => reloads() >= lines);
    };
    const installed = () =>
      readFileSync(join(machine.dir, `etc/docker/certs.d/${registry.host}/ca.crt`), 'utf8').split('BEGIN').length - 1;

    await pull();
    await registry.command(['certs', 'rotate-ca', '--overlap', '1d']);
    await serving(1);
    assert.deepEqual([ca(), installed()], [2, 1]);
    await pull();
    await inTurn(() => registry.trust('docker'));
    assert.equal(installed(), 2);
    await pull();
    await registry.command(['certs', 'rotate-ca', '--finish']);
    await serving(2);
    assert.deepEqual([ca(), installed()], [1, 2]);
    await pull();
    await inTurn(() => registry.trust('docker'));
    assert.equal(installed(), 1);
    await pull();
    running = false;
    await pulling;
    assert.deepEqual(failures, []);
    assert.ok(pulls >= 20, `${pulls}`);
    t.diagnostic(`${pulls} pulls, none failed`);
  });
});

// What programs that share no code with us say to a rotation: OpenSSL at its strictest, curl, and Go on both sides.
describe('other clients during a rotation', { timeout: 240_000 }, () => {
  let machine: Namespace;
  let dir: string;
  before(async () => {
    requireTools('openssl', 'curl', 'skopeo', 'docker-registry');
    dir = mkdtempSync(join(tmpdir(), 'rotation-e2e-'));
    machine = await Namespace.create();
  });
  after(async () => {
    await machine?.close();
    rmSync(dir, { recursive: true });
  });

  for (const kind of ['ec-p256', 'rsa-2048'])
    test(`${kind}: the old authority, the new one and both of them are enough, and afterwards the old one is not`, async () => {
      const folder = join(dir, kind);
      const certs = join(folder, 'certs');
      mkdirSync(folder);
      const command = (...args: string[]) => must(program(...args), { cwd: folder });
      await command('init-certs', '--ip', machine.ip, '--key', kind);
      const anchors = { old: join(folder, 'old.crt'), new: join(folder, 'new.crt'), both: join(folder, 'both.crt') };
      copyFileSync(join(certs, 'ca.crt'), anchors.old);
      await command('certs', 'rotate-ca', '--dns', 'reg.example.com');
      copyFileSync(join(certs, 'ca.crt'), anchors.both);
      writeFileSync(anchors.new, certificatePem(readPemCertificates(readFileSync(anchors.both, 'utf8'))[0]!));
      for (const anchor of Object.values(anchors)) assert.equal(await accepted(certs, anchor), '');
      await command('certs', 'rotate-ca', '--finish');
      for (const anchor of [anchors.new, anchors.both]) assert.equal(await accepted(certs, anchor), '');
      assert.match(
        await accepted(certs, anchors.old),
        /openssl: [\s\S]*unable to get local issuer[\s\S]*curl: .*unable to get local issuer[\s\S]*go: .*signed by unknown authority/,
      );
    });

  let port = 5100;
  /** What the clients with this file say against the pair in the folder; nothing when all are content. */
  async function accepted(certs: string, anchor: string): Promise<string> {
    const [leaf, ...chain] = readPemCertificates(readFileSync(join(certs, 'domain.crt'), 'utf8')).map(certificatePem);
    const files = { leaf: join(dir, 'leaf.pem'), chain: join(dir, 'chain.pem') };
    writeFileSync(files.leaf, leaf!);
    writeFileSync(files.chain, chain.join(''));
    const untrusted = chain.length > 0 ? ['-untrusted', files.chain] : [];
    const strict = ['-x509_strict', '-purpose', 'sslserver', '-verify_ip', machine.ip, '-no-CApath', '-no-CAstore'];
    const verified = await run(['openssl', 'verify', ...strict, ...untrusted, '-CAfile', anchor, files.leaf]);
    const said = [verified.status === 0 ? '' : `openssl: ${verified.stderr}`];
    const host = `${machine.ip}:${++port}`;
    const server = await startPeer(
      machine,
      { address: host, certs, data: join(machine.dir, `d${port}`) },
      `go-${port}`,
    );
    try {
      const curl = await machine.run(['curl', '-sS', '--fail', '--cacert', anchor, `https://${host}/v2/`]);
      if (curl.status !== 0) said.push(`curl: ${curl.stderr}`);
      const trusted = mkdtempSync(join(machine.dir, 'trusted-'));
      copyFileSync(anchor, join(trusted, 'ca.crt'));
      // It is content with the certificate when all that is missing is the repository.
      const go = await machine.refused(['skopeo', 'list-tags', `--cert-dir=${trusted}`, `docker://${host}/none/such`]);
      if (!/404 \(Not Found\)/.test(go)) said.push(`go: ${go}`);
    } finally {
      await server.stop();
    }
    return said.join('');
  }
});

describe('renewals', { timeout: 900_000 }, () => {
  test('100, every tenth by the command, under load: no request fails', async t => {
    const dir = mkdtempSync(join(tmpdir(), 'renewals-'));
    const registry = await LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1']);
    t.after(async () => {
      await registry.stop();
      rmSync(dir, { recursive: true });
    });
    const ca = readFileSync(join(dir, 'certs/ca.crt'));
    const kept = new Agent({ keepAlive: true, maxSockets: 2, ca });
    t.after(() => kept.destroy());
    let running = true;
    let requests = 0;
    const serials = new Set<string>();
    // With a breath between two requests: what the machine can bear is not asked here, and all of it would slow the rest.
    const load = async (ask: () => Promise<unknown>, breath: number) => {
      for (; running; requests++) {
        await ask();
        await pause(breath);
      }
    };
    const overKept = () =>
      new Promise<void>((resolve, reject) => {
        const options = { host: '127.0.0.1', port: registry.port, path: '/healthz', agent: kept };
        request(options, response => {
          response.resume().once('end', resolve).once('error', reject);
        })
          .once('error', reject)
          .end();
      });
    const overFresh = () =>
      registry.call('GET', '/healthz', { ca, onPeer: peer => void serials.add(peer.serialNumber) });
    const failed = Promise.all([load(overKept, 5), load(overKept, 5), load(overFresh, 20), load(overFresh, 20)]);
    failed.catch(() => undefined);
    const served = () => {
      const { serialNumber } = new X509Certificate(readFileSync(join(dir, 'certs/domain.crt')));
      return Promise.race([registry.until(() => serials.has(serialNumber)), failed]);
    };
    await served();
    for (let renewal = 1; renewal <= 100; renewal++) {
      if (renewal % 10 === 0) {
        const { status, stderr } = await LocalRegistry.run(dir, ['certs', 'renew']);
        assert.equal(status, 0, stderr);
      } else {
        // What the command does, without a start of Node for each.
        await renewNow({ dir: join(dir, 'certs'), names: [] });
      }
      await served();
    }
    running = false;
    await failed;
    assert.equal(serials.size, 101, 'each of them was served');
    t.diagnostic(`${requests} requests on kept and on new connections, none failed`);
  });

  test('after giving up root it renews too, and what root renews beside it is for it to read', async t => {
    const machine = await Namespace.create();
    t.after(() => machine.close());
    const certs = join(machine.dir, 'registry', 'certs');
    const file = (name: string) => join(certs, name);
    const longAgo = new Date(Date.now() - 300 * 86_400_000);
    await ensureCertificates({ dir: certs, names: [machine.ip, 'localhost', '127.0.0.1', '::1'], now: longAgo });
    const [key, certificate] = ['domain.key', 'domain.crt'].map(name => readFileSync(file(name)));
    await machine.must(['chown', '-R', '65532:65532', certs]);
    // Whom it becomes must reach its files.
    chmodSync(machine.dir, 0o711);
    const up = ['up', '--addr', `${machine.ip}:5000`, '--ip', machine.ip];
    const registry = await Registry.start(machine, up, { env: { REGISTRY_SECURE_USER: 'volume' } });
    const said = (text: RegExp) => registry.daemon.ready(async () => text.test(registry.daemon.output));
    // The first process gives up root when all workers serve.
    const status = () => readFileSync(`/proc/${registry.daemon.pid}/status`, 'utf8');
    await registry.daemon.ready(async () => /^Uid:\t65532\t65532\t65532\t65532$/m.test(status()));
    // Written over, so that the files stay that user's: two thirds of this one's life are over.
    writeFileSync(file('domain.key'), key!);
    writeFileSync(file('domain.crt'), certificate!);
    await said(/msg="renewed the server certificate"/);
    const owners = () => readdirSync(certs).map(name => [name, statSync(file(name)).uid]);
    const theirs = ['ca.crt', 'ca.key', 'domain.crt', 'domain.key'].map(name => [name, 65532]);
    assert.deepEqual(owners(), theirs);
    const reloads = () => registry.daemon.output.split('reloaded the certificate').length;
    const before = reloads();
    await registry.command(['certs', 'renew']);
    await registry.daemon.ready(async () => reloads() > before);
    assert.deepEqual(owners(), theirs);
    assert.doesNotMatch(registry.daemon.output, /kept the old certificate|level=error/);
  });

  test('in a folder mounted read-only it serves, and says who has to renew', async t => {
    const machine = await Namespace.create();
    t.after(() => machine.close());
    const folder = join(machine.dir, 'registry', 'certs');
    mkdirSync(folder, { recursive: true });
    await machine.must(program('init-certs', '--ip', machine.ip, '--out', folder));
    await machine.must(['mount', '--bind', folder, folder]);
    await machine.must(['mount', '-o', 'remount,bind,ro', folder]);
    const up = ['up', '--addr', `${machine.ip}:5000`, '--ip', machine.ip];
    const registry = await Registry.start(machine, up);
    await registry.daemon.ready(async () =>
      /will not be renewed by itself: .*certs may not be written by this process.*certs renew/.test(
        registry.daemon.output,
      ),
    );
    assert.deepEqual(readdirSync(folder).sort(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
  });
});

describe('a stolen authority key', { timeout: 240_000 }, () => {
  test('Chromium, which trusts the authority, refuses what it signs for a public name', async t => {
    const machine = await Namespace.create();
    t.after(() => machine.close());
    await machine.must(['ip', 'address', 'add', '203.0.113.9/32', 'dev', 'lo']);
    const at = (name: string) => join(machine.dir, name);
    await machine.must(program('init-certs', '--ip', machine.ip, '--out', at('certs')));
    const forge = async (name: string, alternative: string) => {
      writeFileSync(at(`${name}.ext`), `subjectAltName=${alternative}\nextendedKeyUsage=serverAuth\n`);
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at(`${name}.key`)];
      await must(['openssl', 'req', ...key, '-subj', '/CN=forged one', '-out', at(`${name}.csr`)]);
      const signer = ['-CA', at('certs/ca.crt'), '-CAkey', at('certs/ca.key'), '-set_serial', '77'];
      const days = ['-days', '30', '-extfile', at(`${name}.ext`), '-out', at(`${name}.crt`)];
      await must(['openssl', 'x509', '-req', '-in', at(`${name}.csr`), ...days, ...signer]);
    };
    const serve = async (name: string, address: string) => {
      const pair = ['-cert', at(`${name}.crt`), '-key', at(`${name}.key`)];
      const server = machine.start(name, ['openssl', 's_server', '-accept', address, ...pair, '-www']);
      await server.ready(() => machine.answers(`https://${address}/`));
    };
    await forge('public', 'DNS:www.example.com,IP:203.0.113.9');
    await forge('private', `IP:${machine.ip}`);
    await serve('public', '203.0.113.9:443');
    await serve('private', `${machine.ip}:443`);
    // Names lead to addresses by a proxy, since Chromium sees no file of hosts here.
    const proxy = `const net = require('node:net');
      require('node:http').createServer().on('connect', (request, socket) => {
        const [host] = request.url.split(':');
        const to = net.connect(443, host === 'www.example.com' ? '203.0.113.9' : host, () => {
          socket.write('HTTP/1.1 200 OK\\r\\n\\r\\n');
          to.pipe(socket).pipe(to);
        });
        for (const end of [to, socket]) end.on('error', () => { to.destroy(); socket.destroy(); });
      }).listen(3128, '${machine.ip}', () => console.log('ready'));`;
    const daemon = machine.start('proxy', [process.execPath, '-e', proxy]);
    await daemon.ready(async () => /ready/.test(daemon.output));
    const browser = await startChromium(machine, { ca: at('certs/ca.crt') });
    try {
      const context = await browser.newContext({ proxy: { server: `http://${machine.ip}:3128` } });
      const page = await context.newPage();
      assert.equal((await page.goto(`https://${machine.ip}/`))?.status(), 200, 'a name that it may sign for');
      for (const host of ['www.example.com', '203.0.113.9'])
        await assert.rejects(page.goto(`https://${host}/`), /ERR_CERT_(INVALID|NAME_CONSTRAINT_VIOLATION)/);
    } finally {
      await browser.close();
    }
  });
});
