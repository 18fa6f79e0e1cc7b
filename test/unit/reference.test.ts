import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isDigest, isRepositoryName, isTag, parseDigest, parseRange } from '../../src/reference.js';

describe('repository names', () => {
  test('the grammar', () => {
    for (const name of ['a', 'a/b', 'a-b', 'a--b', 'a_b', 'a__b', 'a.b', 'manifests/tags/blobs', 'a'.repeat(255)])
      assert.ok(isRepositoryName(name), name);
    for (const name of ['', '/', 'a/', '/a', 'a//b', 'A', 'a..b', 'a___b', '-a', 'a-', '_a', 'a/_b', 'a b', 'ä', 'a\n'])
      assert.ok(!isRepositoryName(name), JSON.stringify(name));
    assert.ok(!isRepositoryName('a'.repeat(256)));
  });

  test('a hostile name costs no time', () => {
    const before = process.cpuUsage();
    for (let i = 0; i < 1000; i++) isRepositoryName(`${'a-'.repeat(127)}!`);
    assert.ok(process.cpuUsage(before).user < 5_000_000, 'microseconds');
  });
});

test('tags', () => {
  for (const tag of ['latest', '1.0', '_x', 'a'.repeat(128), 'A-b_c.d']) assert.ok(isTag(tag), tag);
  for (const tag of ['', '.a', '-a', 'a'.repeat(129), 'a/b', 'ä', 'a\n', 'a b']) assert.ok(!isTag(tag), tag);
});

test('digests', () => {
  assert.ok(isDigest(`sha256:${'0a'.repeat(32)}`));
  assert.ok(isDigest(`sha512:${'0a'.repeat(64)}`));
  for (const text of ['', 'sha256:', 'sha256:../x', `sha256:${'0A'.repeat(32)}`, `sha256:${'0a'.repeat(31)}`])
    assert.throws(() => parseDigest(text), { code: 'DIGEST_INVALID' });
  assert.ok(!isDigest(`md5:${'0a'.repeat(16)}`) && !isDigest(`sha512:${'0a'.repeat(32)}`));
  assert.ok(!isDigest(`sha256:${'0a'.repeat(32)}\n`) && !isDigest(`constructor:${'0a'.repeat(32)}`));
});

describe('ranges of 1,000 bytes', () => {
  const cases: ReadonlyArray<[string | undefined, unknown]> = [
    [undefined, undefined],
    ['bytes=0-99', [[0, 99]]],
    ['bytes=500-', [[500, 999]]],
    ['bytes=-500', [[500, 999]]],
    ['bytes=-5000', [[0, 999]]],
    ['bytes=900-5000', [[900, 999]]],
    ['bytes=500-0', []],
    ['bytes=5000-10000', []],
    ['bytes=-0', []],
    ['bytes=1000-', []],
    [
      'bytes=0-1, 5-6',
      [
        [0, 1],
        [5, 6],
      ],
    ],
    ['bytes=5-6,0-1', undefined],
    ['bytes=0-5,5-6', undefined],
    ['bytes=0-1,5000-', [[0, 1]]],
    ['bytes=', undefined],
    ['bytes=a-b', undefined],
    ['bytes=1', undefined],
    ['items=0-1', undefined],
    [`bytes=${Array.from({ length: 1025 }, (_, i) => `${i}-${i}`).join(',')}`, undefined],
    [`bytes=${'9'.repeat(17)}-`, undefined],
  ];
  for (const [header, expected] of cases)
    test(`${header?.slice(0, 40)}`, () => {
      assert.deepEqual(
        parseRange(header, 1000)?.map(({ start, end }) => [start, end]),
        expected,
      );
    });
  test('of nothing', () => {
    assert.deepEqual(parseRange('bytes=0-', 0), []);
    assert.deepEqual(parseRange('bytes=-5', 0), []);
  });
});
