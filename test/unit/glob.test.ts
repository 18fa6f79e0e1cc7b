import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseGlob } from '../../src/glob.js';

describe('patterns of names', () => {
  for (const [pattern, matching, others] of [
    ['team/app', ['team/app'], ['team', 'team/app/x', 'xteam/app', 'team/ap']],
    ['team/**', ['team/app', 'team/a/b', 'team/'], ['team', 'teams/app', 'x/team/app']],
    ['**', ['', 'a', 'a/b'], []],
    ['team/*', ['team/app', 'team/'], ['team', 'team/a/b']],
    ['*/app', ['team/app', '/app'], ['app', 'a/b/app']],
    ['**/app', ['team/app', 'a/b/app', '/app'], ['app']],
    ['v1.*', ['v1.', 'v1.2', 'v1.2.3'], ['v1', 'v12', 'v1.2/3']],
    ['a*b**c', ['abc', 'axbxc', 'axbx/xc'], ['ax/bc', 'ab', 'bc']],
  ] as const)
    test(pattern, () => {
      const glob = parseGlob(pattern);
      for (const name of matching) assert.equal(glob(name), true, name);
      for (const name of others) assert.equal(glob(name), false, name);
    });

  test('each matches as the regular expression that it stands for', () => {
    const text = (...characters: string[]) => fc.string({ unit: fc.constantFrom(...characters), maxLength: 8 });
    fc.assert(
      fc.property(text('a', 'b', '/', '*', '.'), text('a', 'b', '/', '.'), (pattern, name) => {
        fc.pre(pattern !== '');
        const source = pattern.replaceAll('.', '\\.').replaceAll(/\*+/g, stars => (stars === '*' ? '[^/]*' : '.*'));
        assert.equal(parseGlob(pattern)(name), new RegExp(`^${source}$`).test(name));
      }),
      { numRuns: 2000 },
    );
  });

  test('no pattern is slow', () => {
    const glob = parseGlob('*a'.repeat(120));
    assert.equal(glob(`${'a'.repeat(254)}b`), false);
  });
});
