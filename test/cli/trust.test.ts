import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureCertificates } from '../../src/pki/certificates.js';

const program = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));

let dir: string;
let fingerprint: string;
before(async () => {
  dir = mkdtempSync(join(tmpdir(), 'trust-'));
  const made = await ensureCertificates({ dir: join(dir, 'certs'), names: ['203.0.113.12', 'reg.lan', 'localhost'] });
  fingerprint = made.anchor!.fingerprint;
});
after(() => rmSync(dir, { recursive: true }));

function run(args: string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, 'trust', ...args], {
    cwd: dir,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
  });
  return { status, stdout, stderr };
}

test('trust takes the host that others use from the certificate, and shows the fingerprint', () => {
  const { status, stdout, stderr } = run([]);
  assert.deepEqual([status, stderr], [0, '']);
  assert.ok(stdout.includes(`# SHA-256 of the certificate in it: ${fingerprint}\n`));
  assert.match(
    stdout,
    /^\(cd "\$\(mktemp -d\)" && curl -fsSk -o ca\.crt https:\/\/203\.0\.113\.12:5000\/ca\.crt && echo '[0-9a-f]{64} {2}ca\.crt' \| sha256sum -c - && sudo install .*\)$/m,
  );
  assert.match(stdout, /^# registry-secure trust install 203\.0\.113\.12:5000 --fingerprint [0-9a-f]{64}$/m);
  assert.doesNotMatch(stdout, /insecure|\| *(sudo )?(ba)?sh\b/);
  assert.ok(
    stdout.includes(`\nsudo install -Dm644 ${dir}/certs/ca.crt /etc/docker/certs.d/203.0.113.12:5000/ca.crt\n`),
  );
});

test('the port is the one that the registry listens on; that of HTTPS is left out', () => {
  const at = (address: string) => run(['--client', 'podman'], { REGISTRY_HTTP_ADDR: address }).stdout;
  assert.match(at('0.0.0.0:8443'), /certs\.d\/203\.0\.113\.12:8443\/ca\.crt$/m);
  assert.match(at(':443'), /certs\.d\/203\.0\.113\.12\/ca\.crt$/m);
});

test('a configured URL of the registry goes first', () => {
  const { stdout } = run(['--client', 'podman'], { REGISTRY_HTTP_HOST: 'https://reg.lan:8443' });
  assert.match(stdout, /certs\.d\/reg\.lan:8443\/ca\.crt$/m);
});

test('the host and --client choose; a host that the certificate lacks is told', () => {
  const good = run(['reg.lan:443', '--client', 'docker', '--client', 'podman']);
  assert.equal(good.stderr, '');
  assert.deepEqual(
    good.stdout.split('\n').filter(line => line !== '' && !/^[#(]/.test(line)),
    [
      `sudo install -Dm644 ${dir}/certs/ca.crt /etc/docker/certs.d/reg.lan:443/ca.crt`,
      `sudo install -Dm644 ${dir}/certs/ca.crt /etc/containers/certs.d/reg.lan:443/ca.crt`,
    ],
  );
  const other = run(['other.lan', '--client', 'docker']);
  assert.equal(other.status, 0);
  assert.match(other.stderr, /not good for other\.lan, only for 203\.0\.113\.12, reg\.lan, localhost/);
});

test('--json has the same as data', () => {
  const { stdout } = run(['--json', '--client', 'containerd', '--dir', dir]);
  const data = JSON.parse(stdout);
  assert.deepEqual(
    [data.host, data.caFile, ...data.fingerprints],
    ['203.0.113.12:5000', join(dir, 'certs/ca.crt'), fingerprint],
  );
  assert.equal(data.clients[0].client, 'containerd');
  assert.equal(data.clients[0].commands.length, 2);
});

test('a certificate configured elsewhere is the one that counts', async () => {
  const elsewhere = join(dir, 'elsewhere');
  await ensureCertificates({ dir: elsewhere, names: ['10.9.8.7'] });
  const { stdout } = run(['--client', 'docker'], {
    REGISTRY_HTTP_TLS_CERTIFICATE: join(elsewhere, 'domain.crt'),
    REGISTRY_HTTP_TLS_KEY: join(elsewhere, 'domain.key'),
  });
  assert.match(stdout, /elsewhere\/ca\.crt \/etc\/docker\/certs\.d\/10\.9\.8\.7:5000\/ca\.crt$/m);
});

test('a client certificate needs its key', () => {
  const half = run(['--client', 'docker', '--client-cert', 'alice.crt']);
  assert.deepEqual([half.status, half.stdout], [1, '']);
  assert.match(half.stderr, /give both --client-cert and --client-key/);
  const both = run(['--client', 'docker', '--client-cert', 'alice.crt', '--client-key', 'alice.key']);
  assert.match(
    both.stdout,
    /^sudo install -Dm600 alice\.key \/etc\/docker\/certs\.d\/203\.0\.113\.12:5000\/client\.key$/m,
  );
});

test('no certificate, an unknown client, a host that is none: one line each', () => {
  for (const [args, message] of [
    [['--dir', join(dir, 'nowhere')], /domain\.crt does not exist; .*init-certs/],
    [['--client', 'dockre'], /"dockre"; use one of docker, /],
    [['https://reg.lan'], /scheme/],
  ] as const) {
    const { status, stdout, stderr } = run([...args]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, message);
    assert.equal(stderr.trim().split('\n').length, 1);
  }
});

test('a reader that has seen enough is no error', async () => {
  const child = spawn(process.execPath, [program, 'trust'], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  const [stderr, [status]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
  assert.deepEqual([status, stderr], [0, '']);
});
