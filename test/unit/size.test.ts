import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatSize, parseSize, roughSize } from '../../src/size.js';

test('sizes in all their units', () => {
  for (const [text, bytes] of [
    ['0', 0],
    ['17', 17],
    ['17B', 17],
    ['4KiB', 4096],
    ['4 kb', 4000],
    ['1.5MiB', 1_572_864],
    ['2GB', 2_000_000_000],
    ['3GiB', 3 * 2 ** 30],
    ['1TiB', 2 ** 40],
    ['1tb', 1e12],
  ] as const)
    assert.equal(parseSize(text), bytes, text);
});

test('what is no size is refused', () => {
  for (const text of ['', '-1', '1X', '4G', 'GiB', '1e9', '1.5.5GB', '9007199254740993', '0x10', '1 000'])
    assert.throws(() => parseSize(text), { name: 'OperatorError', message: `${JSON.stringify(text)} is not a size` });
});

test('what is written is read back', () => {
  fc.assert(fc.property(fc.maxSafeNat(), bytes => parseSize(formatSize(bytes)) === bytes));
  assert.deepEqual([0, 1000, 1024, 5 * 2 ** 30].map(formatSize), ['0', '1000', '1KiB', '5GiB']);
});

test('roughly, for people', () => {
  assert.deepEqual([0, 1023, 1024, 10_500_000, 2 ** 40 * 300].map(roughSize), [
    '0 B',
    '1023 B',
    '1.00 KiB',
    '10.0 MiB',
    '300 TiB',
  ]);
});
