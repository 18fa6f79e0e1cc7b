import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseHtpasswd, splitLines } from '../../src/auth/htpasswd.js';

const hash = (cost: string, variant = 'y') =>
  `$2${variant}$${cost}$${'abcdefghijklmnopqrstuv'}${'./ABCDEFGHIJKLMNOPQRSTUVWXYZ012'}`;
const TEN = hash('10');
const parse = (text: string) => parseHtpasswd(text, 'auth/htpasswd');

describe('an htpasswd file', () => {
  test('users with the three spellings of bcrypt', () => {
    const { users, cost, warnings } = parse(`a:${hash('10', 'a')}\nb:${hash('10', 'b')}\ny:${hash('10', 'y')}\n`);
    assert.deepEqual(
      [...users],
      [
        ['a', hash('10', 'a')],
        ['b', hash('10', 'b')],
        ['y', TEN],
      ],
    );
    assert.equal(cost, 10);
    assert.deepEqual(warnings, []);
  });

  test('comments, blank lines, CRLF, a byte order mark, spaces, further fields, no last line feed', () => {
    const { entries } = parse(`\ufeffa:${TEN}\r\n# b:${TEN}\r\n  \t\r\n\r\n  c:${TEN}  \r\nd: ${TEN} :more:fields`);
    assert.deepEqual(
      entries.map(({ name, line, hash }) => [name, line, hash]),
      [
        ['a', 1, TEN],
        ['c', 5, TEN],
        ['d', 6, TEN],
      ],
    );
  });

  test('names are compared in NFC', () => {
    const { users } = parse(`ju\u0308rgen:${TEN}\n`);
    assert.ok(users.has('jürgen'));
  });

  test('the plain line of the old recipe is an error with the command that mends it, and without the password', () => {
    assert.throws(
      () => parse(`a:${TEN}\ntestuser test123\n`),
      (error: Error & { fix?: string }) => {
        assert.match(error.message, /auth\/htpasswd, line 2: no colon/);
        assert.match(error.fix!, /registry-secure user add testuser --file auth\/htpasswd$/);
        assert.ok(!`${error.message}${error.fix}${error.stack}`.includes('test123'));
        return true;
      },
    );
  });

  test('any other line without a colon is an error that shows nothing of it', () => {
    for (const line of ['canary', 'canary canary canary'])
      assert.throws(
        () => parse(line),
        (error: Error & { fix?: string }) => {
          assert.match(error.message, /line 1/);
          assert.ok(!`${error.message}${error.fix}`.includes('canary'));
          return true;
        },
      );
  });

  test('another hash shuts out that user alone, and is named but not shown', () => {
    const others = {
      apr: '$apr1$abcdefgh$canarycanary',
      sha: '{SHA}canarycanary=',
      crypt: '$6$canary$canary',
      plain: 'canary',
      short: `${TEN.slice(0, -1)}`,
      old: hash('10', 'x'),
      empty: '',
      low: hash('03'),
      high: hash('32'),
    };
    const text = Object.entries(others).map(([name, value]) => `${name}:${value}\n`);
    const { users, entries, warnings } = parse(`${text.join('')}good:${TEN}\n`);
    assert.deepEqual([...users.keys()], ['good']);
    assert.equal(entries.filter(entry => entry.problem).length, 9);
    assert.equal(warnings.length, 9);
    for (const [index, name] of Object.keys(others).entries()) {
      assert.ok(warnings[index]!.startsWith(`auth/htpasswd, line ${index + 1}: "${name}": `), warnings[index]);
      assert.ok(warnings[index]!.endsWith(`registry-secure user passwd ${name} --file auth/htpasswd`), warnings[index]);
      assert.ok(!warnings[index]!.includes('canary') && !warnings[index]!.includes(TEN.slice(7, -1)));
    }
  });

  test('a cost over 14 shuts out that user alone', () => {
    const { users, cost, warnings } = parse(`slow:${hash('15')}\nlast:${hash('14')}\n`);
    assert.deepEqual([...users.keys()], ['last']);
    assert.equal(cost, 14);
    assert.match(warnings.join(), /line 1: "slow": bcrypt cost 15 is over 14/);
  });

  test('of two lines for one user the last counts, whatever it is worth', () => {
    const later = hash('10', 'b');
    const again = parse(`a:${TEN}\na:${later}\n`);
    assert.equal(again.users.get('a'), later);
    assert.match(again.warnings.join(), /line 1: "a": line 2 has this user again, and the last one counts/);
    assert.equal(parse(`a:${TEN}\na:{SHA}x\n`).users.size, 0);
  });

  test('mixed costs are told', () => {
    const { cost, warnings } = parse(`a:${hash('05')}\nb:${TEN}\n`);
    assert.equal(cost, 10);
    assert.match(warnings.join(), /costs from 5 to 10 are mixed/);
  });

  test('a file without users lets nobody in, and says so', () => {
    for (const text of ['', '# nobody\n', '\ufeff', '\n\n']) {
      const { users, cost, warnings } = parse(text);
      assert.equal(users.size, 0);
      assert.equal(cost, undefined);
      assert.match(warnings.join(), /has no user who can log in; add one: registry-secure user add NAME --file/);
    }
  });

  test('names that can never log in are told without their control characters', () => {
    const { users, warnings } = parse(`:${TEN}\na\x1bb:${TEN}\n`);
    assert.equal(users.size, 0);
    assert.match(warnings[0]!, /line 1: "": a user without a name/);
    assert.match(warnings[1]!, /line 2: "a\\u001bb": a name with control characters/);
    assert.ok(!warnings.join().includes('\x1b'));
  });

  test('UTF-16, as an old shell on Windows writes it, is an error', () =>
    assert.throws(() => parse('a\0:\0'), /not plain text/));

  test('a command in a message is quoted for the shell', () => {
    assert.match(parse(`it's $HOME:x\n`).warnings.join(), /user passwd 'it'\\''s \$HOME' --file auth\/htpasswd/);
  });

  test('any users that are written are read', () => {
    const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).map(text => text.normalize('NFC'));
    const fine = name.filter(text => text === text.trim() && !/[\x00-\x1f\x7f-\x9f:\ufffd\ufeff]|^#/.test(text));
    fc.assert(
      fc.property(fc.uniqueArray(fine), fc.constantFrom('\n', '\r\n'), (names, end) => {
        const { users, entries } = parse(names.map(text => `${text}:${TEN}${end}`).join(''));
        assert.deepEqual([...users.keys()], names);
        assert.deepEqual(
          entries.map(entry => entry.line),
          names.map((_, index) => index + 1),
        );
      }),
    );
  });

  test('no text makes it fail in another way, or shows a hash', () => {
    const line = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constant(`user:${TEN}`),
      fc.string().map(text => `u:${text}`),
    );
    fc.assert(
      fc.property(fc.array(line), lines => {
        try {
          assert.ok(!parse(lines.join('\n')).warnings.join('\n').includes(TEN));
        } catch (error) {
          assert.equal((error as Error).name, 'OperatorError');
        }
      }),
      { numRuns: 500 },
    );
  });

  test('lines keep their ends', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('a', '\n', '\r\n', ' ', '\r')), parts => {
        assert.equal(splitLines(parts.join('')).join(''), parts.join(''));
      }),
    );
    assert.deepEqual(splitLines('a\r\n\nb'), ['a\r\n', '\n', 'b']);
  });
});
