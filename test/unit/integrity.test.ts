import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mock, test } from 'node:test';
import type { Digest } from '../../src/reference.js';
import { type ByteStream, LENT_CHUNKS, type ObjectInfo } from '../../src/storage/driver.js';
import { type Corruption, Integrity, type VerifyMode } from '../../src/store/integrity.js';

const DATA = 'abcdefghij';
const DIGEST: Digest = `sha256:${createHash('sha256').update(DATA).digest('hex')}`;
const KEY = 'blobs/a';

function info(version: string, size = DATA.length): ObjectInfo {
  return { size, version, modified: new Date(0) };
}

/** Chunks of one character, each in a buffer that is used again as soon as the contract allows. */
function lent(text: string, version = 'v1'): ByteStream & { closed: boolean } {
  const ring = Array.from({ length: LENT_CHUNKS }, () => Buffer.alloc(1));
  let at = 0;
  return {
    info: info(version, text.length),
    closed: false,
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      if (at === text.length) return this.return();
      const buffer = ring[at % ring.length]!;
      buffer.write(text[at++]!);
      return { done: false, value: buffer };
    },
    async return() {
      this.closed = true;
      return { done: true, value: undefined };
    },
  };
}

/** Reads as the registry does: one chunk is on its way while the next is asked for. */
async function send(stream: ByteStream): Promise<string> {
  let sent = '';
  let onItsWay: Buffer | undefined;
  for await (const chunk of stream) {
    sent += onItsWay ?? '';
    onItsWay = chunk;
  }
  return sent + (onItsWay ?? '');
}

function make(mode: VerifyMode = 'daily') {
  const found: Corruption[] = [];
  const integrity = new Integrity(mode, corruption => found.push(corruption));
  /** Whether a pull of these bytes would be hashed. */
  const isDue = (version: string) => {
    const stream = lent(DATA, version);
    return integrity.checked(DIGEST, KEY, stream) !== stream;
  };
  return { integrity, found, isDue };
}

test('the bytes pass as they are, though buffers are used again', async () => {
  const { integrity, found } = make();
  const source = lent(DATA);
  assert.equal(await send(integrity.checked(DIGEST, KEY, source)), DATA);
  assert.ok(source.closed);
  assert.deepEqual(found, []);
});

test('of other bytes all but the last chunk pass, and what was found is told', async () => {
  for (const text of ['Xbcdefghij', 'abcdefghiX', 'abcde', `${DATA}k`, 'X', '']) {
    const { integrity, found } = make();
    const source = lent(text);
    let passed = '';
    await assert.rejects(
      async () => {
        for await (const chunk of integrity.checked(DIGEST, KEY, source)) passed += chunk.toString();
      },
      { code: 'BLOB_UNKNOWN' },
    );
    assert.equal(passed, text.slice(0, -1));
    assert.ok(source.closed);
    const actual = `sha256:${createHash('sha256').update(text).digest('hex')}`;
    assert.deepEqual(found, [{ digest: DIGEST, actual, key: KEY }]);
    assert.ok(integrity.isCorrupt(KEY, info('v1')));
    assert.ok(!integrity.isCorrupt(KEY, info('v2')), 'written again it is another blob');
  }
});

test('one that is given up closes its source and proves nothing', async () => {
  const { integrity, isDue } = make();
  const source = lent(DATA);
  for await (const _ of integrity.checked(DIGEST, KEY, source)) break;
  assert.ok(source.closed);
  assert.ok(isDue('v1'));
});

test('daily: once for each version, again after a day, and not after a renewal by this process', async t => {
  t.after(() => mock.timers.reset());
  mock.timers.enable({ apis: ['Date'], now: 1_000_000 });
  const { integrity, isDue } = make();
  assert.ok(isDue('v1'));
  await send(integrity.checked(DIGEST, KEY, lent(DATA)));
  assert.ok(!isDue('v1'));
  assert.ok(isDue('v2'));
  integrity.renewed(KEY, info('v1'), info('v2'));
  assert.ok(!isDue('v2'));
  assert.ok(isDue('v1'));
  integrity.renewed(KEY, info('other'), info('v3'));
  assert.ok(isDue('v3'), 'somebody else had changed it before');
  mock.timers.tick(24 * 3600 * 1000 - 1);
  assert.ok(!isDue('v2'));
  mock.timers.tick(1);
  assert.ok(isDue('v2'), 'a renewal is no check');
});

test('always, and never', async () => {
  const always = make('always');
  await send(always.integrity.checked(DIGEST, KEY, lent(DATA)));
  assert.ok(always.isDue('v1'));
  assert.ok(!make('off').isDue('v1'));
});
