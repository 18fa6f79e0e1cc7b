import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { KEY_KINDS } from '../../src/pki/keys.js';
import { Namespace } from '../support/namespace.js';
import { startPeer } from '../support/peer.js';
import { must, requireTools, run } from '../support/process.js';
import { program } from '../support/registry.js';

// What programs that share no code with us say to our certificates: OpenSSL, curl, and Go's standard library on both
// sides (the original registry serves them, skopeo connects).
describe('certificates', { timeout: 240_000 }, () => {
  let machine: Namespace;
  let dir: string;
  let port = 5000;

  before(async () => {
    requireTools('openssl', 'curl', 'skopeo', 'docker-registry');
    dir = mkdtempSync(join(tmpdir(), 'certificates-'));
    machine = await Namespace.create();
    await machine.must(['ip', 'address', 'add', '203.0.113.9/32', 'dev', 'lo']);
    await machine.must(['ip', 'address', 'add', 'fd00::12/128', 'dev', 'lo', 'nodad']);
  });
  after(async () => {
    await machine?.close();
    rmSync(dir, { recursive: true });
  });

  const openssl = (...args: string[]) => must(['openssl', ...args]);

  async function make(name: string, ...args: string[]): Promise<string> {
    const out = join(dir, name);
    await must(program('init-certs', '--out', out, ...args), { cwd: dir });
    return out;
  }

  /** Go's server with these certificates; what a test asks it goes to the host and port handed back. */
  async function serve(certs: string, ip = machine.ip): Promise<{ host: string; stop: () => Promise<unknown> }> {
    const host = `${ip}:${++port}`;
    const data = join(machine.dir, `data-${port}`);
    const daemon = await startPeer(machine, { address: host, certs, data }, `go-${port}`);
    return { host, stop: () => daemon.stop() };
  }

  const curl = (certs: string, url: string, ...args: string[]) => [
    'curl',
    '-sS',
    '--fail',
    '--cacert',
    join(certs, 'ca.crt'),
    ...args,
    url,
  ];

  /** skopeo takes a folder of certificates in place of the system's look-up paths. */
  function skopeo(host: string, certs?: string): string[] {
    const folder = mkdtempSync(join(machine.dir, 'certs-'));
    if (certs) copyFileSync(join(certs, 'ca.crt'), join(folder, 'ca.crt'));
    return ['skopeo', 'list-tags', `--cert-dir=${folder}`, `docker://${host}/none/such`];
  }

  for (const kind of KEY_KINDS)
    test(`${kind}: OpenSSL verifies strictly, curl and Go's client connect`, async () => {
      const certs = await make(kind, '--ip', '192.168.0.12', '--dns', 'reg.lan', '--key', kind);
      const [ca, domain] = [join(certs, 'ca.crt'), join(certs, 'domain.crt')];
      assert.match(await openssl('verify', '-x509_strict', '-CAfile', ca, domain), /domain\.crt: OK/);
      assert.match(
        await openssl(
          'verify',
          '-x509_strict',
          '-purpose',
          'sslserver',
          '-verify_ip',
          '192.168.0.12',
          '-CAfile',
          ca,
          domain,
        ),
        /OK/,
      );
      const text = await openssl('x509', '-in', domain, '-noout', '-text');
      assert.match(text, /IP Address:192\.168\.0\.12, DNS:reg\.lan/);
      assert.match(text, /Key Usage: critical\n +Digital Signature(, Key Encipherment)?\n/);
      assert.equal(/Key Encipherment/.test(text), kind.startsWith('rsa'));
      assert.match(text, /CA:FALSE/);
      assert.match(text, /TLS Web Server Authentication\n/);
      assert.match(await openssl('x509', '-in', ca, '-noout', '-text'), /critical\n +CA:TRUE, pathlen:1\n/);
      await openssl('pkey', '-in', join(certs, 'domain.key'), '-check', '-noout');

      const server = await serve(certs);
      try {
        await machine.must(curl(certs, `https://${server.host}/v2/`));
        await machine.must(curl(certs, `https://reg.lan/v2/`, '--connect-to', `reg.lan:443:${server.host}`));
        // It trusts the certificate when all that is missing is the repository.
        assert.match(await machine.refused(skopeo(server.host, certs)), /404 \(Not Found\)/);
      } finally {
        await server.stop();
      }
    });

  test('an IPv6 address is one for OpenSSL and curl as well', async () => {
    const certs = await make('ipv6', '--ip', 'fd00::12');
    const text = await openssl('x509', '-in', join(certs, 'domain.crt'), '-noout', '-text');
    assert.match(text, /IP Address:FD00:0:0:0:0:0:0:12/);
    const pair = ['-cert', join(certs, 'domain.crt'), '-key', join(certs, 'domain.key')];
    const server = machine.start('s_server', ['openssl', 's_server', '-accept', '[fd00::12]:5443', ...pair, '-www']);
    try {
      await server.ready(() => machine.answers('https://[fd00::12]:5443/'));
      await machine.must(curl(certs, 'https://[fd00::12]:5443/'));
    } finally {
      await server.stop();
    }
  });

  test('without the authority, and for another name, each refuses with its usual words', async () => {
    const [certs, other] = [await make('unknown', '--ip', machine.ip), await make('other', '--ip', '10.0.0.1')];
    const unknown = await serve(certs);
    const misnamed = await serve(other);
    try {
      assert.match(await machine.refused(skopeo(unknown.host)), /x509: certificate signed by unknown authority/);
      assert.match(await machine.refused(curl(other, `https://${unknown.host}/v2/`)), /unable to get local issuer/);
      const said = await machine.refused(skopeo(misnamed.host, other));
      assert.match(said, /x509: certificate is valid for 10\.0\.0\.1, .*, not 192\.168\.0\.12/);
      assert.match(
        await machine.refused(curl(other, `https://${misnamed.host}/v2/`)),
        /no alternative certificate subject name matches/,
      );
    } finally {
      await unknown.stop();
      await misnamed.stop();
    }
  });

  test('what a stolen authority key signs for a public name is refused by all of them', async () => {
    const certs = await make('stolen', '--ip', '192.168.0.12');
    const forged = join(dir, 'forged');
    mkdirSync(forged);
    const file = (name: string) => join(forged, name);
    copyFileSync(join(certs, 'ca.crt'), file('ca.crt'));
    writeFileSync(file('ext'), 'subjectAltName=IP:203.0.113.9,DNS:www.example.com\nextendedKeyUsage=serverAuth\n');
    await openssl(
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      file('domain.key'),
      '-subj',
      '/CN=forged one',
      '-out',
      file('csr'),
    );
    await openssl(
      ...['x509', '-req', '-in', file('csr'), '-days', '30', '-extfile', file('ext'), '-out', file('domain.crt')],
      ...['-CA', join(certs, 'ca.crt'), '-CAkey', join(certs, 'ca.key'), '-set_serial', '77'],
    );
    const verified = await run(['openssl', 'verify', '-CAfile', join(certs, 'ca.crt'), file('domain.crt')]);
    assert.match(verified.stderr, /permitted subtree violation/);
    const server = await serve(forged, '203.0.113.9');
    try {
      assert.match(await machine.refused(curl(certs, `https://${server.host}/v2/`)), /permitted subtree violation/);
      const byName = curl(certs, 'https://www.example.com/v2/', '--connect-to', `www.example.com:443:${server.host}`);
      assert.match(await machine.refused(byName), /permitted subtree violation/);
      assert.match(await machine.refused(skopeo(server.host, certs)), /is not permitted by any constraint/);
    } finally {
      await server.stop();
    }
  });

  test("the old recipe's self-signed certificate is left as it is, and is its own anchor", async () => {
    const folder = join(dir, 'old', 'certs');
    mkdirSync(folder, { recursive: true });
    await openssl(
      ...['req', '-newkey', 'rsa:2048', '-nodes', '-sha256', '-x509', '-days', '365', '-subj', '/CN=192.168.0.12'],
      ...['-addext', 'subjectAltName=IP:192.168.0.12'],
      ...['-keyout', join(folder, 'domain.key'), '-out', join(folder, 'domain.crt')],
    );
    const said = await must(program('init-certs', '--ip', '192.168.0.12'), { cwd: join(dir, 'old') });
    assert.match(said, /domain\.crt {2}reused: .*\n {2}names 192\.168\.0\.12\n {2}SHA-256 .*self-signed/);
    const trust = await must(program('trust', '--client', 'docker'), { cwd: join(dir, 'old') });
    assert.match(trust, /certs\/domain\.crt \/etc\/docker\/certs\.d\/192\.168\.0\.12:5000\/ca\.crt$/m);
  });
});
