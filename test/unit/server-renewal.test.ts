import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { ensureCertificates } from '../../src/pki/certificates.js';
import { certificatePem } from '../../src/pki/issue.js';
import { folderOf, renewalTime } from '../../src/pki/renewal.js';
import { rotateAuthority } from '../../src/pki/rotation.js';
import { certificateFields, notAfter, notBefore, readPemCertificates } from '../../src/pki/x509.js';
import { startRenewal } from '../../src/server/renewal.js';
import { forge } from '../support/forge.js';
import { memoryLog } from '../support/listener.js';

const DAY = 86_400_000;

// The task itself keeps no process alive.
let alive: NodeJS.Timeout;
let dir: string;
const start = new Date();
let now: Date;
let lines: Array<Parameters<typeof memoryLog>[0][number] & { at: Date }>;
beforeEach(() => {
  alive = setInterval(() => undefined, 60_000);
  dir = join(mkdtempSync(join(tmpdir(), 'renewal-')), 'certs');
  now = start;
  lines = [];
});
afterEach(() => {
  clearInterval(alive);
  rmSync(join(dir, '..'), { recursive: true });
});

const at = (name: string) => join(dir, name);
const leaf = () => readPemCertificates(readFileSync(at('domain.crt'), 'utf8'))[0]!;
const files = () => ({ certificate: at('domain.crt'), key: at('domain.key') });
const ensure = (more: object = {}) => ensureCertificates({ dir, names: ['192.168.0.12'], now: start, ...more });

/** The clock goes on by a step at each look, until the given day. */
async function live(
  step: number,
  until: Date,
  options: { folder?: string | undefined } = { folder: dir },
): Promise<void> {
  const push = lines.push.bind(lines);
  const log = memoryLog({ push: (line: (typeof lines)[number]) => push({ ...line, at: now }) } as never);
  let ended: () => void = () => undefined;
  const end = new Promise<void>(resolve => (ended = resolve));
  const task = startRenewal({
    folder: options.folder,
    files: files(),
    passphrase: undefined,
    log,
    look: 0,
    now: () => {
      now = new Date(now.getTime() + step);
      if (now >= until) ended();
      return now;
    },
  });
  await end;
  await task.close();
}

const after = (days: number) => new Date(start.getTime() + days * DAY);
const days = (date: Date) => Math.floor((date.getTime() - start.getTime()) / DAY);

test('it renews at two thirds of the life, again and again, with the names, the kind of key and the days that it had', async () => {
  await ensure({ names: ['192.168.0.12', 'reg.lan'], keyKind: 'ec-p384', days: 90 });
  const [first, authority] = [leaf(), readFileSync(at('ca.crt'), 'utf8')];
  const part = (date: Date) =>
    (date.getTime() - notBefore(first).getTime()) / (notAfter(first).getTime() - notBefore(first).getTime());
  assert.equal(part(renewalTime(first)).toFixed(6), '0.666667');
  await live(2 * DAY, after(365));
  const renewals = lines.filter(({ message }) => message === 'renewed the server certificate');
  assert.deepEqual(lines, renewals, 'nothing else was said');
  assert.deepEqual(
    renewals.map(({ level, at }) => [level, days(at)]),
    [60, 120, 180, 240, 300, 360].map(day => ['info', day]),
  );
  assert.deepEqual(certificateFields(leaf()).names, ['192.168.0.12', 'reg.lan']);
  assert.equal(leaf().publicKey.asymmetricKeyDetails?.namedCurve, 'secp384r1');
  assert.equal(Math.round((notAfter(leaf()).getTime() - notBefore(leaf()).getTime()) / DAY), 90);
  assert.equal(readFileSync(at('ca.crt'), 'utf8'), authority);
});

test('where the key is missing it says so at the start, and ever louder and more often until the end', async () => {
  await ensure({ days: 360 });
  const key = readFileSync(at('ca.key'));
  rmSync(at('ca.key'));
  await live(DAY, after(361));
  assert.deepEqual(lines[0]!.level, 'info');
  assert.match(lines[0]!.message, /will not be renewed by itself: .*ca\.key is missing.*certs csr here/);
  assert.equal(days(lines[0]!.at), 1);
  const told = lines.slice(1);
  for (const { message } of told)
    assert.match(
      message,
      /the server certificate expire[sd] .*ca\.key is missing.*certs csr here, certs sign there, certs import here/,
    );
  const levels = told.map(({ level }) => level);
  assert.deepEqual([...new Set(levels)], ['info', 'warn', 'error']);
  assert.deepEqual(
    levels,
    [...levels].sort((a, b) => ['info', 'warn', 'error'].indexOf(a) - ['info', 'warn', 'error'].indexOf(b)),
  );
  assert.deepEqual(
    [
      days(told[0]!.at),
      days(told.find(({ level }) => level === 'warn')!.at),
      days(told.find(({ level }) => level === 'error')!.at),
    ],
    [240, 300, 340],
  );
  const gaps = told.slice(1).map(({ at }, index) => at.getTime() - told[index]!.at.getTime());
  assert.ok(gaps[0]! > 5 * DAY && gaps.at(-1)! <= DAY, `${gaps.map(gap => gap / DAY)}`);
  assert.ok(told.length < 80, `${told.length} lines`);

  // Once the key is back all is well, and quiet.
  writeFileSync(at('ca.key'), key, { mode: 0o600 });
  lines = [];
  await live(10 * DAY, after(400));
  assert.deepEqual(
    lines.map(({ message }) => message),
    ['renewed the server certificate'],
  );
});

test('an encrypted key without its passphrase is such a reason, and so is a folder that may not be written', async t => {
  await ensure({ encryptWith: async () => 'correct horse' });
  await live(DAY, after(2));
  assert.match(lines[0]!.message, /ca\.key is encrypted, .*--passphrase-file/);
  rmSync(dir, { recursive: true });
  await ensure();
  if (process.getuid?.() === 0) {
    t.diagnostic('root may write anywhere: test/e2e/rotation.test.ts has the read-only mount');
    return;
  }
  chmodSync(dir, 0o500);
  lines = [];
  now = start;
  await live(DAY, after(2));
  chmodSync(dir, 0o700);
  assert.match(lines[0]!.message, /may not be written by this process.*certs renew/);
});

test('an authority near its end leads to another one, years before', async () => {
  await ensure({ caDays: 3650 });
  await live(30 * DAY, after(3650));
  const told = lines.filter(({ message }) =>
    /the certificate authority expires in \d+ (day|hour)s?, on .*certs rotate-ca/.test(message),
  );
  assert.ok(told.length > 8 && told.length < 100, `${told.length}`);
  assert.deepEqual([...new Set(told.map(({ level }) => level))], ['info', 'warn', 'error']);
  assert.ok(days(told[0]!.at) >= 2915 && days(told[0]!.at) <= 2950, `${days(told[0]!.at)}`);
  // No server certificate outlives it, and all of them were issued.
  assert.ok(notAfter(leaf()) <= after(3650));
});

test('a rotation whose time is over ends, and what cannot end it is told', async () => {
  await ensure();
  await rotateAuthority({ dir, names: ['reg.example.com'], overlap: 10 * DAY, now: start });
  await live(DAY, after(20));
  assert.deepEqual(
    lines.map(({ level, message, at }) => [level, message, days(at)]),
    [['info', 'the rotation is over: the new authority stands alone', 10]],
  );
  assert.deepEqual(certificateFields(leaf()).names, ['192.168.0.12', 'reg.example.com']);

  await rotateAuthority({ dir, names: ['reg.example.org'], overlap: 10 * DAY, now });
  rmSync(at('ca.key'));
  lines = [];
  await live(DAY, after(40));
  const [told] = lines.filter(({ level }) => level === 'warn');
  assert.match(told!.message, /the rotation should have ended on .*ca\.key is missing.*rotate-ca --finish/);
});

test('of a certificate that an operator brought only the end is told, and nothing is written', async () => {
  await ensure();
  const theirs = forge({ names: ['reg.example.com'], from: -60, to: 30 });
  writeFileSync(at('domain.crt'), certificatePem(theirs.certificate));
  writeFileSync(at('domain.key'), theirs.key.export({ type: 'pkcs8', format: 'pem' }));
  assert.equal(await folderOf(files()), undefined);
  const before = readFileSync(at('domain.crt'), 'utf8');
  await live(DAY, after(31), { folder: undefined });
  assert.deepEqual([...new Set(lines.map(({ level }) => level))], ['info', 'warn', 'error']);
  for (const { message } of lines) assert.match(message, /renew it where it came from/);
  assert.equal(readFileSync(at('domain.crt'), 'utf8'), before);
});

test('a pair of ours that a configuration names is ours to renew; elsewhere, or of another authority, it is not', async () => {
  await ensure();
  assert.equal(await folderOf(files()), dir);
  assert.equal(await folderOf({ ...files(), key: at('ca.key') }), undefined);
  assert.equal(await folderOf({ certificate: '/nowhere/domain.crt', key: '/nowhere/domain.key' }), undefined);
  const ca = forge({ commonName: 'Company CA', authority: 1 });
  const issued = forge({ issuer: ca, names: ['192.168.0.12'] });
  writeFileSync(at('ca.crt'), certificatePem(ca.certificate));
  writeFileSync(at('domain.crt'), certificatePem(issued.certificate));
  writeFileSync(at('domain.key'), issued.key.export({ type: 'pkcs8', format: 'pem' }));
  assert.equal(await folderOf(files()), undefined);
});

test('several processes on one folder renew once', async () => {
  await ensure();
  const serials = new Set<string>();
  const due = new Date(renewalTime(leaf()).getTime() + DAY);
  let looks = 0;
  await new Promise<void>(resolve => {
    const tasks = Array.from({ length: 3 }, () =>
      startRenewal({
        folder: dir,
        files: files(),
        passphrase: undefined,
        log: memoryLog(lines),
        look: 0,
        now: () => {
          serials.add(leaf().serialNumber);
          if (++looks === 60) Promise.all(tasks.map(task => task.close())).then(() => resolve());
          return due;
        },
      }),
    );
  });
  serials.add(leaf().serialNumber);
  assert.equal(serials.size, 2);
  assert.equal(lines.length, 1);
});
