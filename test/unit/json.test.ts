import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseStrictJson } from '../../src/store/json.js';

const parse = (text: string) => parseStrictJson(Buffer.from(text));

test('reads what JSON.parse reads', () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 8 }), text => {
      // What JSON.parse forgives is tested below.
      fc.pre(!text.includes('__proto__'));
      assert.deepEqual(parse(text), JSON.parse(text));
    }),
  );
});

test('refuses what parsers read in different ways', () => {
  assert.throws(() => parse('{"a":1,"a":2}'), /duplicate key "a"/);
  assert.throws(() => parse('{"a":1,"\\u0061":2}'), /duplicate key "a"/);
  assert.throws(() => parse('{"x":[{"b":"}{","b" :1}]}'), /duplicate key "b"/);
  assert.throws(() => parse('{"__proto__":{"polluted":1}}'), /__proto__/);
  assert.throws(() => parse('\uFEFF{}'), SyntaxError);
  assert.throws(() => parseStrictJson(Buffer.from([0x22, 0xff, 0x22])), TypeError);
  for (const text of ['', '{', '{"a":1}x', "{'a':1}", '{"a":1,}', '[1,]', 'NaN', '{"a":01}', '"\u0001"'])
    assert.throws(() => parse(text), SyntaxError, text);
});

test('the same key in different objects is no duplicate, nor is a key as a value', () => {
  assert.deepEqual(parse('{"a":{"a":"a"},"b":["a","a",{"a":1}]}'), { a: { a: 'a' }, b: ['a', 'a', { a: 1 }] });
});

test('depth is limited without recursion', () => {
  assert.throws(() => parse('['.repeat(65) + ']'.repeat(65)), /64 deep/);
  assert.doesNotThrow(() => parse('['.repeat(64) + ']'.repeat(64)));
  assert.throws(() => parse('['.repeat(200_000) + ']'.repeat(200_000)), /64 deep/);
  assert.throws(() => parse(`${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}`), /64 deep/);
});
