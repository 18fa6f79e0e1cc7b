import assert from 'node:assert/strict';
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Diagnosis } from '../../src/doctor/check.js';
import { forge } from '../support/forge.js';
import { LocalRegistry } from '../support/local-registry.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'doctor-cli-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const doctor = (...args: string[]) => LocalRegistry.run(dir, ['doctor', '--dir', dir, ...args]);

async function findings(...args: string[]): Promise<{ status: number | null; found: Diagnosis[]; text: string }> {
  const { status, stdout, stderr } = await doctor('--json', ...args);
  assert.ok(stdout.startsWith('{'), stderr);
  const found = (JSON.parse(stdout) as { findings: Diagnosis[] }).findings;
  const text = found
    .filter(({ severity }) => severity !== 'ok')
    .map(one => `${one.check} ${one.severity} ${one.message}`);
  return { status, found, text: text.join('\n') };
}

test('a registry that runs well: one line, and exit code 0; with --verbose what was looked at', async t => {
  const registry = await LocalRegistry.start(dir, ['up', '--ip', '192.168.0.12']);
  t.after(() => registry.child.kill('SIGKILL'));
  const addr = ['--addr', `127.0.0.1:${registry.port}`];
  const { status, stdout, stderr } = await doctor(...addr);
  assert.deepEqual([status, stderr], [0, ''], stdout);
  assert.match(stdout, /^All is well \(\d+ looked at\)\.\n$/);
  const verbose = (await doctor(...addr, '--verbose')).stdout;
  for (const said of [
    /domain\.crt is good for 192\.168\.0\.12/,
    /clients install .*ca\.crt/,
    /1 user can log in/,
    /GiB left/,
    /serves the certificate that is on the disk/,
  ])
    assert.match(verbose, said);

  const other = forge({ names: ['192.168.0.12'] });
  await registry.stop();
  const found = await findings(...addr);
  assert.equal(found.status, 1);
  assert.match(found.text, /^server warning no registry runs at 127\.0\.0\.1:\d+; the port is free$/);

  writeFileSync(join(dir, 'certs/domain.crt'), other.pem);
  writeFileSync(join(dir, 'certs/domain.key'), other.keyPem);
  chmodSync(join(dir, 'certs/ca.key'), 0o644);
  appendFileSync(join(dir, 'auth/htpasswd'), `bob:$apr1$x$y\ncarol:${'$2y$04$'}${'a'.repeat(53)}\n`);
  writeFileSync(join(dir, 'data/registry-secure/format'), '7\n');
  const broken = (await findings(...addr)).text;
  for (const said of [
    /^certificate warning .*signed by itself/m,
    /^authority error .*ca\.key can be read by others/m,
    /^htpasswd warning .*\$apr1\$.*not bcrypt/m,
    /^htpasswd warning .*bcrypt cost 4 of user "carol" is guessed quickly/m,
    /^data error .*says format 7, and this version knows 1 only/m,
  ])
    assert.match(broken, said);
});

test('an empty folder: what is not there yet; an invalid configuration hides nothing else', async () => {
  const { status, text, found } = await findings('--addr', '127.0.0.1:1');
  assert.equal(status, 1);
  assert.match(text, /certificate warning there is no certificate yet/);
  assert.match(text, /htpasswd warning there are no users yet/);
  assert.match(text, /data warning there is no data folder/);
  assert.ok(
    found.every(({ message }) => !/could not be looked at/.test(message)),
    text,
  );
  mkdirSync(join(dir, 'auth'));
  writeFileSync(join(dir, 'auth/htpasswd'), 'alice secret-word\n');
  const plain = (await findings('--addr', '127.0.0.1:1')).text;
  assert.match(plain, /^htpasswd error .*line 1: no colon/m);
  assert.doesNotMatch(plain, /secret-word/);
  writeFileSync(join(dir, 'config.yml'), '{version: 0.1, http: {addr: nonsense}}');
  const invalid = await findings('--config', join(dir, 'config.yml'));
  assert.match(invalid.text, /^config error .*nonsense/m);
  assert.doesNotMatch(invalid.text, /could not be looked at/);
});

test('the port is held by another program, or not to be had; the folder holds something else', async () => {
  const other = createServer((_request, response) => void response.end('hello'));
  await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve));
  const { port } = other.address() as AddressInfo;
  mkdirSync(join(dir, 'data'));
  writeFileSync(join(dir, 'data/photo.jpg'), '');
  const { found, text } = await findings('--addr', `127.0.0.1:${port}`);
  other.close();
  assert.match(text, /^server error what answers at 127\.0\.0\.1:\d+ is not this registry/m);
  assert.deepEqual(found.at(-1)?.commands, [`sudo ss -ltnp 'sport = :${port}'`]);
  assert.match(text, /^data warning .*holds something else than a registry \(photo\.jpg\)/m);
  assert.match(
    (await findings('--addr', '203.0.113.7:5000')).text,
    /^server error .*this machine has no address 203\.0\.113\.7/m,
  );
});

test('a registry elsewhere: what is wrong, what clients show, what mends it; JSON has the same', async t => {
  const registry = await LocalRegistry.start(dir, ['up', '--ip', '192.168.0.12']);
  t.after(() => registry.child.kill('SIGKILL'));
  const host = `127.0.0.1:${registry.port}`;
  const env = { HOME: dir, XDG_CONFIG_HOME: join(dir, 'config') };
  const args = ['doctor', host, '--client', 'podman'];
  const { status, stdout } = await LocalRegistry.run(dir, args, { env });
  assert.equal(status, 1);
  assert.match(
    stdout,
    /^ERROR {4}Podman.*there is no \/etc\/containers\/certs\.d\/127\.0\.0\.1:\d+\/ca\.crt.*\n +clients show: certificate signed by unknown authority\n +mend it: .*registry-secure trust install/m,
  );
  assert.match(stdout, /\n\d errors?, \d warnings?; \d+ well\.\n$/);
  const json = JSON.parse((await LocalRegistry.run(dir, [...args, '--json'], { env })).stdout);
  assert.equal(json.host, host);
  assert.ok(json.errors >= 1);
  assert.ok(
    json.findings.some((finding: { shows?: string }) => finding.shows === 'certificate signed by unknown authority'),
  );

  // With the authority in place all is well, and a password is tried, but shown nowhere.
  const certs = join(dir, '.config/containers/certs.d', host);
  mkdirSync(certs, { recursive: true });
  writeFileSync(join(certs, 'ca.crt'), readFileSync(join(dir, 'certs/ca.crt')));
  const well = await LocalRegistry.run(dir, [...args, '--user', 'admin', '--password-stdin', '--verbose'], {
    env,
    input: `${registry.password}\n`,
  });
  await registry.stop();
  assert.match(well.stdout, /Podman, Buildah, Skopeo, CRI-O trusts the certificate/);
  assert.ok(!`${well.stdout}${well.stderr}`.includes(registry.password));
});

test('what the command line cannot mean is exit code 2', async () => {
  for (const [args, said] of [
    [['https://reg.lan'], /has a scheme, a port or a path/],
    [['reg.lan:0'], /no port 0/],
    [['reg.lan', '--client', 'nobody'], /no instructions for a client "nobody"/],
    [['--client', 'docker'], /--client is for another machine's registry/],
    [['--user', 'alice'], /--user is for another machine's registry/],
    [['reg.lan', '--password-stdin'], /a password without a user/],
    [['--nonsense'], /unknown option/],
  ] as const) {
    const { status, stderr } = await doctor(...args);
    assert.equal(status, 2, stderr);
    assert.match(stderr, said);
  }
});
