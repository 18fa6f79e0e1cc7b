import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'init-certs-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function run(args: string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    cwd: dir,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
  });
  return { status, stdout, stderr };
}

const read = (name: string) => readFileSync(join(dir, 'certs', name), 'utf8');

test('init-certs prints every file, the names, the ends, and the next command', () => {
  const { status, stdout, stderr } = run(['init-certs', '--ip', '192.168.0.12', '--dns', 'reg.lan', '--dns', 'b.lan']);
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
  for (const file of ['ca.crt', 'ca.key', 'domain.crt', 'domain.key'])
    assert.match(stdout, new RegExp(`^${join(dir, 'certs', file)}  created: `, 'm'));
  assert.match(stdout, /names 192\.168\.0\.12, reg\.lan, b\.lan, localhost, 127\.0\.0\.1, ::1$/m);
  for (const [what, file, days] of [
    ['server certificate', 'domain.crt', 397],
    ['authority', 'ca.crt', 3650],
  ] as const) {
    const end = new Date(new X509Certificate(read(file)).validTo);
    assert.equal(Math.round((end.getTime() - Date.now()) / 86_400_000), days);
    assert.match(stdout, new RegExp(`${what}, ec-p256, until ${end.toISOString().slice(0, 10)}`));
  }
  assert.match(stdout, /^ {2}SHA-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}$/m);
  assert.match(stdout, /^next: registry-secure up$/m);
  assert.equal(statSync(join(dir, 'certs', 'domain.key')).mode & 0o777, 0o600);
  assert.doesNotMatch(stdout, /BEGIN/);
});

test('run again it reuses all; a new name reissues the server certificate alone', () => {
  run(['init-certs', '--ip', '192.168.0.12']);
  const authority = [read('ca.crt'), read('ca.key')];
  const again = run(['init-certs', '--ip', '192.168.0.12']);
  assert.equal(again.stdout.match(/ reused: /g)?.length, 4);
  const more = run(['init-certs', '--ip', '192.168.0.13']);
  assert.match(more.stdout, /domain\.crt {2}reissued: [^\n]*\n {2}names 192\.168\.0\.13, 192\.168\.0\.12, /);
  assert.deepEqual([read('ca.crt'), read('ca.key')], authority);
});

test('--out, --days, --ca-days, --key, --no-name-constraints, --json', () => {
  const options = ['--days', '30', '--ca-days', '60', '--key', 'ec-p384', '--no-name-constraints'];
  const { stdout } = run(['init-certs', '--ip', '203.0.113.9', '--out', 'my certs', ...options, '--json']);
  const made = JSON.parse(stdout);
  assert.equal(made.dir, join(dir, 'my certs'));
  assert.equal(made.authority.nameConstraints, undefined);
  assert.deepEqual([made.authority.keyKind, made.server.keyKind], ['ec-p384', 'ec-p384']);
  const days = (end: string) => Math.round((Date.parse(end) - Date.now()) / 86_400_000);
  assert.deepEqual([days(made.server.notAfter), days(made.authority.notAfter)], [30, 60]);
  assert.equal(made.server.names[0], '203.0.113.9');
  const text = run(['init-certs', '--ip', '203.0.113.9', '--out', 'my certs']).stdout;
  assert.match(
    text,
    /^next: registry-secure serve --certificate '.*my certs\/domain\.crt' --key '.*my certs\/domain\.key'$/m,
  );
});

test('--force keeps copies', () => {
  run(['init-certs', '--ip', '192.168.0.12', '--dns', 'old.lan']);
  const before = read('domain.key');
  const { stdout } = run(['init-certs', '--ip', '192.168.0.12', '--force']);
  assert.doesNotMatch(stdout, /old\.lan/);
  const copy = readdirSync(join(dir, 'certs')).find(file => file.startsWith('domain.key.'));
  assert.ok(copy);
  assert.match(stdout, new RegExp(`${copy} {2}a copy`));
  assert.equal(read(copy), before);
});

test('without names it takes those of this machine, and the ones of the environment', () => {
  assert.match(run(['init-certs']).stdout, /names .*localhost, 127\.0\.0\.1, ::1$/m);
  const { stdout } = run(['init-certs', '--out', 'b'], { REGISTRY_SECURE_NAMES: 'reg.lan 10.0.0.7' });
  assert.match(stdout, /names reg\.lan, 10\.0\.0\.7, localhost, /);
});

test('wrong input: one line that says what and how to mend it, and nothing is made', () => {
  for (const [args, status, message] of [
    [['--ip', '192.168.0.012'], 2, /octal/],
    [['--ip', 'fe80::1%eth0'], 2, /zone id/],
    [['--ip', 'reg.lan'], 2, /neither IPv4 nor IPv6/],
    [['--dns', '*.*.example.com'], 2, /wildcard/],
    [['--dns', '192.168.0.12'], 2, /--ip 192\.168\.0\.12/],
    [['--key', 'dsa'], 2, /ec-p256/],
    [['--days', '0'], 2, /whole number/],
    [['--days', '826'], 1, /^registry-secure: .*Apple.*825 days/],
    [['surplus'], 2, /too many arguments/],
  ] as const) {
    const result = run(['init-certs', ...args]);
    assert.equal(result.status, status, `${args}: ${result.stderr}`);
    assert.match(result.stderr, message);
    assert.doesNotMatch(result.stderr, /\n {4}at /);
  }
  const environment = run(['init-certs'], { REGISTRY_SECURE_NAMES: '10.0.0.0/8' });
  assert.deepEqual([environment.status, /^registry-secure: REGISTRY_SECURE_NAMES/.test(environment.stderr)], [1, true]);
  assert.deepEqual(readdirSync(dir), []);
});

test('a name that the authority may not sign for leads to a fresh one', () => {
  run(['init-certs', '--ip', '192.168.0.12']);
  const { status, stderr } = run(['init-certs', '--dns', 'reg.example.com']);
  assert.equal(status, 1);
  assert.match(stderr, /reg\.example\.com.*name constraints.*rotate-ca/);
});

test('a folder in which nothing can be made is named', () => {
  mkdirSync(join(dir, 'certs', 'ca.crt'), { recursive: true });
  const { status, stderr } = run(['init-certs', '--ip', '192.168.0.12']);
  assert.equal(status, 1);
  assert.match(stderr, /^registry-secure: .*certs\/ca\.crt is no PEM file; [^\n]+\n$/);
});
