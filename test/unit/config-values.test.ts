import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createSecureContext } from 'node:tls';
import fc from 'fast-check';
import { ALL_SUITES, opensslCiphers, parseSuite } from '../../src/config/ciphers.js';
import { formatDuration, nearest, parseAddress, parseBoolean, parseDuration } from '../../src/config/values.js';
import { OperatorError } from '../../src/errors.js';

describe('durations', () => {
  for (const [text, milliseconds] of [
    ['168h', 604_800_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['.5s', 500],
    ['1.1s', 1100],
    ['30s', 30_000],
    [' 30s ', 30_000],
    ['500ms', 500],
    ['1m500ms', 60_500],
    ['100us', 1],
    ['2000µs', 2],
    ['0', 0],
    ['0s', 0],
    ['30000000000', 30_000],
    ['1', 1],
  ] as const)
    test(text, () => assert.equal(parseDuration(text), milliseconds));

  for (const text of ['', 's', '1d', '30 s', '-1s', '+1s', '1h30', '1..5s', '1e3s', 's1', '9'.repeat(21)])
    test(`not ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseDuration(text), { name: 'OperatorError' });
    });

  test('a century is refused, and so is a flood of units', () => {
    assert.throws(() => parseDuration('1000001h'), /too long/);
    assert.throws(() => parseDuration('1h'.repeat(10_000)), /not a duration/);
  });

  test('what is formatted is read back', () =>
    fc.assert(
      fc.property(fc.nat({ max: 3_600_000_000 }), milliseconds => {
        assert.equal(parseDuration(formatDuration(milliseconds)), milliseconds);
      }),
    ));

  test('the parts add up, in any order', () =>
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(fc.nat({ max: 5000 }), fc.constantFrom(['h', 3_600_000], ['m', 60_000], ['s', 1000], ['ms', 1])),
          {
            minLength: 1,
            maxLength: 6,
          },
        ),
        parts => {
          const text = parts.map(([number, [unit]]) => `${number}${unit}`).join('');
          const sum = parts.reduce((total, [number, [, size]]) => total + number * (size as number), 0);
          assert.equal(parseDuration(text), sum);
        },
      ),
    ));
});

describe('addresses', () => {
  for (const [text, host, port] of [
    ['0.0.0.0:443', '0.0.0.0', 443],
    [':5000', '', 5000],
    ['localhost:5000', 'localhost', 5000],
    ['registry.example.com:1', 'registry.example.com', 1],
    ['my_host:1', 'my_host', 1],
    ['[::]:443', '::', 443],
    ['[fe80::1%eth0]:443', 'fe80::1%eth0', 443],
    ['127.0.0.1:0', '127.0.0.1', 0],
  ] as const)
    test(text, () => assert.deepEqual(parseAddress(text), { host, port }));

  for (const [text, fix] of [
    ['5000', /write :5000 or 0\.0\.0\.0:5000/],
    ['localhost', /write localhost:5000/],
    ['192.168.0.12', /write 192\.168\.0\.12:5000/],
    ['::1', /write \[::1\]:5000/],
    ['fe80::1:2:3:4:5000', /write \[fe80::1:2:3:4:5000\]:5000/],
    ['fe80:1:2:3:4:5:6:7:5000', /in brackets: \[fe80:1:2:3:4:5:6:7\]:5000/],
    ['https://0.0.0.0:443', /without a scheme/],
    ['/run/registry.sock', /without a scheme or path/],
    ['0.0.0.0:65536', /0 to 65535/],
    ['0.0.0.0:', /0 to 65535/],
    ['0.0.0.0:https', /0 to 65535/],
    ['0.0.0.0:-1', /0 to 65535/],
    ['999.0.0.0:443', /HOST:PORT/],
    ['[localhost]:443', /\[::\]:5000/],
    ['bad host:443', /HOST:PORT/],
    ['', /HOST:5000/],
  ] as const)
    test(`not ${JSON.stringify(text)}`, () =>
      assert.throws(
        () => parseAddress(text),
        (error: OperatorError) => error instanceof OperatorError && fix.test(error.fix ?? ''),
      ));

  test('every address with a port is read back', () =>
    fc.assert(
      fc.property(
        fc.oneof(
          fc.ipV4().map(host => [host, host]),
          fc.ipV6().map(host => [`[${host}]`, host]),
        ),
        fc.integer({ min: 0, max: 65_535 }),
        ([written, host], port) => {
          assert.deepEqual(parseAddress(`${written}:${port}`), { host, port });
        },
      ),
    ));

  test('nothing but an OperatorError comes out of any text', () =>
    fc.assert(
      fc.property(fc.string(), text => {
        try {
          const { port } = parseAddress(text);
          assert.ok(Number.isInteger(port) && port <= 65_535);
        } catch (error) {
          assert.equal((error as Error).name, 'OperatorError');
        }
      }),
    ));
});

test('truth values, with the words of YAML 1.1', () => {
  for (const word of ['true', 'True', 'TRUE', 'yes', 'on', 'y']) assert.equal(parseBoolean(word), true);
  for (const word of ['false', 'False', 'no', 'off', 'n']) assert.equal(parseBoolean(word), false);
  for (const word of ['', '1', '0', 'ja', 'truee']) assert.throws(() => parseBoolean(word), /neither true nor false/);
});

test('the nearest name', () => {
  const names = ['http.addr', 'http.tls.certificate', 'http.tls.key'];
  assert.equal(nearest('http.adr', names), 'http.addr');
  assert.equal(nearest('HTTP.TLS.CERT', names), 'http.tls.key');
  assert.equal(nearest('http.certificate', names), 'http.tls.certificate');
  assert.equal(nearest('addr', names), 'http.addr');
  assert.equal(nearest('x', names), undefined);
});

describe('cipher suites', () => {
  test('OpenSSL knows every one of them', () => {
    for (const suite of ALL_SUITES) createSecureContext({ ciphers: opensslCiphers([suite]) });
    assert.equal(opensslCiphers(ALL_SUITES).split(':').length, ALL_SUITES.length);
  });
  test('weak and unknown ones are refused', () => {
    for (const suite of [
      'TLS_RSA_WITH_AES_128_GCM_SHA256',
      'TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA',
      'TLS_RSA_WITH_RC4_128_SHA',
    ])
      assert.throws(() => parseSuite(suite), /forward secrecy/);
    assert.throws(() => parseSuite('TLS_AES_128_GCM_SHA265'), { fix: 'did you mean TLS_AES_128_GCM_SHA256?' });
    assert.throws(() => parseSuite('constructor'), /no cipher suite/);
  });
});
