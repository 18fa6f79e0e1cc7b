import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import {
  addClient,
  ensureClientAuthority,
  listClients,
  passingClient,
  reissueList,
  reissueListIfDue,
  revokeClient,
} from '../../src/pki/clients.js';
import { isSignedBy, parseRevocationLists, signRevocationList } from '../../src/pki/crl.js';
import { readKeyPair } from '../../src/pki/inspect.js';
import { checkPkcs12Password } from '../../src/pki/pkcs12.js';
import { loadClientTrust, refuseOlderLists } from '../../src/server/client-trust.js';
import { startListUpkeep } from '../../src/server/clients.js';
import { TestAuthority } from '../support/client-authority.js';
import { memoryLog } from '../support/listener.js';

const DAY = 86_400_000;
const start = new Date('2026-05-04T12:00:00.5Z');
const later = (days: number) => new Date(start.getTime() + days * DAY);

let dir: string;
beforeEach(() => {
  dir = join(mkdtempSync(join(tmpdir(), 'registry-secure-clients-')), 'clients');
});
afterEach(() => rmSync(join(dir, '..'), { recursive: true, force: true }));

const list = () => parseRevocationLists('crl.pem', readFileSync(join(dir, 'crl.pem')))[0]!;
const says = (what: RegExp) => (error: unknown) =>
  error instanceof OperatorError && what.test(`${error.message}; ${error.fix}`);

test('the first client makes the authority, its list and its index', async () => {
  const added = await addClient({ dir, name: 'Zoë', now: start });
  assert.equal(added.firstOfFolder, true);
  const pair = await readKeyPair(added);
  assert.equal(pair.chain[0].subject, 'CN=Zoë');
  assert.deepEqual(
    [pair.chain[0].validFrom, pair.chain[0].validTo],
    ['May  4 11:00:00 2026 GMT', 'Jun  5 10:59:59 2027 GMT'],
  );
  const authority = new X509Certificate(readFileSync(join(dir, 'ca.crt')));
  assert.ok(pair.chain[0].checkIssued(authority) && pair.chain[0].verify(authority.publicKey));
  assert.deepEqual([authority.ca, pair.chain[0].ca], [true, false]);
  assert.deepEqual(pair.chain[0].keyUsage, ['1.3.6.1.5.5.7.3.2']);
  assert.deepEqual(
    (await readdir(dir)).sort().map(file => [file, statSync(join(dir, file)).mode & 0o777]),
    [
      ['Zoë.crt', 0o644],
      ['Zoë.key', 0o600],
      ['ca.crt', 0o644],
      ['ca.key', 0o600],
      ['crl.pem', 0o644],
      ['index.json', 0o644],
    ],
  );
  assert.equal(list().revoked.size, 0);
  assert.ok(isSignedBy(list(), authority));
  assert.deepEqual(
    [list().thisUpdate, list().nextUpdate],
    [new Date('2026-05-04T11:00:00Z'), new Date('2026-06-03T12:00:00Z')],
  );
});

test('revoked by name or by serial number, for good; the number of the list grows; added again', async () => {
  const first = await addClient({ dir, name: 'alice', now: start });
  await assert.rejects(addClient({ dir, name: 'ALICE', now: start }), says(/has a certificate already.*--renew/));
  const second = await addClient({ dir, name: 'alice', renew: true, now: start });
  const numbers = [list().number!];
  const bySerial = second.entry.serial.toLowerCase().replace(/(..)(?=.)/g, '$1:');
  const revoked = await revokeClient({ dir, which: bySerial, reason: 'superseded', now: start });
  assert.deepEqual(
    revoked.map(({ serial }) => serial),
    [second.entry.serial],
  );
  numbers.push(list().number!);
  assert.deepEqual(
    [...list().revoked.values()],
    [{ serial: second.entry.serial, at: new Date(Math.floor(start.getTime() / 1000) * 1000), reason: 'superseded' }],
  );
  await assert.rejects(revokeClient({ dir, which: second.entry.serial, now: start }), says(/is revoked already/));
  await assert.rejects(revokeClient({ dir, which: 'mallory', now: start }), says(/there is no client certificate/));

  await revokeClient({ dir, which: 'alice', now: start });
  numbers.push(list().number!);
  assert.deepEqual([...list().revoked.keys()].sort(), [first.entry.serial, second.entry.serial].sort());
  const third = await addClient({ dir, name: 'alice', now: start });
  assert.deepEqual(
    (await listClients({ dir, now: start })).map(({ serial, state }) => [serial, state]),
    [
      [first.entry.serial, 'revoked'],
      [second.entry.serial, 'revoked'],
      [third.entry.serial, 'valid'],
    ],
  );
  assert.deepEqual(numbers, [numbers[0]!, numbers[0]! + 1n, numbers[0]! + 2n]);
  assert.deepEqual((await listClients({ dir, now: later(400) }))[2]!.state, 'expired');
});

test('names that are no names of files are refused, and nothing is written', async () => {
  for (const name of [
    'ca',
    'CA',
    '../x',
    'a/b',
    'a\\b',
    '.hidden',
    'dot.',
    '-x',
    'a:b',
    'nul',
    'Com1.txt',
    'x'.repeat(65),
  ])
    await assert.rejects(addClient({ dir, name }), says(/the name of a client certificate/), name);
  assert.equal(existsSync(dir), false);
});

test('with --out the pair goes there, and the folder knows the certificate only', async () => {
  const out = join(dir, '..', 'for alice');
  const added = await addClient({ dir, name: 'alice', out, now: start });
  assert.deepEqual((await readdir(out)).sort(), ['alice.crt', 'alice.key']);
  assert.equal(statSync(added.key).mode & 0o777, 0o600);
  assert.deepEqual((await readdir(dir)).sort(), ['ca.crt', 'ca.key', 'crl.pem', 'index.json']);
});

test('a list that is due is issued anew by one of several, and keeps what it said', async () => {
  const { entry } = await addClient({ dir, name: 'alice', now: start });
  await revokeClient({ dir, which: 'alice', reason: 'keyCompromise', now: start });
  const { number } = list();
  assert.equal(await reissueListIfDue({ dir, now: later(9.9) }), false);
  const five = await Promise.all([1, 2, 3, 4, 5].map(() => reissueListIfDue({ dir, now: later(10.1) })));
  assert.deepEqual(five.sort(), [false, false, false, false, true]);
  assert.ok(list().number! > number!);
  assert.equal(list().number, BigInt(Math.floor(later(10.1).getTime() / 1000)) + 1n, 'once');
  assert.deepEqual([...list().revoked.keys()], [entry.serial]);
  // A certificate that ended long ago leaves the list.
  await reissueList({ dir, now: later(397 + 59) });
  assert.equal(list().revoked.size, 1);
  await reissueList({ dir, days: 7, now: later(397 + 61) });
  assert.equal(list().revoked.size, 0);
  assert.equal(list().nextUpdate!.getTime() - later(397 + 61).getTime() + 500, 7 * DAY);
});

test('a list that was lost or put back from before is made whole again, and its number still grows', async () => {
  await addClient({ dir, name: 'alice' });
  const old = readFileSync(join(dir, 'crl.pem'));
  await revokeClient({ dir, which: 'alice' });
  const { number } = list();
  writeFileSync(join(dir, 'crl.pem'), old);
  assert.equal(await reissueListIfDue({ dir }), true);
  assert.equal(list().revoked.size, 1);
  unlinkSync(join(dir, 'crl.pem'));
  assert.equal(await reissueListIfDue({ dir, now: new Date(Date.now() + 5_000) }), true);
  assert.equal(list().revoked.size, 1);
  assert.ok(list().number! > number!);
});

test('what is damaged is never overwritten', async () => {
  await assert.rejects(listClients({ dir }), says(/there are no client certificates.*client add/));
  await assert.rejects(revokeClient({ dir, which: 'alice' }), says(/there are no client certificates/));
  await addClient({ dir, name: 'alice' });
  const [index, key] = [join(dir, 'index.json'), join(dir, 'ca.key')];
  const [goodIndex, goodKey, before] = [
    readFileSync(index),
    readFileSync(key),
    readFileSync(join(dir, 'crl.pem'), 'utf8'),
  ];
  for (const bad of [
    '',
    '{',
    '{"certificates":[{"name":"a"}]}',
    '{"certificates":[{"name":"a","serial":"zz","notAfter":"x"}]}',
  ]) {
    writeFileSync(index, bad);
    await assert.rejects(addClient({ dir, name: 'bob' }), says(/index\.json cannot be read/), bad);
    await assert.rejects(reissueListIfDue({ dir, now: later(1000) }), says(/index\.json cannot be read/), bad);
    assert.equal(readFileSync(index, 'utf8'), bad);
  }
  writeFileSync(index, goodIndex);

  writeFileSync(key, (await TestAuthority.make('other')).key.export({ type: 'pkcs8', format: 'pem' }));
  await assert.rejects(revokeClient({ dir, which: 'alice' }), says(/does not belong to/));
  unlinkSync(key);
  await assert.rejects(revokeClient({ dir, which: 'alice' }), says(/ca\.key is missing/));
  writeFileSync(key, goodKey, { mode: 0o644 });
  await assert.rejects(revokeClient({ dir, which: 'alice' }), says(/can be read by others.*chmod 600/));
  assert.equal(readFileSync(join(dir, 'crl.pem'), 'utf8'), before);
  assert.equal(list().revoked.size, 0);
  unlinkSync(join(dir, 'ca.crt'));
  await assert.rejects(ensureClientAuthority({ dir }), says(/has no ca\.crt beside it/));
});

test("the authority's key may be encrypted", async () => {
  const passphrase = async () => 'four words for it';
  await ensureClientAuthority({ dir, newPassphrase: passphrase });
  assert.match(readFileSync(join(dir, 'ca.key'), 'utf8'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
  await assert.rejects(
    addClient({ dir, name: 'alice' }),
    says(/is encrypted, and there is no passphrase.*--passphrase-file/),
  );
  await assert.rejects(
    addClient({ dir, name: 'alice', passphrase: async () => 'wrong' }),
    says(/passphrase does not open/),
  );
  assert.deepEqual(await listClients({ dir }), []);
  await addClient({ dir, name: 'alice', passphrase });
  await revokeClient({ dir, which: 'alice', passphrase });
  assert.equal(list().revoked.size, 1);
});

test('a certificate for one question is good for minutes, and stands nowhere', async () => {
  await ensureClientAuthority({ dir });
  const { cert, key } = await passingClient({ dir, name: 'registry-secure health' });
  const certificate = new X509Certificate(cert);
  assert.ok(certificate.checkPrivateKey(createPrivateKey(key)));
  const left = Date.parse(certificate.validTo) - Date.now();
  assert.ok(left > 3 * 60_000 && left < 6 * 60_000, `${left}`);
  assert.deepEqual(await listClients({ dir }), []);
});

test('a list is read as it was signed: foreign ones, changed ones and none are told apart', async () => {
  const [ours, theirs] = await Promise.all(['ours', 'ours'].map(name => TestAuthority.make(name)));
  const made = ours!.list([await ours!.client('bob')]);
  assert.ok(isSignedBy(made, ours!.certificate));
  assert.equal(isSignedBy(made, theirs!.certificate), false);
  const der = Buffer.from(made.pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  const [serial] = [...made.revoked.keys()] as [string];
  // A serial number is written without the zeros before it.
  const at = der.indexOf(Buffer.from(serial.padStart(serial.length + (serial.length % 2), '0'), 'hex'));
  assert.ok(at > 0);
  der[at + 5]! ^= 1;
  const [changed] = parseRevocationLists(
    'x',
    Buffer.from(`-----BEGIN X509 CRL-----\n${der.toString('base64')}\n-----END X509 CRL-----`),
  );
  assert.equal(changed!.revoked.size, 1);
  assert.equal(isSignedBy(changed!, ours!.certificate), false);
  assert.throws(() => parseRevocationLists('x', Buffer.from('nothing')), says(/x holds no PEM revocation list/));
  const broken = '-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n';
  assert.throws(
    () => parseRevocationLists('x', Buffer.from(broken)),
    says(/x holds a revocation list that cannot be read/),
  );

  const serials = ['7F', '80', 'FF00', '0A'.replace(/^0/, ''), 'FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF'];
  const revocations = serials.map((serial, index) => ({
    serial,
    at: new Date(index % 2 === 0 ? '2049-12-31T23:59:59Z' : '2050-01-01T00:00:00Z'),
    reason: index % 2 === 0 ? ('unspecified' as const) : ('privilegeWithdrawn' as const),
  }));
  const [again] = parseRevocationLists(
    'x',
    Buffer.from(
      signRevocationList({
        authority: ours!,
        number: 2n ** 64n,
        thisUpdate: new Date('2049-12-01T00:00:00Z'),
        nextUpdate: new Date('2050-02-01T00:00:00Z'),
        revocations,
      }),
    ),
  );
  assert.deepEqual([...again!.revoked.values()], revocations);
  assert.deepEqual(
    [again!.number, again!.thisUpdate.toISOString(), again!.nextUpdate?.toISOString()],
    [2n ** 64n, '2049-12-01T00:00:00.000Z', '2050-02-01T00:00:00.000Z'],
  );
});

test('a password for PKCS#12 is one that all programs read alike', () => {
  for (const bad of ['', 'short', 'pässwörter', 'tab\tin there'])
    assert.throws(() => checkPkcs12Password(bad), OperatorError, bad);
  checkPkcs12Password('correct horse');
});

test('trust in clients is loaded only where it fits together', async () => {
  const { certificate } = await addClient({ dir, name: 'alice' });
  const [ca, crl, foreign] = [join(dir, 'ca.crt'), join(dir, 'crl.pem'), join(dir, 'foreign.pem')];
  const mode = 'require-and-verify-client-cert';
  const trust = await loadClientTrust(mode, { authorities: [ca], lists: [crl] });
  assert.deepEqual([trust.authorities.length, trust.lists.length], [1, 1]);
  await assert.rejects(
    loadClientTrust(mode, { authorities: [certificate], lists: [] }),
    says(/CN=alice, which is no authority's/),
  );
  writeFileSync(foreign, (await TestAuthority.make('other')).list().pem);
  await assert.rejects(
    loadClientTrust(mode, { authorities: [ca], lists: [foreign] }),
    says(/foreign\.pem was not signed by/),
  );
  await assert.rejects(loadClientTrust(mode, { authorities: [foreign], lists: [] }), says(/holds no PEM certificate/));
  await assert.rejects(loadClientTrust(mode, { authorities: ['/nowhere'], lists: [] }), says(/does not exist/));
});

test('an older list of an authority does not take the place of a later one, and the next one is later than both', async () => {
  const path = join(dir, 'crl.pem');
  const files = { authorities: [join(dir, 'ca.crt')], lists: [path] };
  const load = () => loadClientTrust('require-and-verify-client-cert', files);
  await addClient({ dir, name: 'alice', now: start });
  const [older, before] = [readFileSync(path), await load()];
  for (const which of ['alice', 'bob'] as const) {
    if (which === 'bob') await addClient({ dir, name: which, now: start });
    await revokeClient({ dir, which, now: start });
  }
  const loaded = await load();
  refuseOlderLists(before, loaded);
  refuseOlderLists(loaded, loaded);
  writeFileSync(path, older);
  const again = await load();
  assert.throws(() => refuseOlderLists(loaded, again), says(/client CA .* is older than the one in force/));
  assert.equal(await reissueListIfDue({ dir, now: later(1) }), true, 'it lacks revocations of the index');
  assert.equal(list().revoked.size, 2);
  refuseOlderLists(loaded, await load());
});

test('names that differ in case are one, and none can be taken for a serial number', async () => {
  const { entry } = await addClient({ dir, name: 'Alice', now: start });
  const other = (renew: boolean) => addClient({ dir, name: 'alice', renew, now: start });
  await assert.rejects(other(false), says(/"Alice" has a certificate already/));
  await assert.rejects(other(true), says(/"alice" is "Alice" to file systems/));
  await assert.rejects(addClient({ dir, name: entry.serial, now: start }), says(/looks like a serial number/));
  const revoked = await revokeClient({ dir, which: 'ALICE', now: start });
  assert.deepEqual(
    revoked.map(({ serial }) => serial),
    [entry.serial],
  );
  await assert.rejects(other(false), says(/to file systems/), 'its files would take the place of the old ones');
});

test('the upkeep issues the list anew; where it cannot, it says so, ever louder', async () => {
  await addClient({ dir, name: 'alice', now: start });
  const files = { authorities: [join(dir, 'ca.crt')], lists: [join(dir, 'crl.pem')] };
  const load = () => loadClientTrust('require-and-verify-client-cert', files);
  let trust = await load();
  const { number } = list();
  /** What one look says so many days after the start. */
  const look = async (days: number, looks = 1) => {
    const lines: Parameters<typeof memoryLog>[0] = [];
    let seen = 0;
    const now = () => {
      seen++;
      return later(days);
    };
    const upkeep = startListUpkeep({
      ownFolder: dir,
      passphrase: undefined,
      trust: () => trust,
      log: memoryLog(lines),
      now,
      look: 1,
    });
    while (seen <= looks) await new Promise(resolve => setTimeout(resolve, 2));
    await upkeep.close();
    trust = await load();
    return lines.map(({ level, message }) => `${level}: ${message}`);
  };
  assert.deepEqual(await look(1), []);
  assert.deepEqual(await look(11), ['info: issued the list of revoked client certificates anew']);
  assert.equal(list().number, BigInt(Math.floor(later(11).getTime() / 1000)) + 1n);
  assert.ok(list().number! > number!);
  assert.deepEqual(await look(12), []);

  unlinkSync(join(dir, 'ca.key'));
  // From then on it is due, and each look fails; the same is not said at every one.
  const [early, ...more] = await look(22, 3);
  assert.match(
    early!,
    /^warn: the list .* expires on 2026-06-14.*\(in 18 days\).*cannot be issued anew: .*ca\.key is missing.*certs client crl/,
  );
  assert.deepEqual(more, []);
  assert.match((await look(38))[0]!, /^error: .*expires on 2026-06-14.*\(in 2 days\)/);
  assert.match((await look(42))[0]!, /^error: .*expired on 2026-06-14.*no client certificate is accepted/);
});
