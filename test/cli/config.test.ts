import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const program = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));
let folder: string;
let file: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'config-cli-'));
  file = join(folder, 'config.yml');
});
after(() => rmSync(folder, { recursive: true }));

/** Runs `registry-secure config …` on a file of this text, with no REGISTRY_* but these. */
function config(text: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  writeFileSync(file, text);
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('REGISTRY_')));
  const [command, ...rest] = args;
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, 'config', command!, file, ...rest], {
    encoding: 'utf8',
    cwd: folder,
    env: { ...clean, ...env },
  });
  return { status, stdout: stdout.replaceAll(`${folder}/`, ''), stderr: stderr.replaceAll(`${folder}/`, '') };
}

test('check: valid, with its warnings', () => {
  assert.deepEqual(config('version: 0.1\nhttp: {debug: {addr: ":5001"}}\n', ['check']), {
    status: 0,
    stdout: 'warning: config.yml:2:8: http.debug has no effect; remove it\nconfig.yml: valid\n',
    stderr: '',
  });
});

test('check: every problem, a line each, and exit code 1', () => {
  const { status, stdout } = config('storage: oss\n', ['check', '--addr', '5000'], { REGISTRY_LOG_LEVEL: 'loud' });
  assert.equal(status, 1);
  assert.deepEqual(stdout.split('\n'), [
    'error: config.yml:1:1: storage.oss is not supported; use storage.filesystem, or storage.s3 where it speaks that API',
    'error: REGISTRY_LOG_LEVEL: log.level "loud" is not known here; write one of: error, warn, info, debug',
    'error: --addr: http.addr "5000" has no colon before the port; write :5000 or 0.0.0.0:5000',
    'config.yml: invalid',
    '',
  ]);
});

test('check: the same for a machine', () => {
  const { status, stdout } = config('auth: silly\n', ['check', '--json']);
  assert.equal(status, 1);
  assert.deepEqual(JSON.parse(stdout), {
    valid: false,
    file: 'config.yml',
    problems: [
      {
        what: 'config.yml:1:1: auth.silly is not supported',
        fix: 'use auth.htpasswd, or auth.none for an open registry',
      },
    ],
    warnings: [],
  });
});

test('print: YAML with the source of each value, and no secret', () => {
  const { status, stdout, stderr } = config(
    'http: {addr: ":5000", secret: hunter2, headers: {Authorization: [hunter2]}}\n',
    ['print', '--log-level', 'debug', '--insecure-plain-http'],
    { REGISTRY_HTTP_DRAINTIMEOUT: '90s' },
  );
  assert.equal(status, 0);
  for (const line of [
    '# config.yml',
    '  level: debug # --log-level',
    '  addr: :5000 # file config.yml',
    '  draintimeout: 1m30s # REGISTRY_HTTP_DRAINTIMEOUT',
    '  insecureplainhttp: true # --insecure-plain-http',
    '    rootdirectory: /var/lib/registry # default',
  ])
    assert.ok(stdout.split('\n').includes(line), `${line}\n${stdout}`);
  assert.equal((parse(stdout) as { http: { secret: string } }).http.secret, '***');
  assert.match(stderr, /^registry-secure: warning: config\.yml:1:23: http\.secret has no effect/);
  assert.match(stderr, /^registry-secure: warning: --insecure-plain-http: http\.insecureplainhttp turns TLS off/m);
  assert.ok(!(stdout + stderr).includes('hunter2'));
});

test('print: JSON', () => {
  const { stdout } = config('log: {level: warn}\n', ['print', '--json', '--dir', '/srv/registry']);
  const { file, values } = JSON.parse(stdout) as { file: string; values: Record<string, unknown> };
  assert.equal(file, 'config.yml');
  assert.deepEqual(values['log.level'], { value: 'warn', source: 'file config.yml' });
  assert.deepEqual(values['auth.htpasswd.path'], { value: '/srv/registry/auth/htpasswd', source: 'default' });
});

test('print: an invalid configuration is one line and exit code 1', () => {
  assert.deepEqual(config('http: {addr: 5000}\n', ['print']), {
    status: 1,
    stdout: '',
    stderr:
      'registry-secure: config.yml:1:8: http.addr "5000" has no colon before the port; write :5000 or 0.0.0.0:5000\n',
  });
});

test('a wrong option is exit code 2', () => {
  assert.equal(config('', ['check', '--adr', ':1']).status, 2);
});
