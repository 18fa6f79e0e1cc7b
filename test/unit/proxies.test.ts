import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import { CertificateUsers } from '../../src/auth/certificate-users.js';
import { type ClientCertificate, setClientCertificate } from '../../src/auth/client-certificate.js';
import { inNetworks } from '../../src/auth/networks.js';
import { fromProxy, originBehind, ProxyUsers } from '../../src/auth/proxies.js';

/** A request from an address, with headers as they came. */
function request(remoteAddress: string, headers: ReadonlyArray<readonly [string, string]> = []): IncomingMessage {
  const joined: Record<string, string> = {};
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    joined[key] = joined[key] === undefined ? value : `${joined[key]}, ${value}`;
  }
  return { socket: { remoteAddress }, rawHeaders: headers.flat(), headers: joined } as unknown as IncomingMessage;
}

const shown = (certificate: Partial<ClientCertificate>, asked = request('192.0.2.9')) => {
  setClientCertificate(asked.socket, {
    commonName: undefined,
    organizationalUnits: [],
    alternativeNames: [],
    serial: '1',
    fingerprint: 'AB:CD',
    ...certificate,
  });
  return asked;
};

test('an address is in a network by its bits, however it is written', () => {
  const inside = inNetworks(['10.1.0.0/16', '192.0.2.7', 'fd00:1::/32', '::1']);
  for (const address of ['10.1.255.1', '::ffff:10.1.2.3', '192.0.2.7', '::FFFF:192.0.2.7', 'fd00:1:2::3%eth0', '::1'])
    assert.equal(inside(address), true, address);
  for (const address of [
    '10.2.0.1',
    '192.0.2.70',
    'fd00:2::1',
    '::2',
    '',
    undefined,
    'x',
    '10.1.0.0/16',
    '::ffff:a01:203x',
  ])
    assert.equal(inside(address), false, address);
  assert.equal(inNetworks([])('127.0.0.1'), false);
});

describe('where a request began', () => {
  const origin = originBehind({ addresses: ['10.0.0.0/24'], certificates: ['edge'] });
  const from = (peer: string, ...headers: Array<readonly [string, string]>) => origin(request(peer, headers));
  const forwarded = (value: string) => ['X-Forwarded-For', value] as const;

  test('is what a proxy says that is believed, and nobody else', () => {
    assert.deepEqual(from('10.0.0.1', forwarded('192.0.2.1'), ['X-Forwarded-Proto', 'https']), {
      address: '192.0.2.1',
      scheme: 'https',
    });
    assert.deepEqual(from('10.0.1.1', forwarded('192.0.2.1'), ['X-Forwarded-Proto', 'https']), {
      address: '10.0.1.1',
      scheme: undefined,
    });
    const byCertificate = shown({ commonName: 'edge' }, request('192.0.2.50', [forwarded('192.0.2.1')]));
    assert.equal(origin(byCertificate).address, '192.0.2.1');
    const other = shown({ commonName: 'edge2' }, request('192.0.2.50', [forwarded('192.0.2.1')]));
    assert.equal(origin(other).address, '192.0.2.50');
  });

  test('the last hop that is not believed counts, whatever stands before it', () => {
    for (const [value, address] of [
      ['203.0.113.9, 192.0.2.1', '192.0.2.1'],
      ['192.0.2.1, 10.0.0.7', '192.0.2.1'],
      ['192.0.2.1, 10.0.0.7, 10.0.0.8', '192.0.2.1'],
      ['10.0.0.7', '10.0.0.7'],
      ['forged, 10.0.0.7', '10.0.0.7'],
      ['192.0.2.1, unknown', '10.0.0.1'],
      ['::ffff:192.0.2.1', '192.0.2.1'],
      ['2001:db8::1', '2001:db8::1'],
      ['', '10.0.0.1'],
    ] as const)
      assert.equal(from('10.0.0.1', forwarded(value)).address, address, value);
    assert.equal(from('10.0.0.1', forwarded('203.0.113.9'), forwarded('192.0.2.1')).address, '192.0.2.1');
    assert.equal(from('10.0.0.1').address, '10.0.0.1');
  });

  test('a scheme is one of two', () => {
    for (const [value, scheme] of [
      ['http', 'http'],
      ['http, https', 'https'],
      ['ftp', undefined],
      ['https://evil.example', undefined],
    ] as const)
      assert.equal(from('10.0.0.1', ['X-Forwarded-Proto', value]).scheme, scheme, value);
  });
});

describe('users of a proxy', () => {
  const trusts = fromProxy({ addresses: ['10.0.0.1'], certificates: [] });
  const users = new ProxyUsers({ header: 'remote-user', groupsHeader: 'remote-groups', trusts });

  test('have the names that it gives, in UTF-8 and NFC', () => {
    const sent = Buffer.from('Zoe\u0308').toString('latin1');
    assert.deepEqual(
      users.identify(
        request('10.0.0.1', [
          ['Remote-User', sent],
          ['Remote-Groups', 'a, b;c,,'],
        ]),
      ),
      {
        name: 'Zoë',
        groups: ['a', 'b', 'c'],
        version: '',
      },
    );
  });

  test('are nobody from elsewhere, twice or not', () => {
    assert.equal(users.identify(request('10.0.0.2', [['Remote-User', 'a']])), undefined);
    assert.equal(
      users.identify(
        request('10.0.0.2', [
          ['Remote-User', 'a'],
          ['Remote-User', 'b'],
        ]),
      ),
      undefined,
    );
  });

  test('must be one', () => {
    for (const headers of [
      [
        ['Remote-User', 'a'],
        ['remote-user', 'a'],
      ],
      [
        ['Remote-User', 'a'],
        ['Remote-Groups', 'a'],
        ['REMOTE-GROUPS', 'b'],
      ],
      [['Remote-User', 'a\x01']],
      [['Remote-User', '\xff']],
    ] as const)
      assert.throws(() => users.identify(request('10.0.0.1', headers)), { status: 400 }, JSON.stringify(headers));
    for (const value of ['', ' ', '(null)'])
      assert.equal(users.identify(request('10.0.0.1', [['Remote-User', value]])), undefined, value);
  });
});

describe('users by certificates', () => {
  const byName = (user: 'commonname' | 'email' | 'uri') =>
    new CertificateUsers({
      user,
      groups: 'organizationalunit',
      isProxy: fromProxy({ addresses: [], certificates: ['proxy'] }),
    });
  const names = ['email:alice@example.com', 'dns:a.example.com', 'uri:spiffe://a/b'];

  test('have the one name of the kind that is asked for', () => {
    const asked = shown({ commonName: 'alice', alternativeNames: names, organizationalUnits: ['dev', 'ops'] });
    assert.deepEqual(byName('commonname').identify(asked), { name: 'alice', groups: ['dev', 'ops'], version: 'AB:CD' });
    assert.equal(byName('email').identify(asked)?.name, 'alice@example.com');
    assert.equal(byName('uri').identify(asked)?.name, 'spiffe://a/b');
  });

  test('are nobody without one, or with several, or without a certificate, or when it is a proxy’s', () => {
    assert.equal(byName('email').identify(shown({ alternativeNames: ['email:a@x', 'email:b@x'] })), undefined);
    assert.equal(byName('email').identify(shown({ commonName: 'alice' })), undefined);
    assert.equal(byName('commonname').identify(shown({ commonName: 'a\nb' })), undefined);
    assert.equal(byName('commonname').identify(shown({ commonName: '' })), undefined);
    assert.equal(byName('commonname').identify(shown({ commonName: 'proxy' })), undefined);
    assert.equal(byName('commonname').identify(request('192.0.2.9')), undefined);
  });
});
