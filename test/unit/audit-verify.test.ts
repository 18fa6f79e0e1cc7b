import assert from 'node:assert/strict';
import { appendFile, cp, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { hashOf } from '../../src/audit/chain.js';
import type { AuditLog } from '../../src/audit/log.js';
import { verifyFile } from '../../src/audit/verify.js';
import { AuditFolder } from '../support/audit.js';

const event = (n: number) => ({ type: 'push', outcome: 'done' as const, who: 'alice', what: { n } });

function fill(log: AuditLog, from: number, to: number): void {
  for (let n = from; n <= to; n++) log.record(event(n));
}

/** A chain of one file with eight events, ended: ten lines. */
async function ended(t: TestContext) {
  const audit = await AuditFolder.create(t);
  const log = await audit.open();
  fill(log, 1, 8);
  await log.close();
  const [name] = (await audit.files()) as [string];
  const rewrite = async (change: (lines: string[]) => string[]) =>
    writeFile(
      audit.path(name),
      change(await audit.lines(name))
        .map(line => `${line}\n`)
        .join(''),
    );
  return { audit, name, rewrite };
}

/** A chain of several files, ended. */
async function rotated(t: TestContext) {
  const audit = await AuditFolder.create(t);
  const log = await audit.open({ rotateSize: 1000 });
  // Each in a write of its own: a file is followed by the next between two of them.
  for (let n = 1; n <= 12; n++) await log.recorded(event(n));
  await log.close();
  const files = await audit.files();
  assert.ok(files.length >= 3, `${files.length} files`);
  return { audit, files };
}

describe('what nobody has touched', () => {
  test('is intact: one file, several files, several chains, chains that are being written', async t => {
    const { audit } = await rotated(t);
    const one = await audit.open();
    fill(one, 1, 10);
    await one.close();
    const [two, three] = await Promise.all([audit.open(), audit.open()]);
    fill(two, 1, 3000);
    fill(three, 1, 3);
    const { report, findings } = await audit.verify();
    assert.deepEqual(findings, []);
    assert.equal(report.chains, 4);
    await Promise.all([two.close(), three.close()]);
    const after = await audit.verify();
    assert.deepEqual([after.findings, after.notes], [[], []]);
    assert.ok(after.report.lines > 3000);
  });
});

describe('what verify finds', () => {
  test('each single line that is changed, taken out, doubled or moved', async t => {
    const { audit, name, rewrite } = await ended(t);
    const whole = await readFile(audit.path(name));
    const count = (await audit.lines(name)).length;
    assert.equal(count, 10);
    for (let at = 0; at < count; at++) {
      const changes: Record<string, (lines: string[]) => string[]> = {
        changed: lines => lines.with(at, lines[at]!.replace('"time":"2', '"time":"3')),
        'taken out': lines => lines.toSpliced(at, 1),
        doubled: lines => lines.toSpliced(at, 0, lines[at]!),
        moved: lines => lines.toSpliced(at, 1).toSpliced((at + 3) % (count - 1), 0, lines[at]!),
        'replaced by nonsense': lines => lines.with(at, 'nonsense'),
        'replaced by nothing': lines => lines.with(at, ''),
        'one more of somebody else': lines => lines.toSpliced(at, 0, '{"chain":"x","seq":1,"prev":"","type":"push"}'),
      };
      for (const [what, change] of Object.entries(changes)) {
        await rewrite(change);
        assert.ok((await audit.verify()).findings.length > 0, `line ${at + 1} ${what}`);
        await writeFile(audit.path(name), whole);
      }
    }
    assert.deepEqual((await audit.verify()).findings, []);
  });

  test('says which line', async t => {
    const { audit, name, rewrite } = await ended(t);
    await rewrite(lines => lines.toSpliced(4, 2));
    const { findings } = await audit.verify();
    assert.deepEqual(
      findings.map(({ kind, file, line }) => [kind, file, line]),
      [['lines-missing', name, 5]],
    );
    assert.match(findings[0]!.message, /^2 lines are missing before line 5 of /);
  });

  test('every byte that is changed', async t => {
    const { audit, name } = await ended(t);
    const whole = await readFile(audit.path(name));
    for (let at = 0; at < whole.length; at += 19) {
      const bytes = Buffer.from(whole);
      bytes[at]! ^= 1;
      await writeFile(audit.path(name), bytes);
      assert.ok((await audit.verify()).findings.length > 0, `byte ${at} of ${whole.length}`);
    }
  });

  test('an end that is cut off, at a line or within one', async t => {
    const { audit, name } = await ended(t);
    const whole = await readFile(audit.path(name));
    for (const rest of [whole.length - 1, whole.lastIndexOf('\n', -2) + 1, whole.length - 50, 200, 0]) {
      await truncate(audit.path(name), 0);
      await writeFile(audit.path(name), whole.subarray(0, rest));
      assert.ok((await audit.verify()).kinds.includes('cut-off'), `${rest} of ${whole.length} bytes`);
    }
  });

  test('lines behind the end, though they fit', async t => {
    const { audit, name } = await ended(t);
    const last = (await audit.lines(name)).at(-1)!;
    const { seq } = JSON.parse(last) as { seq: number };
    const forged = last.replace(`"seq":${seq}`, `"seq":${seq + 1}`).replace(/"prev":"\w+"/, `"prev":"${hashOf(last)}"`);
    await appendFile(audit.path(name), `${forged}\n`);
    assert.deepEqual((await audit.verify()).kinds, ['added']);
  });

  test('a chain that was written anew, with hashes that fit', async t => {
    const { audit, name, rewrite } = await ended(t);
    await rewrite(lines => {
      const made: string[] = [];
      for (const line of lines)
        made.push(
          made.length === 0
            ? line.replace('test', 'best')
            : line.replace(/"prev":"\w+"/, `"prev":"${hashOf(made.at(-1)!)}"`),
        );
      return made;
    });
    const { findings } = await audit.verify();
    assert.deepEqual(
      findings.map(({ kind }) => kind),
      ['changed'],
    );
    assert.match(findings[0]!.message, new RegExp(`of ${name} \\(number 10\\) is not what was sealed$`));
  });

  test('each file that is missing, and files that have changed places', async t => {
    const { audit, files } = await rotated(t);
    for (const file of files) {
      await rename(audit.path(file), join(audit.root, 'away'));
      const { findings } = await audit.verify();
      assert.deepEqual(
        findings.map(({ kind, file }) => [kind, file]),
        [['file-missing', file]],
      );
      await rename(join(audit.root, 'away'), audit.path(file));
    }
    const [one, two] = files as [string, string];
    await rename(audit.path(one), join(audit.root, 'away'));
    await rename(audit.path(two), audit.path(one));
    await rename(join(audit.root, 'away'), audit.path(two));
    assert.ok((await audit.verify()).findings.length > 0);
  });

  test('a whole chain that is missing, with its head and without', async t => {
    const { audit, files } = await rotated(t);
    await (await audit.open()).close();
    for (const file of files) await rm(audit.path(file));
    assert.deepEqual(new Set((await audit.verify()).kinds), new Set(['file-missing']));
    await audit.seals.forgetHead(files[0]!.split('.')[0]!);
    const { findings } = await audit.verify();
    assert.deepEqual(
      findings.map(({ kind }) => kind),
      ['chain-missing'],
    );
  });

  test('an older head that was put back, with a log that fits it', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    fill(log, 1, 5);
    await sealed(audit, log, 6);
    const [name] = (await audit.files()) as [string];
    await cp(audit.root, `${audit.root}-copy`, { recursive: true });
    t.after(() => rm(`${audit.root}-copy`, { recursive: true }));
    fill(log, 6, 9);
    await log.close();
    const later = await audit.open();
    for (const part of [join('audit', name), join('data/registry-secure/audit/heads', log.chain)])
      await cp(join(`${audit.root}-copy`, part), join(audit.root, part));
    assert.deepEqual((await audit.verify()).kinds, ['cut-off']);
    await later.close();
  });

  test('heads that somebody else has made, and files without one', async t => {
    const { audit, name } = await ended(t);
    const chain = name.split('.')[0]!;
    const head = join(audit.root, 'data/registry-secure/audit/heads', chain);
    const text = await readFile(head, 'utf8');
    await writeFile(head, text.replace('"closed":true', '"closed":false'));
    assert.deepEqual((await audit.verify()).kinds, ['forged']);
    await rm(head);
    assert.deepEqual((await audit.verify()).kinds, ['unsealed']);
    // Nor does the head of one chain do for another.
    const other = await audit.open();
    await other.close();
    await cp(join(audit.root, 'data/registry-secure/audit/heads', other.chain), head);
    assert.deepEqual((await audit.verify()).kinds, ['forged']);
  });

  test('of one file alone, what is within it', async t => {
    const { audit, name, rewrite } = await ended(t);
    const kinds: string[] = [];
    const options = { onFinding: ({ kind }: { kind: string }) => kinds.push(kind), onNote: () => {} };
    assert.equal((await verifyFile(audit.path(name), options)).findings, 0);
    await rewrite(lines => lines.toSpliced(3, 1));
    assert.equal((await verifyFile(audit.path(name), options)).findings, 1);
    assert.deepEqual(kinds, ['lines-missing']);
  });
});

describe('what verify does not take for harm', () => {
  test('the torn last line of a process that was killed, and lines behind its last head', async t => {
    const audit = await AuditFolder.create(t);
    const log = await audit.open();
    fill(log, 1, 3);
    await sealed(audit, log, 4);
    const [name] = (await audit.files()) as [string];
    const whole = await readFile(audit.path(name), 'utf8');
    const half = whole.split('\n').at(-2)!.slice(0, 60);
    await log.close();
    // As a kill at that moment would have left it.
    await writeFile(audit.path(name), whole + half);
    await audit.seals.writeHead({ ...headOf(whole), chain: log.chain, part: 1, closed: false });
    const { findings, notes } = await audit.verify();
    assert.deepEqual(findings, []);
    assert.match(notes.join(), /ends with a line that was not written to its end/);
  });

  test('files that were let go because the log was over its size', async t => {
    const audit = await AuditFolder.create(t);
    const old = await audit.open({ rotateSize: 2000 });
    for (let n = 0; n < 40; n++) await old.recorded(event(n));
    await old.close();
    const before = await audit.files();
    const log = await audit.open({ rotateSize: 2000, keep: 6000 });
    for (let n = 0; n < 60; n++) await log.recorded(event(n));
    assert.ok(before.length > 3, `${before.length} files`);
    // Both in the background; a file that is let go meanwhile cannot be read.
    await until(async () => {
      const now = await audit.files();
      return before.every(name => !now.includes(name));
    });
    await until(async () => (await audit.events().catch(() => [])).some(({ type }) => type === 'audit.retire'));
    await log.close();
    const { findings } = await audit.verify();
    assert.deepEqual(findings, []);
    // A chain that begins when the old one is forgotten needs no note of it any more.
    await new Promise(resolve => setTimeout(resolve, 1100));
    const next = await audit.open({ keep: 1 });
    await next.close();
    assert.deepEqual((await audit.verify()).findings, []);
    const notes = await readdir(join(audit.root, 'data/registry-secure/audit/retired'));
    assert.ok(
      notes.every(name => !before.includes(name)),
      notes.join(),
    );
  });
});

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (
    const deadline = Date.now() + 60_000;
    !(await condition());
    await new Promise(resolve => setTimeout(resolve, 10))
  )
    assert.ok(Date.now() < deadline, 'not within a minute');
}

function headOf(whole: string): { seq: number; hash: string } {
  const lines = whole.split('\n').slice(0, -1);
  return { seq: lines.length, hash: hashOf(lines.at(-1)!) };
}

/** Waits until so many lines are sealed. */
async function sealed(audit: AuditFolder, { chain }: AuditLog, lines: number): Promise<void> {
  for (;;) {
    const head = await audit.seals.head(chain);
    if (head && head !== 'forged' && head.seq >= lines) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}
