import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LONGEST_LINE } from '../../src/audit/chain.js';
import type { AuditEvent } from '../../src/audit/event.js';
import { Part } from '../../src/audit/part.js';
import { AuditFolder } from '../support/audit.js';

const event = (n: number): AuditEvent => ({ type: 'push', outcome: 'done', who: 'alice', what: { n } });

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, 'not within a minute');
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

describe('the audit log', () => {
  test('says who did what, from where and with what outcome, in order', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    log.record({
      type: 'push',
      outcome: 'done',
      who: 'alice',
      realm: 'staff',
      via: 'password',
      from: '192.0.2.7',
      what: { repository: 'team/app', tags: ['v1', 'latest'], size: 7 },
      request: '0a1b-1',
    });
    log.record({ type: 'login', outcome: 'refused' });
    await log.close();
    const [opening, push, login, closing] = await audit.events();
    assert.deepEqual([opening!.type, opening!.pid, opening!.program], ['audit.open', process.pid, 'test']);
    const { chain, seq, prev, time, ...said } = push!;
    assert.deepEqual([chain, seq], [log.chain, 2]);
    assert.match(prev as string, /^[0-9a-f]{64}$/);
    assert.ok(Math.abs(Date.parse(time as string) - Date.now()) < 60_000);
    assert.deepEqual(said, {
      type: 'push',
      outcome: 'done',
      who: 'alice',
      realm: 'staff',
      via: 'password',
      from: '192.0.2.7',
      what: { repository: 'team/app', tags: ['v1', 'latest'], size: 7 },
      request: '0a1b-1',
    });
    assert.deepEqual([login!.type, login!.outcome, 'who' in login!], ['login', 'refused', false]);
    assert.equal(closing!.type, 'audit.close');
  });

  test('is for its owner alone, in a file of its own for each process', async t => {
    const audit = await AuditFolder.create(t);
    const logs = await Promise.all([audit.open(), audit.open(), audit.open()]);
    const files = await audit.files();
    assert.equal(files.length, 3);
    for (const name of files) assert.equal((await stat(audit.path(name))).mode & 0o777, 0o600);
    assert.equal((await stat(audit.folder)).mode & 0o777, 0o700);
    assert.equal((await stat(join(audit.root, 'data/registry-secure/audit/key'))).mode & 0o777, 0o600);
    await Promise.all(logs.map(log => log.close()));
  });

  test('takes any text as text: no line, no terminal and no size can be forged', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    const odd = [
      'a\n{"chain":"x"}',
      'a\r\x1b[2J\x00\x7f\x9b31m',
      '\u2028\u2029\u202e',
      '\ud800 lone \udfff',
      '"},"type":"login","who":"root',
      '\\"\\\\',
      'ü'.repeat(100_000),
      '💥'.repeat(1000),
    ];
    for (const text of odd)
      log.record({ type: 'login', outcome: 'refused', who: text, what: { text, list: Array(5000).fill(text) } });
    await log.close();
    const [name] = (await audit.files()) as [string];
    const bytes = await readFile(audit.path(name));
    assert.ok(
      bytes.every(byte => byte === 0x0a || (byte >= 0x20 && byte <= 0x7e)),
      'printable ASCII',
    );
    const events = await audit.events();
    assert.equal(events.length, odd.length + 2);
    for (const [index, text] of odd.entries()) {
      const { type, who, what } = events[index + 1] as { type: string; who: string; what: { list: string[] } };
      assert.equal(type, 'login');
      assert.ok(text.length > 512 ? text.startsWith(who.slice(0, 512)) && who.endsWith('…') : who === text);
      assert.deepEqual([what.list.length, what.list[100]], [101, '… 4900 more']);
    }
    for (const line of await audit.lines(name)) assert.ok(line.length < LONGEST_LINE);
    assert.deepEqual((await audit.verify()).findings, []);
  });

  test('begins another file when one is large enough, or old enough, also where nothing happens', async t => {
    const audit = await AuditFolder.create(t);
    const large = await audit.open({ rotateSize: 1 });
    large.record(event(1));
    await until(async () => (await audit.files()).length >= 2);
    await large.close();
    const before = (await audit.files()).length;
    const old = await audit.open({ rotateAge: 100 });
    await until(async () => (await audit.files()).length >= before + 3);
    await old.close();
    const { findings } = await audit.verify();
    assert.deepEqual(findings, []);
  });
});

describe('an audit log that cannot be written', () => {
  test('keeps nobody waiting, keeps what there is room for, and says later what is missing', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    log.record(event(0));
    await until(async () => (await audit.events()).length === 2);
    const full = t.mock.method(Part.prototype, 'append', async () => {
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    });
    const count = 60_000;
    const long = 'x'.repeat(400);
    for (let n = 1; n <= count; n++) log.record({ ...event(n), what: { n, long } });
    await until(() => audit.reported.length > 0);
    assert.deepEqual(audit.reported, ['the audit log cannot be written']);
    await log.recorded(event(count + 1));
    full.mock.restore();
    await until(() => audit.reported.length > 1);
    assert.deepEqual(audit.reported.slice(1), ['the audit log is written again']);
    await log.close();
    const events = await audit.events();
    const pushes = events.filter(({ type }) => type === 'push');
    const gaps = events.filter(({ type }) => type === 'audit.gap') as Array<{ what: { events: number } }>;
    assert.equal(gaps.length, 1);
    assert.ok(gaps[0]!.what.events > 1000, 'more than could be kept');
    assert.equal(pushes.length + gaps[0]!.what.events, count + 2);
    const { findings, notes } = await audit.verify();
    assert.deepEqual(findings, []);
    assert.match(notes.join(), /tells of events that could not be written/);
  });

  test('writes over what was written in part', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    const [name] = (await audit.files()) as [string];
    const { append } = Part.prototype;
    let failures = 0;
    t.mock.method(Part.prototype, 'append', async function (this: Part, bytes: Buffer) {
      if (failures++ > 0) return append.call(this, bytes);
      await appendFile(audit.path(name), bytes.subarray(0, 30));
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    });
    log.record(event(1));
    await until(() => audit.reported.length === 2);
    assert.deepEqual(audit.reported, ['the audit log cannot be written', 'the audit log is written again']);
    await log.close();
    assert.deepEqual(
      (await audit.events()).map(({ type }) => type),
      ['audit.open', 'push', 'audit.close'],
    );
    assert.deepEqual((await audit.verify()).findings, []);
  });

  test('that was moved or cut off goes on in another file, and verify misses what is gone', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    const [name] = (await audit.files()) as [string];
    await rename(audit.path(name), join(audit.root, 'away'));
    log.record(event(1));
    await until(async () => (await audit.files()).length === 1);
    assert.match(audit.reported.join(), /moved, removed or cut off; another one is begun/);
    log.record(event(2));
    await log.close();
    assert.deepEqual((await audit.verify()).kinds, ['file-missing']);
    await rename(join(audit.root, 'away'), audit.path(name));
    assert.deepEqual((await audit.verify()).findings, []);
    assert.equal((await audit.events()).filter(({ type }) => type === 'push').length, 2);
  });

  test('at all is said at the start', async t => {
    const audit = await AuditFolder.create(t);
    await assert.rejects(audit.open({ folder: '/dev/null/audit' }), {
      name: 'OperatorError',
      message: /^the audit log in \/dev\/null\/audit cannot be written \(ENOTDIR\)$/,
      fix: /audit\.folder/,
    });
  });
});

describe('a process that ends', () => {
  const script = fileURLToPath(new URL('../support/audit-process.js', import.meta.url));
  const start = (audit: AuditFolder, ...more: string[]) =>
    spawn(process.execPath, [script, join(audit.root, 'data'), audit.folder, ...more], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });

  test('by SIGKILL leaves whole lines and at most one that is torn; others go on rightly', async t => {
    const audit = await AuditFolder.create(t);
    for (let round = 0; round < 6; round++) {
      const child = start(audit);
      await once(child.stdout, 'data');
      await new Promise(resolve => setTimeout(resolve, round * 37));
      child.kill('SIGKILL');
      await once(child, 'exit');
      const { findings, report } = await audit.verify();
      assert.deepEqual(findings, [], `round ${round}`);
      assert.equal(report.chains, round + 1);
    }
    const pushes = (await audit.events()).filter(({ type }) => type === 'push');
    assert.ok(pushes.length >= 6 * 40, `${pushes.length} events`);
  });

  test('without closing it loses nothing', async t => {
    const audit = await AuditFolder.create(t);
    const child = start(audit, '5000');
    const [status] = await once(child, 'exit');
    assert.equal(status, 0);
    const numbers = (await audit.events()).flatMap(({ type, what }) =>
      type === 'push' ? [(what as { n: number }).n] : [],
    );
    assert.deepEqual(
      numbers,
      Array.from({ length: 5000 }, (_, index) => index + 1),
    );
    assert.deepEqual((await audit.verify()).findings, []);
  });
});
