import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { ByteStream, SegmentWriter, StorageDriver } from '../../src/storage/driver.js';
import type { Place } from './places.js';
import { raceRemovals, removing, stale } from './races.js';

const MIB = 1024 * 1024;

/** Registers the tests that every storage driver must pass. */
export function testDriver(name: string, makePlace: () => Promise<Place>): void {
  describe(`storage driver ${name}`, () => {
    let place: Place;
    let driver: StorageDriver;
    let other: StorageDriver;
    let count = 0;
    /** A folder that no other test uses. */
    const folder = () => `docker/registry/v2/test-${++count}`;
    const times = (usual: number) => Math.ceil(usual * (place.share ?? 1));

    before(async () => {
      place = await makePlace();
      driver = place.connect();
      await driver.open();
      other = place.connect();
      await other.open();
    });
    after(async () => {
      await driver.close();
      await other.close();
      await place.remove();
    });

    const put = (key: string, text: string) => driver.write(key, Buffer.from(text));
    const text = async (key: string, from = driver) => (await from.get(key))?.toString();
    const bytes = async (key: string, range?: { start: number; end: number }) => {
      const stream = await driver.read(key, range);
      return stream && collect(stream);
    };
    const segment = async (key: string, ...chunks: Uint8Array[]) => {
      const writer = await driver.createSegment(key);
      await writeAll(writer, chunks);
      return writer.close();
    };

    test('every method answers for what is absent', async () => {
      const absent = `${folder()}/no/such/object`;
      assert.equal(await driver.stat(absent), undefined);
      assert.equal(await driver.get(absent), undefined);
      assert.equal(await driver.read(absent), undefined);
      assert.equal(await driver.read(absent, { start: 0, end: 1 }), undefined);
      assert.equal(await driver.remove(absent), false);
      assert.equal(await driver.touch(absent), false);
      assert.equal(await driver.removeStale(absent, new Date()), false);
      await driver.removeEmptyFolders(absent);
      assert.deepEqual(await driver.list(absent), []);
      await driver.removeAll(absent);
    });

    test('a folder of objects is not an object', async () => {
      const at = folder();
      await put(`${at}/repository/link`, 'x');
      assert.equal(await driver.stat(`${at}/repository`), undefined);
      assert.equal(await driver.get(`${at}/repository`), undefined);
      assert.equal(await driver.read(`${at}/repository`), undefined);
      assert.equal(await driver.remove(`${at}/repository`), false);
      assert.equal(await text(`${at}/repository/link`), 'x');
    });

    test('an object is not a folder', async () => {
      const at = folder();
      await put(`${at}/link`, 'x');
      assert.equal(await driver.stat(`${at}/link/below`), undefined);
      assert.equal(await driver.get(`${at}/link/below`), undefined);
      assert.equal(await driver.read(`${at}/link/below`), undefined);
      assert.equal(await driver.remove(`${at}/link/below`), false);
      assert.deepEqual(await driver.list(`${at}/link`), []);
      await driver.removeAll(`${at}/link`);
      assert.equal(await text(`${at}/link`), 'x');
    });

    test('a written object is read back by another process', async () => {
      const key = `${folder()}/link`;
      const started = Date.now();
      await put(key, 'sha256:0123');
      assert.equal(await text(key, other), 'sha256:0123');
      const info = await other.stat(key);
      assert.equal(info?.size, 11);
      assert.ok(Math.abs(info.modified.getTime() - started) < 60_000, `${info.modified.toISOString()} is about now`);
      const stream = (await other.read(key))!;
      await stream.return();
      assert.deepEqual(stream.info, info, 'whoever reads it knows the same of it');
    });

    test('a written object may be empty', async () => {
      const key = `${folder()}/link`;
      await put(key, '');
      assert.deepEqual(await driver.get(key), Buffer.alloc(0));
      assert.deepEqual(await bytes(key), Buffer.alloc(0));
      assert.equal((await driver.stat(key))?.size, 0);
    });

    test('a later write replaces an earlier one, whatever their sizes', async () => {
      const key = `${folder()}/link`;
      for (const value of ['short', 'much longer than that', '', 'short']) {
        await put(key, value);
        assert.equal(await text(key), value);
      }
    });

    test('get refuses an object over its limit', async () => {
      const key = `${folder()}/link`;
      await put(key, '0123456789');
      assert.equal((await driver.get(key, 10))?.toString(), '0123456789');
      await assert.rejects(driver.get(key, 9), { name: 'StorageError', kind: 'unavailable' });
    });

    test('readers see the old object or the new one, never a part', async () => {
      const key = `${folder()}/link`;
      const version = (n: number) => Buffer.alloc(n % 2 === 0 ? 100_000 : 10, n % 10);
      await driver.write(key, version(0));
      let writing = true;
      let seen = 0;
      const read = async (from: StorageDriver) => {
        while (writing) {
          const stream = await from.read(key);
          const [whole, streamed] = await Promise.all([from.get(key), collect(stream!)]);
          for (const data of [whole!, streamed]) {
            assert.ok(data.length === 10 || data.length === 100_000, `${data.length} bytes`);
            assert.ok(data.equals(Buffer.alloc(data.length, data[0])), 'bytes of one version only');
            seen += 1;
          }
        }
      };
      const readers = [read(driver), read(other), read(other)];
      for (let n = 1; n <= 40; n++) await (n % 3 ? driver : other).write(key, version(n));
      writing = false;
      await Promise.all(readers);
      assert.ok(seen > 10, `${seen} reads`);
    });

    test('of a hundred creators exactly one wins, and its content stays', async () => {
      const key = `${folder()}/steps/00000001`;
      const won = await Promise.all(
        Array.from({ length: 100 }, async (_, n) => {
          const created = await (n % 2 ? driver : other).create(key, Buffer.from(`creator ${n}`), {
            durable: n % 3 > 0,
          });
          // Whoever is told that it is there finds it whole.
          assert.match((await text(key))!, /^creator \d+$/);
          return created ? n : -1;
        }),
      );
      const winners = won.filter(n => n >= 0);
      assert.equal(winners.length, 1);
      assert.equal(await text(key), `creator ${winners[0]}`);
      assert.equal(await driver.create(key, Buffer.from('late')), false);
      assert.equal(await text(key), `creator ${winners[0]}`);
    });

    test('create makes again what was removed', async () => {
      const key = `${folder()}/lease`;
      assert.equal(await driver.create(key, Buffer.from('one')), true);
      assert.equal(await other.remove(key), true);
      assert.equal(await driver.create(key, Buffer.from('two')), true);
      assert.equal(await text(key, other), 'two');
    });

    test('what one creates and removes, one at a time can hold', async () => {
      const key = `${folder()}/lease`;
      const enough = times(100);
      let holders = 0;
      let held = 0;
      const work = async (holder: StorageDriver) => {
        while (held < enough) {
          if (!(await holder.create(key, Buffer.from('mine'), { durable: false }))) continue;
          holders += 1;
          held += 1;
          assert.equal(holders, 1);
          await holder.stat(key);
          holders -= 1;
          assert.equal(await holder.remove(key), true);
        }
      };
      const works = [driver, other, driver, other].map(holder =>
        work(holder).finally(() => {
          // Also where it failed: the others wait for what is no longer removed.
          held = enough;
        }),
      );
      await Promise.all(works);
    });

    test('of two removers one has removed it', async () => {
      const key = `${folder()}/link`;
      await put(key, 'x');
      const removed = await Promise.all([driver.remove(key), other.remove(key)]);
      // Not every store says whether there was something; none may say twice no.
      assert.ok(removed.includes(true));
      assert.equal(await driver.stat(key), undefined);
      assert.equal(await driver.remove(key), false);
    });

    test('removeAll takes a folder at any depth, and nothing beside it', async () => {
      const at = folder();
      for (const key of [
        'a/link',
        'a/_layers/sha256/1/link',
        'a/_layers/sha256/2/link',
        'a/b/c/link',
        'ab/link',
        'a.b',
      ])
        await put(`${at}/${key}`, key);
      await driver.removeAll(`${at}/a`);
      assert.deepEqual(await other.list(`${at}/a`), []);
      assert.equal(await other.stat(`${at}/a/b/c/link`), undefined);
      assert.equal(await text(`${at}/ab/link`), 'ab/link');
      assert.equal(await text(`${at}/a.b`), 'a.b');
    });

    test('objects can be made while their folder is removed', async () => {
      const at = `${folder()}/repository`;
      let removing = true;
      const remover = async () => {
        while (removing) await other.removeAll(at);
      };
      const removed = remover();
      for (let n = 0; n < 20; n++) {
        await driver.write(`${at}/tags/latest/current/link`, Buffer.from(`${n}`));
        await driver.create(`${at}/layers/${n}/link`, Buffer.from(`${n}`));
      }
      removing = false;
      await removed;
      await put(`${at}/tags/latest/current/link`, 'last');
      assert.equal(await text(`${at}/tags/latest/current/link`, other), 'last');
    });

    test('list names the children of a folder in byte order', async () => {
      const at = folder();
      const names = ['Z', '_layers', 'a', 'a-b', 'a.b', 'a0', 'aa', 'b', '10', '9', 'a_b'];
      for (const name of names) await put(name === 'aa' ? `${at}/aa/inner/link` : `${at}/${name}`, name);
      const sorted = names.toSorted((one, two) => Buffer.compare(Buffer.from(one), Buffer.from(two)));
      assert.deepEqual(
        await other.list(at),
        sorted.map(name => ({ name, folder: name === 'aa' })),
      );
      const listed = async (options: { after?: string; limit?: number }) =>
        (await other.list(at, options)).map(entry => entry.name);
      assert.deepEqual(await listed({ limit: 3 }), sorted.slice(0, 3));
      assert.deepEqual(await listed({ after: 'a.b' }), sorted.slice(sorted.indexOf('a.b') + 1));
      assert.deepEqual(await listed({ after: 'a.', limit: 2 }), ['a.b', 'a0'], 'after a name that is not there');
      assert.deepEqual(await listed({ after: 'b' }), []);
      const paged: string[] = [];
      for (;;) {
        const page = await listed({ limit: 2, ...(paged.length > 0 && { after: paged.at(-1)! }) });
        if (page.length === 0) break;
        paged.push(...page);
      }
      assert.deepEqual(paged, sorted);
    });

    test('list shows more children than one answer holds', async () => {
      const at = folder();
      const names = Array.from({ length: times(1100) }, (_, n) => `tag-${String(n).padStart(5, '0')}`);
      for (let n = 0; n < names.length; n += 100)
        await Promise.all(
          names
            .slice(n, n + 100)
            .map(name => driver.create(`${at}/${name}/link`, Buffer.from('x'), { durable: false })),
        );
      assert.deepEqual(
        (await driver.list(at)).map(entry => entry.name),
        names,
      );
      assert.deepEqual(
        (await driver.list(at, { after: names.at(-50)! })).map(entry => entry.name),
        names.slice(-49),
      );
    });

    test('touch renews the time of change and nothing else', async () => {
      const key = `${folder()}/lease`;
      await put(key, 'lease');
      const before = (await driver.stat(key))!.modified;
      // Clocks of some stores count whole seconds.
      for (let now = before; now <= before; now = (await driver.stat(key))!.modified)
        assert.equal(await other.touch(key), true);
      assert.equal(await text(key), 'lease');
      const renewed = await driver.stat(key);
      assert.deepEqual(await driver.stat(key, { enough: renewed!.modified }), renewed, 'it is older, but for that');
      assert.equal((await driver.stat(key, { enough: before }))?.version, renewed!.version);
      assert.equal(await driver.stat(`${key}-absent`, { enough: before }), undefined);
    });

    test('an object that nobody has renewed since is removed', async () => {
      const at = folder();
      await put(`${at}/sha256/1/link`, 'one');
      await put(`${at}/sha256/2/link`, 'two');
      const { modified } = (await driver.stat(`${at}/sha256/1/link`))!;
      assert.equal(await driver.removeStale(`${at}/sha256/1/link`, modified), false, 'changed at that very time');
      assert.equal(await text(`${at}/sha256/1/link`), 'one');
      const before = await stale(driver, `${at}/sha256/1/link`);
      assert.equal(await other.removeStale(`${at}/sha256/1/link`, before), true);
      assert.equal(await driver.stat(`${at}/sha256/1/link`), undefined);
      assert.equal(await driver.removeStale(`${at}/sha256/1/link`, before), false);
      assert.deepEqual(
        await driver.list(`${at}/sha256`),
        [{ name: '2', folder: true }],
        'with its folder, not the rest',
      );
      await put(`${at}/sha256/1/link`, 'again');
      assert.equal(await text(`${at}/sha256/1/link`, other), 'again');
    });

    test('a folder is not removed as an object', async () => {
      const at = folder();
      await put(`${at}/repository/link`, 'x');
      assert.equal(await driver.removeStale(`${at}/repository`, new Date(Date.now() + 10_000)), false);
      assert.equal(await text(`${at}/repository/link`), 'x');
    });

    test('of removers at once one has removed a stale object', async () => {
      const race = async () => {
        const key = `${folder()}/link`;
        await put(key, 'x');
        const before = await stale(driver, key);
        const removed = await Promise.all(
          [driver, other, driver, other].map(remover => remover.removeStale(key, before)),
        );
        assert.ok(removed.includes(true));
        assert.equal(await driver.stat(key), undefined);
      };
      for (let n = 0; n < 4; n++) await Promise.all([race(), race(), race(), race(), race()]);
    });

    test('what is touched or replaced is never absent, whoever removes it as stale', async () => {
      const drivers = [driver, other];
      // Where times are whole seconds, each round takes one.
      const rounds = times(place.wholeSeconds ? 24 : 60);
      await raceRemovals({ at: folder(), drivers, rounds, remove: removing([driver, other, other]) });
    });

    test('empty folders go, others stay', async () => {
      const at = folder();
      await put(`${at}/a/b/c/link`, 'x');
      await put(`${at}/a/kept/link`, 'x');
      await driver.remove(`${at}/a/b/c/link`);
      await driver.removeEmptyFolders(`${at}/a/b`);
      assert.deepEqual(await driver.list(`${at}/a`), [{ name: 'kept', folder: true }]);
      await driver.remove(`${at}/a/kept/link`);
      await driver.removeEmptyFolders(`${at}/a`);
      assert.deepEqual(await driver.list(at), []);
    });

    test('a range is read with both ends included', async () => {
      const key = `${folder()}/data`;
      const content = randomBytes(3 * MIB + 17);
      await segment(`${key}-segment`, content);
      await driver.assemble([`${key}-segment`], key);
      for (const [start, end] of [
        [0, 0],
        [0, content.length - 1],
        [1, MIB],
        [MIB - 1, 2 * MIB],
        [content.length - 1, content.length - 1],
      ] as const) {
        const part = await bytes(key, { start, end });
        assert.ok(part?.equals(content.subarray(start, end + 1)), `bytes ${start}-${end}`);
      }
    });

    test('reads that are given up leave the object readable', async () => {
      const key = `${folder()}/data`;
      const content = randomBytes(2 * MIB);
      await driver.write(key, content);
      for (let n = 0; n < 50; n++) {
        const stream = (await driver.read(key))!;
        if (n % 2) await stream.next();
        await stream.return();
      }
      assert.ok((await bytes(key))?.equals(content));
    });

    test('a reader keeps what it opened while the object is replaced or removed', async () => {
      const key = `${folder()}/data`;
      const content = randomBytes(3 * MIB);
      await driver.write(key, content);
      const before = (await driver.read(key))!;
      await other.write(key, Buffer.from('new'));
      assert.ok((await collect(before)).equals(content));
    });

    test('a segment of odd chunks becomes an object', async () => {
      const at = folder();
      const chunks = [0, 1, 7, 65_536, 3, 1_500_000, 0, 4095, 2_000_001].map(size => randomBytes(size));
      const content = Buffer.concat(chunks);
      assert.equal(await segment(`${at}/segments/1`, ...chunks), content.length);
      await other.assemble([`${at}/segments/1`], `${at}/blob/data`);
      assert.ok((await bytes(`${at}/blob/data`))?.equals(content));
      // A crash may come before anything refers to the object: then it is made again.
      await driver.assemble([`${at}/segments/1`], `${at}/blob/data`);
      await driver.removeAll(`${at}/segments`);
      assert.ok((await bytes(`${at}/blob/data`))?.equals(content));
    });

    test('thousands of one-byte chunks', async () => {
      const at = folder();
      const content = randomBytes(5000);
      await segment(`${at}/1`, ...Array.from(content, byte => Uint8Array.of(byte)));
      await driver.assemble([`${at}/1`], `${at}/data`);
      assert.ok((await bytes(`${at}/data`))?.equals(content));
    });

    test('several segments are joined in their order', async () => {
      const at = folder();
      const parts = [randomBytes(1_200_000), randomBytes(1), Buffer.alloc(0), randomBytes(700_000)];
      for (const [n, part] of parts.entries()) await segment(`${at}/segments/${n}`, part);
      await driver.assemble(
        parts.map((_, n) => `${at}/segments/${n}`),
        `${at}/data`,
      );
      assert.ok((await bytes(`${at}/data`))?.equals(Buffer.concat(parts)));
      assert.equal((await driver.list(`${at}/segments`)).length, parts.length, 'the segments stay');
    });

    test('no segment makes an empty object', async () => {
      const key = `${folder()}/data`;
      await driver.assemble([], key);
      assert.equal((await driver.stat(key))?.size, 0);
    });

    test('assemble replaces what was there', async () => {
      const at = folder();
      await put(`${at}/data`, 'a corrupt blob');
      await segment(`${at}/1`, Buffer.from('a good'));
      await driver.assemble([`${at}/1`], `${at}/data`);
      assert.equal(await text(`${at}/data`), 'a good');
      await segment(`${at}/2`, Buffer.from('two'));
      await segment(`${at}/3`, Buffer.from(' parts'));
      await driver.assemble([`${at}/2`, `${at}/3`], `${at}/data`);
      assert.equal(await text(`${at}/data`), 'two parts');
    });

    test('assemble of a segment that is gone makes nothing', async () => {
      const at = folder();
      await segment(`${at}/1`, Buffer.from('x'));
      for (const segments of [[`${at}/gone`], [`${at}/1`, `${at}/gone`]])
        await assert.rejects(driver.assemble(segments, `${at}/data`), { name: 'StorageError', kind: 'unavailable' });
      assert.equal(await driver.stat(`${at}/data`), undefined);
      assert.equal(await text(`${at}/1`), 'x', 'the upload can go on');
    });

    test('an aborted segment leaves nothing', async () => {
      const at = folder();
      for (const size of [0, 10, 3 * MIB]) {
        const writer = await driver.createSegment(`${at}/open`);
        await writeAll(writer, [Buffer.alloc(size)]);
        await writer.abort();
        await writer.abort();
        assert.equal(await driver.stat(`${at}/open`), undefined);
      }
      const closed = await driver.createSegment(`${at}/closed`);
      await writeAll(closed, [Buffer.from('x')]);
      await closed.close();
      await closed.abort();
      assert.equal(await driver.stat(`${at}/closed`), undefined);
      assert.deepEqual(await driver.list(at), []);
    });

    test('an object that is written under its own name is there when it is closed, and not before', async t => {
      if (!driver.createObject) return t.skip('this driver has only segments');
      const at = folder();
      await put(`${at}/there`, 'before');
      for (const [name, size] of [
        ['new', 0],
        ['new', 10],
        ['there', 10],
        ['there', 12 * MIB],
      ] as const) {
        const key = `${at}/${name}`;
        const before = await text(key);
        const content = randomBytes(size);
        for (const closes of [false, true]) {
          const writer = await driver.createObject(key);
          await writeAll(writer, [content]);
          assert.equal(await text(key, other), before, `${size} bytes`);
          if (closes) assert.equal(await writer.close(), size);
          await writer.abort();
          await writer.abort();
          assert.ok(closes || (await text(key, other)) === before);
        }
        assert.ok((await collect((await other.read(key))!)).equals(content));
        assert.ok(Math.abs((await other.stat(key))!.modified.getTime() - Date.now()) < 60_000);
        await driver.remove(key);
        await put(`${at}/there`, 'before');
      }
      assert.deepEqual(await driver.list(at), [{ name: 'there', folder: false }]);
    });

    test('abort after assemble does no harm', async () => {
      const at = folder();
      const writer = await driver.createSegment(`${at}/1`);
      await writeAll(writer, [Buffer.from('x')]);
      await writer.close();
      await driver.assemble([`${at}/1`], `${at}/data`);
      await writer.abort();
      assert.equal(await text(`${at}/data`), 'x');
    });

    test('many segments at once', async () => {
      const at = folder();
      const contents = Array.from({ length: 24 }, (_, n) => Buffer.alloc(300_000 + n, n));
      const writers = await Promise.all(contents.map((_, n) => driver.createSegment(`${at}/segments/${n}`)));
      await Promise.all(
        writers.map(async (writer, n) => {
          for (let from = 0; from < contents[n]!.length; from += 50_000)
            await writer.write(contents[n]!.subarray(from, from + 50_000));
          assert.equal(await writer.close(), contents[n]!.length);
          await driver.assemble([`${at}/segments/${n}`], `${at}/blobs/${n}/data`);
        }),
      );
      for (const [n, content] of contents.entries())
        assert.ok((await bytes(`${at}/blobs/${n}/data`))?.equals(content), `blob ${n}`);
    });

    test('64 MiB pass in constant memory', async () => {
      setFlagsFromString('--expose-gc');
      const gc = runInNewContext('gc') as () => void;
      gc();
      const start = process.memoryUsage().arrayBuffers;
      let peak = 0;
      const look = () => {
        gc();
        peak = Math.max(peak, process.memoryUsage().arrayBuffers - start);
      };
      const at = folder();
      const sent = createHash('sha256');
      const writer = await driver.createSegment(`${at}/1`);
      for (let n = 0; n < 1024; n++) {
        const chunk = Buffer.alloc(65_536, n);
        sent.update(chunk);
        await writer.write(chunk);
        if (n % 64 === 0) look();
      }
      assert.equal(await writer.close(), 64 * MIB);
      await driver.assemble([`${at}/1`], `${at}/data`);
      const received = createHash('sha256');
      let sinceLook = 0;
      for await (const chunk of (await driver.read(`${at}/data`))!) {
        received.update(chunk);
        sinceLook += chunk.length;
        if (sinceLook < 4 * MIB) continue;
        sinceLook = 0;
        look();
      }
      assert.equal(received.digest('hex'), sent.digest('hex'));
      assert.ok(peak < 32 * MIB, `${Math.round(peak / MIB)} MiB of buffers`);
      await driver.removeAll(at);
    });

    test('keys that leave the place are refused', async () => {
      const wrong = [
        '',
        '/',
        '/etc/passwd',
        '..',
        'a/../../b',
        '../a',
        'a/..',
        'a//b',
        'a/',
        './a',
        'a/.',
        'a\0b',
        'a\\b',
      ];
      for (const key of wrong) {
        const named = (error: unknown) => error instanceof TypeError && error.message.includes(JSON.stringify(key));
        await assert.rejects(driver.stat(key), named);
        await assert.rejects(driver.get(key), named);
        await assert.rejects(driver.read(key), named);
        await assert.rejects(driver.write(key, Buffer.from('x')), named);
        await assert.rejects(driver.create(key, Buffer.from('x')), named);
        await assert.rejects(driver.remove(key), named);
        await assert.rejects(driver.removeAll(key), named);
        await assert.rejects(driver.list(key), named);
        await assert.rejects(driver.createSegment(key), named);
        await assert.rejects(driver.assemble([key], 'x'), named);
        await assert.rejects(driver.assemble([], key), named);
        await assert.rejects(driver.touch(key), named);
        await assert.rejects(driver.removeStale(key, new Date()), named);
        await assert.rejects(driver.removeEmptyFolders(key), named);
      }
    });
  });
}

/** As the contract asks: the next chunk after the promise of the one before. */
async function writeAll(writer: SegmentWriter, chunks: readonly Uint8Array[]): Promise<void> {
  for (const chunk of chunks) {
    const pressure = writer.write(chunk);
    if (pressure) await pressure;
  }
}

/** All bytes of a stream, whose chunks are lent only. */
export async function collect(stream: ByteStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
