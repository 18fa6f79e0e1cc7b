import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttp, type Server } from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { selfSigned } from '../support/pair.js';

describe('trust install and trust remove', () => {
  let dir: string;
  let registry: LocalRegistry;
  let host: string;
  let pem: string;
  let sha256: string;
  let fingerprint: string;
  let root: string;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'trust-install-'));
    mkdirSync(join(dir, 'server'));
    registry = await LocalRegistry.start(join(dir, 'server'), ['up', '--dns', 'reg.lan']);
    host = `127.0.0.1:${registry.port}`;
    pem = readFileSync(join(registry.dir, 'certs/ca.crt'), 'utf8');
    sha256 = createHash('sha256').update(pem).digest('hex');
    const shown = await LocalRegistry.run(registry.dir, ['trust', host, '--json']);
    [fingerprint] = JSON.parse(shown.stdout).fingerprints;
  });
  after(async () => {
    await registry?.stop();
    rmSync(dir, { recursive: true });
  });
  beforeEach(() => {
    root = mkdtempSync(join(dir, 'root-'));
  });

  const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    LocalRegistry.run(dir, ['trust', ...args], { env: { HOME: '/home/alice', ...env } });
  const install = (...args: string[]) => run(['install', ...args, '--root', root]);
  const isEmpty = () => readdirSync(root).length === 0;

  test('fetches, checks, proves and installs; the whole file or the certificate in it is pinned; then removes', async () => {
    const colons = fingerprint;
    for (const pin of [sha256, colons, `sha256:${sha256.toUpperCase()}`]) {
      const { status, stdout, stderr } = await install(host, '--fingerprint', pin, '--client', 'docker,containerd');
      assert.deepEqual([status, stderr], [0, '']);
      assert.match(
        stdout,
        /^SHA-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}: as expected\nHandshake with just this: works, .* until \d{4}-/,
      );
    }
    assert.equal(readFileSync(join(root, 'etc/docker/certs.d', host, 'ca.crt'), 'utf8'), pem);
    const again = await install(host, '--fingerprint', sha256, '--client', 'docker', '--json');
    const told = JSON.parse(again.stdout);
    assert.deepEqual([told.host, told.dryRun, told.verified, told.fingerprints], [host, false, true, [colons]]);
    assert.equal(told.clients[0].changes[0].action, 'unchanged');
    const removed = await run(['remove', host, '--root', root]);
    assert.match(removed.stdout, /certs\.d\/127\.0\.0\.1:\d+\/ca\.crt: removed\n/);
    assert.equal(removed.status, 0);
    assert.equal((await run(['remove', host, '--root', root])).stdout, `Nothing of ${host} is installed here.\n`);
  });

  test('finds the clients that are there by itself, and says so where there are none', async () => {
    const none = await install(host, '--fingerprint', sha256);
    assert.equal(none.status, 1);
    assert.match(none.stderr, /no client was found .*; name one with --client/);
    mkdirSync(join(root, 'etc/buildkit'), { recursive: true });
    const dry = await install(host, '--fingerprint', sha256, '--dry-run');
    assert.match(
      dry.stdout,
      /^BuildKit .*\n {2}\S+ca\.crt: would be created\n {2}\S+buildkitd\.toml: would be created\n/m,
    );
    assert.deepEqual(readdirSync(join(root, 'etc/buildkit')), []);
  });

  test('another fingerprint: nothing is installed, and both values are shown', async () => {
    const wrong = 'ab'.repeat(32);
    const { status, stdout, stderr } = await install(host, '--fingerprint', wrong, '--client', 'docker');
    assert.deepEqual([status, stdout], [1, '']);
    for (const value of [wrong, sha256, fingerprint.replaceAll(':', '').toLowerCase()])
      assert.ok(stderr.includes(value), stderr);
    assert.match(stderr, /nothing was installed/);
    assert.ok(isEmpty());
    const odd = await install(host, '--fingerprint', 'abc', '--client', 'docker');
    assert.match(odd.stderr, /"abc" is no SHA-256; give the 64/);
  });

  test('every certificate that would be installed must be pinned', async () => {
    const bundle = join(dir, 'bundle.crt');
    writeFileSync(bundle, pem + selfSigned().certificate);
    const half = await install(host, '--ca', bundle, '--fingerprint', fingerprint, '--client', 'docker');
    assert.equal(half.status, 1);
    assert.ok(isEmpty());
    const whole = createHash('sha256').update(readFileSync(bundle)).digest('hex');
    assert.equal((await install(host, '--ca', bundle, '--fingerprint', whole, '--client', 'docker')).status, 0);
  });

  test('what another reader of PEM would take for one more authority is neither believed nor installed', async () => {
    const other = selfSigned().certificate;
    const disguises = [
      other.replaceAll('CERTIFICATE', 'TRUSTED CERTIFICATE'),
      other.replace(/^(.*)\n/, '$1\nComment: a-b\n\n'),
    ];
    for (const hidden of disguises) {
      const bundle = join(dir, 'disguised.crt');
      writeFileSync(bundle, pem + hidden);
      const whole = createHash('sha256').update(readFileSync(bundle)).digest('hex');
      for (const pin of [fingerprint, whole]) {
        const { status } = await install(
          host,
          '--ca',
          bundle,
          '--fingerprint',
          pin,
          '--client',
          'docker,system-debian',
        );
        assert.equal(status, 0);
        assert.equal(readFileSync(join(root, 'etc/docker/certs.d', host, 'ca.crt'), 'utf8'), pem);
        const [file] = readdirSync(join(root, 'usr/local/share/ca-certificates'));
        assert.equal(readFileSync(join(root, 'usr/local/share/ca-certificates', file!), 'utf8'), pem);
      }
    }
  });

  test('an authority that is only hidden in the file does not prove the handshake', async () => {
    const { certificate, key } = selfSigned();
    const file = pem + certificate.replaceAll('CERTIFICATE', 'TRUSTED CERTIFICATE');
    const server = createHttps({ key, cert: certificate }, (_, response) => response.end(file));
    await against(server, async at => {
      const { status, stderr } = await install(at, '--fingerprint', fingerprint, '--client', 'docker');
      assert.equal(status, 1);
      assert.match(stderr, /was not signed by this authority/);
    });
    assert.ok(isEmpty());
  });

  test('an authority that does not help is not left behind', async () => {
    const other = join(dir, 'other.crt');
    writeFileSync(other, selfSigned().certificate);
    const pin = createHash('sha256').update(readFileSync(other)).digest('hex');
    const { status, stderr } = await install(host, '--ca', other, '--fingerprint', pin, '--client', 'docker');
    assert.equal(status, 1);
    assert.match(stderr, /the certificate of 127\.0\.0\.1:\d+ was not signed by this authority/);
    // 127.0.0.2 is this machine as well, and in no certificate.
    const name = await install(`127.0.0.2:${registry.port}`, '--fingerprint', sha256, '--client', 'docker');
    assert.match(name.stderr, /refuses the connection|is not good for that name/);
    assert.ok(isEmpty());
  });

  test('without a network: the file, and no handshake', async () => {
    const ca = join(registry.dir, 'certs/ca.crt');
    const done = await install('reg.lan:5000', '--ca', ca, '--offline', '--fingerprint', sha256, '--client', 'podman');
    assert.match(done.stdout, /Handshake: left out \(--offline\)/);
    assert.ok(existsSync(join(root, 'etc/containers/certs.d/reg.lan:5000/ca.crt')));
    const without = await install('reg.lan:5000', '--offline', '--fingerprint', sha256);
    assert.match(without.stderr, /--offline needs the authority in a file/);
  });

  test('a proxy of the environment is not used, and that is said', async () => {
    const { status, stderr } = await run(
      ['install', host, '--fingerprint', sha256, '--client', 'docker', '--root', root],
      { HTTPS_PROXY: 'http://127.0.0.1:9' },
    );
    assert.equal(status, 0);
    assert.match(stderr, /HTTPS_PROXY is not used here, 127\.0\.0\.1:\d+ is asked directly/);
  });

  /** What a server that is none of ours says, and what is then told. */
  async function against(server: Server, ask: (host: string) => Promise<unknown>) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    await ask(`127.0.0.1:${(server as Server).address() && ((server as Server).address() as AddressInfo).port}`);
    if ('closeAllConnections' in server) server.closeAllConnections();
    server.close();
  }
  const told = async (at: string, expected: RegExp) => {
    const { status, stderr } = await install(at, '--fingerprint', sha256, '--client', 'docker');
    assert.equal(status, 1);
    assert.match(stderr, expected);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
    assert.ok(isEmpty());
  };

  test('servers that are none of ours: plain HTTP, another registry, too much, no certificate, nobody', async () => {
    const { certificate, key } = selfSigned();
    const tls = { cert: certificate, key };
    await against(
      createHttp((_, response) => response.end('x')),
      at => told(at, /does not speak TLS: plain HTTP, most likely/),
    );
    await against(
      createHttps(tls, (_, response) => response.writeHead(404).end()),
      at =>
        told(
          at,
          /answers with 404: it has no authority to hand out; .*copy the file from the server, and give it with --ca FILE/,
        ),
    );
    await against(
      createHttps(tls, (_, response) => response.writeHead(302, { Location: `https://${host}/ca.crt` }).end()),
      at => told(at, /answers with 302/),
    );
    await against(
      createHttps(tls, (_, response) => response.end(Buffer.alloc(70_000))),
      at => told(at, /larger than 64 KiB/),
    );
    await against(
      createHttps(tls, (_, response) => response.end('<html>')),
      at => told(at, /holds no PEM certificate/),
    );
    await told('127.0.0.1:1', /127\.0\.0\.1:1 refuses the connection; see whether/);
    await told('no-such-name.invalid', /cannot be found \((ENOTFOUND|EAI_AGAIN)\)/);
    await told('https://reg.lan', /scheme/);
  });
});
