import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { authorizationOf, parseAuthorization } from '../../src/auth/basic.js';

const basic = (text: string | Buffer) => `Basic ${Buffer.from(text).toString('base64')}`;

describe('the Authorization header', () => {
  test('user and password', () => {
    assert.deepEqual(parseAuthorization(basic('alice:secret')), { user: 'alice', password: 'secret' });
    assert.deepEqual(parseAuthorization(basic('alice:')), { user: 'alice', password: '' });
    assert.deepEqual(
      parseAuthorization(basic('alice:a:b:')),
      { user: 'alice', password: 'a:b:' },
      'first colon splits',
    );
    assert.deepEqual(parseAuthorization('bAsIc   YTpi'), { user: 'a', password: 'b' }, 'the scheme has no case');
  });

  test('a name is taken in NFC, a password as it was sent', () => {
    assert.deepEqual(parseAuthorization(basic('ju\u0308rgen:u\u0308')), { user: 'jürgen', password: 'u\u0308' });
  });

  test('empty credentials are none', () => assert.equal(parseAuthorization('Basic Og=='), 'none'));

  const unusable: Record<string, string> = {
    'nothing at all': '',
    'a scheme alone': 'Basic',
    'a scheme and a space': 'Basic ',
    'another scheme': 'Digest YTpi',
    'a scheme that begins alike': 'Basically YTpi',
    'no colon': basic('alice'),
    'no user': basic(':secret'),
    'no padding': 'Basic Og',
    'bits behind the last byte': 'Basic YTpiYx==',
    'padding in the middle': 'Basic YQ==YTpi',
    'the alphabet of URLs': basic(Buffer.from('a:ûÿ')).replace(/[+/]/g, '-'),
    'a space within': 'Basic YT pi',
    'a space behind': 'Basic YTpi ',
    'a line feed': basic('alice:a\nb'),
    'a NUL': basic('alice\0:b'),
    'a C1 control character': basic('alice:\u0085'),
    'Latin-1': basic(Buffer.from('jürgen:x', 'latin1')),
    'over 1 KiB decoded': basic(`a:${'x'.repeat(1023)}`),
    'far over 1 KiB': basic(`a:${'x'.repeat(12_000)}`),
  };
  for (const [what, header] of Object.entries(unusable))
    test(`refused: ${what}`, () => assert.equal(parseAuthorization(header), 'unusable'));

  test('1 KiB decoded is taken', () =>
    assert.equal(typeof parseAuthorization(basic(`a:${'x'.repeat(1022)}`)), 'object'));

  test('any user and password come back', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 40 }).filter(value => !/[\x00-\x1f\x7f-\x9f]/.test(value));
    fc.assert(
      fc.property(text, text, (user, password) => {
        fc.pre(user !== '' && !user.includes(':'));
        const parsed = parseAuthorization(basic(`${user}:${password}`));
        assert.deepEqual(parsed, { user: user.normalize('NFC'), password });
      }),
    );
  });

  test('a token is taken as it is, and only where it can be one', () => {
    for (const token of ['a', 'a.b-c_d', 'x'.repeat(12 * 1024), 'a=='])
      for (const scheme of ['Bearer ', 'bearer  ']) assert.deepEqual(parseAuthorization(scheme + token), { token });
    for (const odd of ['', 'a b', 'a"', 'x'.repeat(12 * 1024 + 1), '=a', 'ä'])
      assert.equal(parseAuthorization(`Bearer ${odd}`), 'unusable');
  });

  test('no header makes it throw, and what it takes is what was encoded', () => {
    const header = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string({ unit: 'binary' }).map(text => `Basic ${text}`),
      fc.uint8Array().map(bytes => basic(Buffer.from(bytes))),
    );
    fc.assert(
      fc.property(header, value => {
        const parsed = parseAuthorization(value);
        if (typeof parsed === 'string' || 'token' in parsed) return;
        const sent = Buffer.from(value.replace(/^basic +/i, ''), 'base64').toString();
        assert.equal(
          `${parsed.user}:${parsed.password}`,
          sent.replace(/^[^:]*/, user => user.normalize('NFC')),
        );
      }),
      { numRuns: 500 },
    );
  });
});

test('two Authorization headers are refused with 400, in whatever case', () => {
  const request = (rawHeaders: string[]) =>
    ({ headers: { authorization: rawHeaders[1] }, rawHeaders }) as unknown as IncomingMessage;
  assert.deepEqual(authorizationOf(request(['Authorization', 'Basic YTpi', 'Host', 'h'])), {
    user: 'a',
    password: 'b',
  });
  assert.throws(() => authorizationOf(request(['Authorization', 'Basic YTpi', 'AUTHORIZATION', 'Basic YTpi'])), {
    code: 'UNAUTHORIZED',
    status: 400,
  });
  assert.equal(authorizationOf({ headers: {}, rawHeaders: [] } as unknown as IncomingMessage), 'none');
});
