import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { digestOf, manifestOf } from '../support/registry-fixture.js';

interface Line {
  readonly type: string;
  readonly outcome: string;
  readonly who?: string;
  readonly via?: string;
  readonly from?: string;
  readonly what: Record<string, unknown>;
  readonly request?: string;
}

let dir: string;
let registry: LocalRegistry | undefined;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'registry-secure-audit-'));
});
afterEach(async () => {
  await registry?.stop();
  registry = undefined;
  rmSync(dir, { recursive: true, force: true });
});

const folder = () => join(dir, 'audit');
const files = () => readdirSync(folder()).sort();

function lines(type?: string): Line[] {
  const all = files().flatMap(name => readFileSync(join(folder(), name), 'utf8').split('\n').slice(0, -1));
  return all.map(line => JSON.parse(line) as Line).filter(line => type === undefined || line.type === type);
}

/** `audit verify --json` here: exit code and report. */
async function verify(...args: string[]) {
  const { status, stdout, stderr } = await LocalRegistry.run(dir, ['audit', 'verify', '--dir', dir, '--json', ...args]);
  return { status, stderr, report: stdout === '' ? undefined : JSON.parse(stdout) };
}

/** In one step: a file that is being rewritten may be read as it is, which is a line in the log. */
function write(name: string, text: string): void {
  writeFileSync(join(dir, `${name}.new`), text);
  renameSync(join(dir, `${name}.new`), join(dir, name));
}

const POLICY = 'rules:\n  - {who: [authenticated], may: [push, delete], on: ["team/**"]}\n';

async function start(): Promise<LocalRegistry> {
  writeFileSync(join(dir, 'policy.yml'), POLICY);
  registry = await LocalRegistry.start(dir, ['up'], {
    env: { REGISTRY_STORAGE_DELETE_ENABLED: 'true', REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml') },
  });
  return registry;
}

async function push(repository: string, tag: string, auth: string): Promise<string> {
  const config = Buffer.from(JSON.stringify({ tag, at: process.hrtime.bigint().toString() }));
  const data = manifestOf(config, []);
  const blob = `/v2/${repository}/blobs/uploads/?digest=${digestOf(config)}`;
  assert.equal((await registry!.call('POST', blob, { auth, body: config })).status, 201);
  const put = await registry!.call('PUT', `/v2/${repository}/manifests/${tag}`, { auth, body: data });
  assert.equal(put.status, 201, put.body.toString());
  return digestOf(data);
}

describe('the audit log of a registry', () => {
  test('tells who did what, from where and with what outcome', async () => {
    const served = await start();
    const auth = `admin:${served.password}`;
    const one = await push('team/app', 'v1', auth);
    const two = await push('team/app', 'v1', auth);
    for (const path of ['manifests/v1', `manifests/${one}`])
      assert.equal((await served.call('DELETE', `/v2/team/app/${path}`, { auth })).status, 202);
    assert.equal((await served.call('DELETE', '/api/v1/repositories/team/app', { auth })).status, 204);
    assert.equal((await served.call('GET', '/v2/other/manifests/v1', { auth })).status, 403);
    assert.equal((await served.call('GET', '/v2/')).status, 401);
    // Each six seconds forgive one.
    let wrong = 0;
    const guess = () => served.call('GET', '/v2/', { auth: `admin:wrong${wrong}` });
    while (wrong < 25 && (await guess()).status === 401) wrong++;
    assert.ok(wrong >= 10 && wrong < 25, `${wrong}`);
    assert.equal((await served.call('GET', '/v2/', { auth: 'nobody:wrong' })).status, 401);
    write('policy.yml', `${POLICY}# and nothing else\n`);
    await served.until(() => lines('rights.reload').length > 0);
    write('policy.yml', 'nonsense');
    await served.until(() => lines('rights.reload').length > 1);
    const added = await LocalRegistry.run(dir, ['user', 'add', 'bob', '--password-stdin'], { input: 'long enough\n' });
    assert.deepEqual([added.status, added.stderr], [0, '']);
    await served.until(() => lines('users.reload').length > 0);
    const allow = ['--allow', 'pull:team/**', '--dir', dir];
    const token = await LocalRegistry.run(dir, ['token', 'create', '--user', 'bob', ...allow]);
    assert.equal(token.status, 0, token.stderr);
    const byToken = `bob:${token.stdout.trim()}`;
    await served.until(async () => (await served.call('GET', '/v2/', { auth: byToken })).status === 200);
    assert.equal((await LocalRegistry.run(dir, ['user', 'disable', 'bob', '--dir', dir])).status, 0);
    const again = await LocalRegistry.run(dir, ['user', 'add', 'bob', '--password-stdin'], { input: 'long enough\n' });
    assert.equal(again.status, 1);

    const brief = (type: string, ...names: string[]) =>
      lines(type).map(({ outcome, who, via, from, what }) => [
        outcome,
        who,
        via,
        from,
        ...names.map(name => what[name]),
      ]);
    const by = ['done', 'admin', 'password', '127.0.0.1'];
    const [made] = lines('token.create');
    assert.deepEqual([made!.what.user, made!.what.allow], ['bob', ['pull:team/**']]);
    const login = lines('login');
    assert.deepEqual(
      login.map(({ who, via, from, what }) => [who, via, from, what?.token]),
      [
        ['admin', 'password', '127.0.0.1', undefined],
        ['bob', 'machine-token', '127.0.0.1', made!.what.id],
      ],
    );
    assert.deepEqual(
      lines('user.disable').map(({ what }) => what),
      [{ name: 'bob' }],
    );
    assert.match(login[0]!.request!, /^[0-9a-f]{8}-/);
    assert.deepEqual(brief('push', 'repository', 'digest', 'tags'), [
      [...by, 'team/app', one, ['v1']],
      [...by, 'team/app', two, ['v1']],
    ]);
    assert.deepEqual(brief('tag.move', 'repository', 'tags', 'before', 'digest'), [
      [...by, 'team/app', ['v1'], one, two],
    ]);
    assert.deepEqual(brief('delete', 'kind', 'repository', 'tags', 'digest'), [
      [...by, 'tag', 'team/app', ['v1'], undefined],
      [...by, 'manifest', 'team/app', undefined, one],
      [...by, 'repository', 'team/app', undefined, undefined],
    ]);
    const refusals = lines('refusal').map(({ who, via, what }) => [what.status, what.reason, who, via]);
    assert.deepEqual(refusals, [
      [403, 'you have no right to pull here', 'admin', 'password'],
      [401, 'no credentials', undefined, undefined],
      ...Array(wrong).fill([401, 'wrong credentials', 'admin', undefined]),
      [429, 'too many failed logins', 'admin', undefined],
      [401, 'wrong credentials', undefined, undefined],
    ]);
    const [changed, bad] = lines('rights.reload');
    assert.deepEqual([changed!.outcome, bad!.outcome], ['done', 'failed']);
    assert.deepEqual(changed!.what.before, [digestOf(Buffer.from(POLICY))]);
    assert.deepEqual(bad!.what.before, changed!.what.after, 'what counted before counts still');
    assert.deepEqual(lines('users.reload')[0]!.what.added, ['bob']);
    assert.deepEqual(
      lines('user.add').map(({ outcome, via, what }) => [outcome, via, what.name ?? what.user]),
      [
        ['done', undefined, 'admin'],
        ['done', 'command', 'bob'],
        ['failed', 'command', 'bob'],
      ],
    );
    assert.equal(lines('certificate.create').length, 1);
    assert.deepEqual((await verify()).report.details, []);
    assert.equal(await served.stop(), 0);
    const { status, report } = await verify();
    assert.deepEqual([status, report.intact, report.chains, report.notes], [0, true, 5, []]);
  });

  test('counts a flood instead of writing it down', async () => {
    const served = await start();
    const begun = performance.now();
    const answers = await Promise.all(Array.from({ length: 60 }, () => served.call('GET', '/v2/')));
    assert.ok(answers.every(({ status }) => status === 401));
    assert.equal(await served.stop(), 0);
    const told = lines('refusal').map(({ what }) => what);
    assert.ok(told.every(({ reason }) => reason === 'no credentials'));
    // A line of its own for the first of each minute, and one for all others of it.
    const alone = told.filter(({ more }) => more === undefined).length;
    assert.equal(alone + told.reduce((sum, { more }) => sum + ((more as number | undefined) ?? 0), 0), 60);
    const minutes = 1 + Math.floor((performance.now() - begun) / 60_000);
    assert.ok(told.length <= 2 * minutes, `${told.length} lines in ${minutes} minutes`);
  });

  test('is a chain of its own in each of several processes', async () => {
    registry = await LocalRegistry.start(dir, ['up'], { env: { REGISTRY_WORKERS: '2' } });
    await registry.until(() => /all workers serve/.test(registry!.stderr));
    for (let i = 0; i < 20; i++) await registry.call('GET', '/v2/', { auth: `admin:${registry.password}` });
    assert.equal(await registry.stop(), 0);
    const opened = lines('audit.open') as unknown as Array<{ pid: number }>;
    assert.equal(new Set(opened.map(({ pid }) => pid)).size, 2);
    const { status, report } = await verify();
    assert.deepEqual([status, report.chains, report.notes], [0, 2, []]);
    assert.ok(lines('login').length >= 1);
  });

  test('outlives SIGKILL, and the next process goes on', async () => {
    let served = await start();
    const auth = `admin:${served.password}`;
    const digest = await push('team/app', 'v1', auth);
    assert.equal(await served.stop('SIGKILL'), null);
    assert.deepEqual(
      lines('push').map(({ what }) => what.digest),
      [digest],
      'what was answered is in the log',
    );
    assert.equal((await verify()).status, 0);
    served = await start();
    await push('team/app', 'v2', auth);
    assert.equal(await served.stop(), 0);
    assert.equal((await verify()).status, 0);
    assert.equal(lines('push').length, 2);
  });

  test('is checked by audit verify, with exit codes for each case', async () => {
    const nothing = await verify();
    assert.equal(nothing.status, 3, 'no data at all');
    assert.match(nothing.stderr, /there is no data folder/);
    assert.equal((await verify('missing.yml')).status, 3);
    const served = await start();
    await push('team/app', 'v1', `admin:${served.password}`);
    assert.equal(await served.stop(), 0);
    const [name] = files() as [string];
    const whole = readFileSync(join(folder(), name), 'utf8');
    writeFileSync(join(folder(), name), whole.replace('"who":"admin"', '"who":"carol"'));
    const tampered = await verify();
    assert.equal(tampered.status, 1);
    assert.deepEqual(
      tampered.report.details.map(({ kind, file }: { kind: string; file: string }) => [kind, file]),
      [['changed', name]],
    );
    const alone = await verify('--file', join(folder(), name));
    assert.deepEqual([alone.status, alone.report.details.length], [1, 1]);
    const said = await LocalRegistry.run(dir, ['audit', 'verify', '--dir', dir]);
    assert.match(said.stdout, /^changed: .*NOT as it was written, 1 findings\n$/s);
    rmSync(join(folder(), name));
    assert.deepEqual([(await verify()).status, (await verify('--file', join(folder(), name))).status], [1, 3]);
    rmSync(folder(), { recursive: true });
    const gone = await verify();
    assert.equal(gone.status, 1);
    assert.match(gone.report.notes[0], /^there is no folder .*audit; is this the configuration, or --dir, with which/);
    rmSync(join(dir, 'data/registry-secure/audit'), { recursive: true });
    const unknown = await verify();
    assert.equal(unknown.status, 3);
    assert.match(unknown.stderr, /there is no key of an audit log in /);
  });

  test('is off where it is switched off, and its seals go where they are told to', async () => {
    registry = await LocalRegistry.start(dir, ['up'], { env: { REGISTRY_AUDIT_ENABLED: 'false' } });
    assert.ok(!readdirSync(dir).includes('audit'));
    await registry.stop();
    const head = mkdtempSync(join(tmpdir(), 'registry-secure-head-'));
    try {
      const env = { REGISTRY_AUDIT_HEAD: head, REGISTRY_AUDIT_FOLDER: join(dir, 'elsewhere') };
      registry = await LocalRegistry.start(dir, ['up'], { env });
      await registry.stop();
      assert.equal(readdirSync(join(head, 'registry-secure/audit/heads')).length, 1);
      assert.ok(!readdirSync(join(dir, 'data/registry-secure')).includes('audit'));
      const checked = await LocalRegistry.run(dir, ['audit', 'verify', '--dir', dir], { env });
      assert.deepEqual([checked.status, checked.stderr], [0, '']);
    } finally {
      rmSync(head, { recursive: true });
    }
  });
});
