import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { before, test } from 'node:test';
import { rootCertificates } from 'node:tls';
import { authorityCertificate, constraintsFor, serverCertificate } from '../../src/pki/authority.js';
import { type ChainOptions, checkChain, type Mistake } from '../../src/pki/check.js';
import { generateKey, KEY_KINDS } from '../../src/pki/keys.js';
import { type Forged, forge, newKey, rsaKey, type Wish } from '../support/forge.js';

const NAME = 'reg.lan';
let ca: Forged;
let weak: Forged['key'];

before(() => {
  ca = forge({ authority: 1, commonName: 'test CA' });
  weak = rsaKey(1024);
});

/** `[E|W] code` for each finding. The chain's names are what a client asks for unless told. */
function judge(chain: readonly Forged[], more: Partial<ChainOptions> & { trust?: readonly Forged[] } = {}): string[] {
  const { trust, ...options } = more;
  const found = checkChain(
    chain.map(({ certificate }) => certificate),
    {
      names: [NAME],
      now: new Date(),
      ...(trust && { anchors: trust.map(({ certificate }) => certificate) }),
      ...options,
    },
  );
  for (const { message, fix } of found) assert.ok(message && fix && !/undefined/.test(message + fix), message);
  return found.map(({ severity, code }) => `${severity} ${code}`);
}

const leaf = (wish: Wish = {}): Forged => forge({ issuer: ca, names: [NAME], ...wish });

/** Every mistake, made in a certificate or chain, and what is said of it. The compiler asks for each of them. */
const RULES: Readonly<Record<Mistake, ReadonlyArray<readonly [what: string, make: () => string[], said: string]>>> = {
  expired: [['expired', () => judge([leaf({ from: -2, to: -1 })]), 'error expired']],
  'not-yet-valid': [['begins tomorrow', () => judge([leaf({ from: 1 })]), 'error not-yet-valid']],
  'issuer-expired': [
    [
      'an expired authority',
      () => {
        const old = forge({ authority: 1, from: -2, to: -1 });
        return judge([leaf({ issuer: old })], { trust: [old] });
      },
      'error issuer-expired',
    ],
    [
      'an expired intermediate',
      () => {
        const between = forge({ authority: 0, issuer: ca, from: -2, to: -1 });
        return judge([leaf({ issuer: between }), between], { trust: [ca] });
      },
      'error issuer-expired',
    ],
  ],
  'issuer-not-yet-valid': [
    [
      'an authority of tomorrow',
      () => {
        const young = forge({ authority: 1, from: 1 });
        return judge([leaf({ issuer: young })], { trust: [young] });
      },
      'error issuer-not-yet-valid',
    ],
  ],
  'no-names': [['a common name alone', () => judge([leaf({ names: [], commonName: NAME })]), 'error no-names']],
  'no-ip-names': [
    ['names, and no address', () => judge([leaf()], { names: ['10.0.0.1'] }), 'error no-ip-names'],
    ['IPv6', () => judge([leaf()], { names: ['fd00::1'] }), 'error no-ip-names'],
  ],
  'name-missing': [
    ['another name', () => judge([leaf({ names: ['other.lan'] })]), 'error name-missing'],
    ['another address', () => judge([leaf({ names: ['10.0.0.2'] })], { names: ['10.0.0.1'] }), 'error name-missing'],
    [
      'below a wildcard',
      () => judge([leaf({ names: ['*.reg.lan'] })], { names: ['a.b.reg.lan'] }),
      'error name-missing',
    ],
  ],
  'ip-as-dns': [
    ['asked for', () => judge([leaf({ names: ['DNS:10.0.0.1'] })], { names: ['10.0.0.1'] }), 'error ip-as-dns'],
    ['not asked for', () => judge([leaf({ names: [NAME, 'DNS:10.0.0.1'] })]), 'error ip-as-dns'],
  ],
  'odd-name': [
    ['underscore', () => judge([leaf({ names: [NAME, 'my_reg.lan'] })]), 'warning odd-name'],
    ['zone id', () => judge([leaf({ names: [NAME, 'DNS:fe80::1%eth0'] })]), 'warning odd-name'],
    ['port', () => judge([leaf({ names: [NAME, 'DNS:reg.lan:5000'] })]), 'warning odd-name'],
    ['dot at the end', () => judge([leaf({ names: [NAME, 'DNS:reg.lan.'] })]), 'warning odd-name'],
    ['wildcard of two levels', () => judge([leaf({ names: [NAME, '*.*.reg.lan'] })]), 'warning odd-name'],
    ['part of a label', () => judge([leaf({ names: [NAME, 'r*g.reg.lan'] })]), 'warning odd-name'],
    ['not in ASCII', () => judge([leaf({ names: [NAME, 'DNS:müller.lan'] })]), 'error odd-name'],
    ['broken A-label', () => judge([leaf({ names: [NAME, 'DNS:xn--0.lan'] })]), 'warning odd-name'],
    ['address of 5 bytes', () => judge([leaf({ names: [NAME, 'IP:0a00000001'] })]), 'error odd-name'],
  ],
  'wildcard-too-wide': [['*.lan', () => judge([leaf({ names: ['*.lan'] })]), 'warning wildcard-too-wide']],
  'odd-common-name': [
    ['a host name', () => judge([leaf({ commonName: 'old.lan' })]), 'warning odd-common-name'],
    ['an address', () => judge([leaf({ commonName: '10.0.0.9' })]), 'warning odd-common-name'],
  ],
  'no-server-auth': [
    ['for clients', () => judge([leaf({ extendedUsage: ['client'] })]), 'error no-server-auth'],
    ['for nothing said', () => judge([leaf({ extendedUsage: 'none' })]), 'warning no-server-auth'],
  ],
  'no-signing-usage': [
    ['keyEncipherment alone', () => judge([leaf({ usage: ['keyEncipherment'] })]), 'warning no-signing-usage'],
  ],
  'issuer-not-ca': [
    [
      'a leaf that signed',
      () => {
        const other = leaf({ usage: 'none' });
        return judge([leaf({ issuer: other }), other], { trust: [ca] });
      },
      'error issuer-not-ca',
    ],
  ],
  'issuer-may-not-sign': [
    [
      'an authority for revocation lists alone',
      () => {
        const mute = forge({ authority: 1, usage: ['cRLSign'] });
        return judge([leaf({ issuer: mute })], { trust: [mute] });
      },
      'error issuer-may-not-sign',
    ],
  ],
  'issuer-no-server-auth': [
    [
      'an authority for clients',
      () => {
        const clients = forge({ authority: 1, extendedUsage: ['client'] });
        return judge([leaf({ issuer: clients })], { trust: [clients] });
      },
      'error issuer-no-server-auth',
    ],
  ],
  'path-too-long': [
    [
      'one authority too many',
      () => {
        const top = forge({ authority: 0 });
        const between = forge({ authority: 0, issuer: top });
        return judge([leaf({ issuer: between }), between], { trust: [top] });
      },
      'error path-too-long',
    ],
  ],
  'outside-constraints': [
    [
      'a name that the authority may not sign for',
      () => {
        const few = forge({ authority: 1, constraints: constraintsFor([NAME]) });
        return judge([leaf({ issuer: few, names: [NAME, 'www.example.com'] })], { trust: [few] });
      },
      'error outside-constraints',
    ],
    [
      'a common name that looks like one, beside addresses alone',
      () => {
        const few = forge({ authority: 1, constraints: constraintsFor(['10.0.0.1']) });
        const made = leaf({ issuer: few, names: ['10.0.0.1'], commonName: 'www.example.com' });
        return judge([made], { trust: [few], names: ['10.0.0.1'] }).filter(said => !/odd-common-name/.test(said));
      },
      'warning outside-constraints',
    ],
  ],
  'not-first': [
    [
      'the intermediate before the leaf',
      () => {
        const between = forge({ authority: 0, issuer: ca, names: [NAME] });
        return judge([between, leaf({ issuer: between })]).filter(said => /^error/.test(said));
      },
      'error not-first',
    ],
  ],
  unordered: [
    [
      'two intermediates the wrong way round',
      () => {
        const top = forge({ authority: 2 });
        const upper = forge({ authority: 1, issuer: top });
        const lower = forge({ authority: 0, issuer: upper });
        return judge([leaf({ issuer: lower }), upper, lower], { trust: [top] });
      },
      'warning unordered',
    ],
  ],
  unrelated: [['somebody else behind the leaf', () => judge([leaf(), leaf()], { trust: [ca] }), 'warning unrelated']],
  'root-sent': [['the root behind the leaf', () => judge([leaf(), ca], { trust: [ca] }), 'warning root-sent']],
  'intermediate-missing': [
    [
      'seen by a client that trusts the root',
      () => {
        const between = forge({ authority: 0, issuer: ca });
        return judge([leaf({ issuer: between, issuerUrl: 'http://ca.example.com/ca.der' })], { trust: [ca] });
      },
      'error intermediate-missing',
    ],
    [
      'guessed from the certificate alone',
      () => judge([leaf({ issuerUrl: 'http://ca.example.com/ca.der' })]),
      'warning intermediate-missing',
    ],
  ],
  'unknown-authority': [
    ['another authority', () => judge([leaf()], { trust: [forge({ authority: 1 })] }), 'error unknown-authority'],
    ['nobody is trusted', () => judge([leaf()], { trust: [] }), 'error unknown-authority'],
  ],
  'renewed-authority': [
    [
      'an authority of the same name and another key',
      () => judge([leaf()], { trust: [forge({ authority: 1, commonName: 'test CA' })] }),
      'error renewed-authority',
    ],
  ],
  'self-signed': [['its own authority', () => judge([forge({ names: [NAME] })]), 'warning self-signed']],
  'leaf-is-ca': [
    [
      'CA:TRUE',
      () => judge([leaf({ authority: true, usage: ['digitalSignature'], extendedUsage: ['server'] })]),
      'warning leaf-is-ca',
    ],
  ],
  'version-1': [['version 1', () => judge([leaf({ version: 1 })]), 'error version-1']],
  'too-many-days': [['826 days', () => judge([leaf({ from: -1, to: 825.01 })]), 'warning too-many-days']],
  'weak-key': [['RSA of 1024 bits', () => judge([leaf({ key: weak })]), 'warning weak-key']],
  'weak-signature': [
    ['SHA-1', () => judge([leaf({ hash: 'sha1' })]), 'error weak-signature'],
    [
      'MD5',
      () => {
        const rsa = forge({ authority: 1, key: rsaKey(2048) });
        return judge([leaf({ issuer: rsa, hash: 'md5' })]);
      },
      'error weak-signature',
    ],
    [
      'an intermediate with SHA-1',
      () => {
        const between = forge({ authority: 0, issuer: ca, hash: 'sha1' });
        return judge([leaf({ issuer: between }), between], { trust: [ca] });
      },
      'error weak-signature',
    ],
  ],
  'negative-serial': [['negative', () => judge([leaf({ serial: Buffer.from([0x80, 1]) })]), 'error negative-serial']],
  'odd-serial': [
    ['zero', () => judge([leaf({ serial: Buffer.from([0]) })]), 'warning odd-serial'],
    ['21 octets', () => judge([leaf({ serial: Buffer.alloc(21, 1) })]), 'warning odd-serial'],
  ],
  'no-key-identifier': [
    ['in the leaf', () => judge([leaf({ keyIdentifiers: false })]), 'warning no-key-identifier'],
    [
      'in the authority',
      () => {
        const bare = forge({ authority: 1, keyIdentifiers: false });
        return judge([leaf({ issuer: bare })], { trust: [bare] });
      },
      'warning no-key-identifier',
    ],
  ],
};

for (const [code, cases] of Object.entries(RULES))
  for (const [what, make, said] of cases) test(`${code}: ${what}`, () => assert.deepEqual(make(), [said]));

test('a certificate without a mistake, alone and with its chain', () => {
  assert.deepEqual(judge([leaf()]), []);
  assert.deepEqual(judge([leaf()], { trust: [ca] }), []);
  const between = forge({ authority: 0, issuer: ca });
  const chain = [leaf({ issuer: between, names: ['*.apps.lan', '10.0.0.1', 'fd00::1'] }), between];
  assert.deepEqual(judge(chain, { trust: [ca], names: ['x.apps.lan', '10.0.0.1', 'fd00::1'] }), []);
});

for (const kind of KEY_KINDS)
  test(`${kind}: nothing is wrong with what we make ourselves`, async () => {
    const key = await generateKey(kind);
    const names = [NAME, '192.168.0.12', 'fd00::12', '*.apps.lan'];
    const authority = new X509Certificate(
      authorityCertificate({ key, commonName: 'ours', days: 3650, constraints: constraintsFor(names) }),
    );
    const made = new X509Certificate(
      serverCertificate({ authority: { certificate: authority, key }, key, names, days: 397 }),
    );
    assert.deepEqual(checkChain([made], { names: [NAME, 'x.apps.lan'], now: new Date(), anchors: [authority] }), []);
  });

test('a successor that the old authority signed leads a client of either to a trusted one', () => {
  const key = newKey();
  const successor = forge({ authority: 1, commonName: 'next CA', key });
  const cross = forge({ authority: 0, commonName: 'next CA', key, issuer: ca });
  const chain = [leaf({ issuer: successor }), cross];
  for (const trust of [[ca], [successor], [successor, ca]]) assert.deepEqual(judge(chain, { trust }), []);
  assert.deepEqual(judge(chain, { trust: [forge({ authority: 1 })] }), ['error unknown-authority']);
});

test('an address that stands there in both ways is no mistake', () => {
  assert.deepEqual(judge([leaf({ names: ['DNS:10.0.0.1', 'IP:0a000001'] })], { names: ['10.0.0.1'] }), []);
});

test('one way to a trusted authority is enough, though another has expired', () => {
  const key = newKey();
  const good = forge({ authority: 0, commonName: 'between', key, issuer: ca });
  const expired = forge({ authority: 0, commonName: 'between', key, issuer: ca, from: -2, to: -1 });
  assert.deepEqual(judge([leaf({ issuer: good }), expired, good], { trust: [ca] }), ['warning unordered']);
});

test('the issuer of a public certificate need not be sent: systems have it', () => {
  const root = new X509Certificate(rootCertificates[0]!);
  assert.deepEqual(
    checkChain([root], { now: new Date(root.validFrom), names: [] })
      .map(({ code }) => code)
      .filter(code => code.startsWith('inter')),
    [],
  );
});

test('errors come before warnings, each once', () => {
  const made = judge([forge({ names: ['other.lan'], extendedUsage: 'none', to: 900 })], { trust: [ca] });
  const first = made.findIndex(said => said.startsWith('warning'));
  assert.ok(first > 0 && made.slice(first).every(said => said.startsWith('warning')), made.join());
  assert.equal(new Set(made).size, made.length);
  assert.ok(made.length >= 4, made.join());
});
