import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { OperatorError } from '../../src/errors.js';
import { StorageError } from '../../src/storage/driver.js';
import { listChildren } from '../../src/storage/object/listing.js';
import { PartBudget, sizeOfPart } from '../../src/storage/object/parts.js';
import { planParts, Turnstile } from '../../src/storage/s3/assemble.js';
import { Bucket } from '../../src/storage/s3/bucket.js';
import { s3Failure, s3Refusal } from '../../src/storage/s3/failure.js';

const MIB = 1024 * 1024;

test('parts hold all bytes in their order, and none but the last is too small', () => {
  const pieces = fc.array(fc.nat(60), { maxLength: 12 });
  fc.assert(
    fc.property(pieces, fc.integer({ min: 10, max: 30 }), (sizes, chunkSize) => {
      const parts = planParts(
        sizes.map((size, n) => ({ key: `${n}`, size })),
        chunkSize,
        10,
      );
      const stretches = parts.map(part => ('key' in part ? [part] : part));
      const bytes = stretches
        .flat()
        .flatMap(({ key, range }) =>
          Array.from({ length: range.end - range.start + 1 }, (_, n) => `${key}:${range.start + n}`),
        );
      assert.deepEqual(
        bytes,
        sizes.flatMap((size, n) => Array.from({ length: size }, (_, at) => `${n}:${at}`)),
      );
      for (const [n, part] of stretches.entries()) {
        const size = part.reduce((sum, { range }) => sum + range.end - range.start + 1, 0);
        assert.ok(size >= 10 || n === stretches.length - 1, `part ${n} of ${size}`);
        assert.ok(size < chunkSize + 10, `part ${n} of ${size}`);
      }
    }),
  );
});

test('a single piece makes parts of one size, and one for the rest, as Cloudflare R2 wants them', () => {
  for (const size of [100, 125, 130, 89, 90, 91]) {
    const parts = planParts([{ key: 'one', size }], 30, 10) as Array<{ range: { start: number; end: number } }>;
    const sizes = parts.map(({ range }) => range.end - range.start + 1);
    assert.deepEqual(sizes.slice(0, -1), Array(Math.ceil(size / 30) - 1).fill(30));
    assert.equal(sizes.at(-1), size % 30 || 30);
  }
});

test('a large piece is left to the service but for what its neighbours need', () => {
  const parts = planParts(
    [
      { key: 'small', size: 1 },
      { key: 'large', size: 100 },
    ],
    30,
    10,
  );
  assert.deepEqual(parts[0], [
    { key: 'small', range: { start: 0, end: 0 } },
    { key: 'large', range: { start: 0, end: 8 } },
  ]);
  assert.ok(parts.slice(1).every(part => 'key' in part));
});

/** A service that lists some keys at a time, in its own order. */
function listingOf(keys: readonly string[], pageSize: number): Bucket {
  const sorted = keys.toSorted();
  return {
    list: async (prefix: string, { after, token }: { after?: string; token?: string }) => {
      const children = new Set(
        sorted
          .filter(key => key.startsWith(prefix))
          .map(key => {
            const slash = key.indexOf('/', prefix.length);
            return slash < 0 ? key : key.slice(0, slash + 1);
          }),
      );
      const from = token ?? (after === undefined ? '' : `${prefix}${after}`);
      const rest = [...children].sort().filter(key => key > from);
      const page = rest.slice(0, pageSize);
      return {
        objects: page.filter(key => !key.endsWith('/')).map(key => ({ key, modified: new Date(0) })),
        folders: page.filter(key => key.endsWith('/')).map(key => key.slice(0, -1)),
        next: rest.length > pageSize ? page.at(-1) : undefined,
      };
    },
  } as unknown as Bucket;
}

test('children come in the order of their names, whatever pages a service makes of them', async () => {
  const name = fc
    .string({ unit: fc.constantFrom('a', 'b', '-', '.', '0', '_'), minLength: 1, maxLength: 3 })
    .filter(name => name !== '.' && name !== '..');
  // What is a folder is no object, as everywhere in the layout.
  const tree = fc.dictionary(name, fc.boolean(), { maxKeys: 25 });
  await fc.assert(
    fc.asyncProperty(
      tree,
      fc.integer({ min: 1, max: 5 }),
      name,
      fc.integer({ min: 1, max: 6 }),
      async (tree, pageSize, after, limit) => {
        const bucket = listingOf(
          Object.entries(tree).map(([name, folder]) => `at/${name}${folder ? '/link' : ''}`),
          pageSize,
        );
        const all = Object.entries(tree)
          .map(([name, folder]) => ({ name, folder }))
          .sort((one, other) => (one.name < other.name ? -1 : 1));
        const list = (options: { after?: string; limit?: number }) => listChildren(bucket, 'at', options, () => false);
        assert.deepEqual(await list({}), all);
        const rest = all.filter(({ name }) => name > after);
        assert.deepEqual(await list({ after }), rest);
        assert.deepEqual(await list({ after, limit }), rest.slice(0, limit));
      },
    ),
    { numRuns: 1000 },
  );
});

describe('memory of uploads', () => {
  test('many at once get the smallest parts', () => {
    const budget = new PartBudget(10 * MIB);
    const sizes = Array.from({ length: 100 }, () => budget.enter());
    assert.deepEqual(sizes.slice(0, 5), Array(5).fill(10 * MIB));
    assert.equal(sizes.at(-1), 5 * MIB);
    const held = (of: readonly number[]) => of.reduce((sum, size) => sum + 2 * size, 0) / MIB;
    assert.ok(held(sizes.slice(0, 16)) < 220, `${held(sizes.slice(0, 16))} MiB of sixteen`);
    for (const size of sizes) budget.leave(size);
    assert.equal(budget.enter(), 10 * MIB);
  });

  test('an upload keeps the size of its parts, but for a very large object', () => {
    const sizes = Array.from({ length: 10_000 }, (_, index) => sizeOfPart(index + 1, 5 * MIB));
    const sum = (of: readonly number[]) => of.reduce((total, size) => total + size, 0) / 1024 / MIB;
    const same = sizes.slice(
      0,
      sizes.findIndex(size => size !== sizes[0]),
    );
    assert.equal(sum(same), 40);
    assert.equal(Math.floor(sum(sizes)), 224);
    assert.ok(sizes.every((size, at) => size === sizes[at - 1] || at === 0 || size === 2 * sizes[at - 1]!));
  });

  test('only so many copies go at once, each in its turn, whatever becomes of those before', async () => {
    const turnstile = new Turnstile(3);
    const order: number[] = [];
    let going = 0;
    const work = async (n: number) => {
      order.push(n);
      assert.ok(++going <= 3);
      await new Promise(resolve => setImmediate(resolve));
      going -= 1;
      if (n % 2) throw new Error('failed');
    };
    const all = await Promise.allSettled(Array.from({ length: 10 }, (_, n) => turnstile.pass(() => work(n))));
    assert.deepEqual(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.equal(all.filter(({ status }) => status === 'rejected').length, 5);
    await Promise.all([turnstile.pass(() => work(0)), turnstile.pass(() => work(2)), turnstile.pass(() => work(4))]);
  });

  test('only so much is sent at once, and one part always is', async () => {
    const budget = new PartBudget(100 * MIB);
    let sending = 0;
    let most = 0;
    const send = async () => {
      most = Math.max(most, ++sending);
      await new Promise(resolve => setImmediate(resolve));
      sending -= 1;
    };
    await Promise.all(Array.from({ length: 20 }, () => budget.sending(10 * MIB, send)));
    assert.equal(most, 6);
    await budget.sending(100 * MIB, send);
  });
});

describe('what services answer', () => {
  const said = (name: string, status: number, more: object = {}) =>
    Object.assign(new Error('told'), { name, $metadata: { httpStatusCode: status }, ...more });

  test('no room is told from every other failure', () => {
    for (const error of [said('QuotaExceeded', 403), said('XMinioStorageFull', 507), said('Unknown', 507)])
      assert.equal((s3Failure('write x', error) as StorageError).kind, 'full');
    for (const error of [said('SlowDown', 503), said('AccessDenied', 403), new Error('socket hang up')])
      assert.equal((s3Failure('write x', error) as StorageError).kind, 'unavailable');
  });

  test('each way of not being let in has its fix', () => {
    const place = { bucket: 'b', endpoint: 'https://s3.example.com', region: 'eu-west-1' };
    const cases: Array<[unknown, RegExp, RegExp]> = [
      [said('InvalidAccessKeyId', 403), /does not know the access key/, /accesskey/],
      [said('ExpiredToken', 400), /credentials have expired/, /renew/],
      [said('RequestTimeTooSkewed', 403), /clock is wrong/, /NTP/],
      [said('AccessDenied', 403), /refuses access to the bucket b \(AccessDenied\)/, /allow this key/],
      [
        said('PermanentRedirect', 301, { $response: { headers: { 'x-amz-bucket-region': 'us-west-2' } } }),
        /not in the region eu-west-1/,
        /to us-west-2/,
      ],
      [said('CredentialsProviderError', 0), /no credentials/, /REGISTRY_STORAGE_S3_ACCESSKEY/],
      [Object.assign(new Error('self'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }), /not trusted/, /NODE_EXTRA_CA_CERTS/],
      [Object.assign(new Error('late'), { name: 'TimeoutError' }), /cannot be reached/, /network/],
      [said('Teapot', 418), /cannot be used: Teapot: told \(HTTP 418\)/, /check/],
    ];
    for (const [error, message, fix] of cases)
      for (const thrown of [error, new StorageError('unavailable', 'list', error)]) {
        const refusal = s3Refusal(place, thrown);
        assert.ok(refusal instanceof OperatorError, String(error));
        assert.match(refusal.message, message);
        assert.match(refusal.fix!, fix);
      }
    const bug = new RangeError('a bug');
    assert.equal(s3Refusal(place, bug), bug);
  });
});

test('an object whose length is not told is no empty one', async () => {
  // As something between may answer that passes bodies on in chunks.
  const service = createServer((_request, response) => {
    response.setHeader('ETag', '"1"');
    response.write('content');
    response.end();
  });
  service.listen(0, '127.0.0.1');
  await once(service, 'listening');
  const bucket = new Bucket({
    bucket: 'images',
    region: 'us-east-1',
    endpoint: `http://127.0.0.1:${(service.address() as AddressInfo).port}`,
    pathStyle: true,
    credentials: { accessKeyId: 'alice', secretAccessKey: 'example' },
    root: '',
    secure: false,
    chunkSize: 10 * MIB,
    copy: { chunkSize: 32 * MIB, concurrency: 1, threshold: 32 * MIB },
  });
  try {
    for (const read of [() => bucket.get('a/b'), () => bucket.peek('a/b')])
      await assert.rejects(
        read,
        (error: StorageError) => error.kind === 'unavailable' && /does not say how long it is/.test(error.message),
      );
  } finally {
    bucket.close();
    service.close();
  }
});
