import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { readTar, TarWriter } from '../../src/tar.js';

type File = { name: string; data: Buffer; modified?: Date };

async function* once(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function write(files: readonly File[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const writer = new TarWriter(async chunk => void chunks.push(Buffer.from(chunk)));
  for (const { name, data, modified = new Date(0) } of files) await writer.add(name, data.length, modified, once(data));
  await writer.end();
  return Buffer.concat(chunks);
}

/** In chunks of the given size. */
async function read(archive: Buffer, chunk = archive.length, visit = (_: string) => true): Promise<File[]> {
  async function* chunks() {
    for (let at = 0; at < archive.length; at += chunk) yield archive.subarray(at, at + chunk);
  }
  const files: File[] = [];
  for await (const { name, size, modified, body } of readTar(chunks())) {
    if (!visit(name)) continue;
    const parts: Buffer[] = [];
    for await (const part of body) parts.push(Buffer.from(part));
    files.push({ name, data: Buffer.concat(parts), modified });
    assert.equal(files.at(-1)!.data.length, size);
  }
  return files;
}

test('what is written is read, whatever the names, sizes and chunks', async () => {
  const name = fc
    .array(fc.stringMatching(/^[a-zA-Z0-9._ä-]{1,90}$/), { minLength: 1, maxLength: 8 })
    .map(parts => parts.join('/'));
  const file = fc.record(
    {
      name: name.filter(name => !name.startsWith('./')),
      data: fc.uint8Array({ maxLength: 3000 }).map(data => Buffer.from(data)),
      modified: fc.integer({ min: 0, max: 2 ** 32 }).map(seconds => new Date(seconds * 1000)),
    },
    { noNullPrototype: true },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(file, { maxLength: 6 }), fc.integer({ min: 1, max: 2000 }), async (files, chunk) => {
      assert.deepEqual(await read(await write(files), chunk), files);
    }),
    { numRuns: 100 },
  );
});

test('an entry whose body was not read is passed over', async () => {
  const files = ['a', 'b', 'c'].map(name => ({ name, data: randomBytes(1500), modified: new Date(0) }));
  assert.deepEqual(await read(await write(files), 700, name => name !== 'b'), [files[0], files[2]]);
});

test('sizes beyond eight gigabytes', async () => {
  const size = 3 * 2 ** 40 + 5;
  const chunks: Buffer[] = [];
  const writer = new TarWriter(async chunk => {
    if (chunks.length > 0) throw new Error('enough');
    chunks.push(Buffer.from(chunk));
  });
  await assert.rejects(writer.add('large', size, new Date(0), once(Buffer.alloc(1))), /enough/);
  async function* header() {
    yield chunks[0]!;
  }
  for await (const entry of readTar(header())) {
    assert.equal(entry.size, size);
    break;
  }
});

test('a body that fails or is too short leaves an archive that is whole', async () => {
  const chunks: Buffer[] = [];
  const writer = new TarWriter(async chunk => void chunks.push(Buffer.from(chunk)));
  async function* failing() {
    yield Buffer.from('abc');
    throw new Error('the disk');
  }
  await assert.rejects(writer.add('failed', 1000, new Date(0), failing()), /the disk/);
  await assert.rejects(writer.add('short', 5, new Date(0), once(Buffer.from('abc'))), RangeError);
  await assert.rejects(writer.add('long', 2, new Date(0), once(Buffer.from('abc'))), RangeError);
  await writer.add('good', 3, new Date(0), once(Buffer.from('xyz')));
  await writer.end();
  const files = await read(Buffer.concat(chunks));
  assert.deepEqual(
    files.map(({ name, data }) => [name, data.length]),
    [
      ['failed', 1000],
      ['short', 5],
      ['long', 2],
      ['good', 3],
    ],
  );
  assert.equal(files[3]!.data.toString(), 'xyz');
});

test('what is damaged or no archive is refused', async () => {
  const archive = await write([{ name: 'a', data: randomBytes(2000) }]);
  for (const [bad, message] of [
    [archive.subarray(0, 100), /ends early/],
    [archive.subarray(0, 1500), /ends early/],
    [archive.subarray(0, 2560), /ends early/],
    [Buffer.alloc(0), /ends early/],
    [randomBytes(5000), /a header is wrong/],
    [Buffer.concat([archive.subarray(0, 10), Buffer.from('X'), archive.subarray(11)]), /a header is wrong/],
  ] as const)
    await assert.rejects(read(bad), { name: 'OperatorError', message });
});

test('headers of GNU tar: a long name, links', async () => {
  const long = `docker/${'x'.repeat(300)}/link`;
  const archive = await write([
    { name: '././@LongLink', data: Buffer.from(`${long}\0`) },
    { name: long.slice(0, 100), data: Buffer.from('content') },
  ]);
  setType(archive, 0, 'L');
  assert.deepEqual(
    (await read(archive)).map(({ name, data }) => [name, data.toString()]),
    [[long, 'content']],
  );
  const linked = await write([{ name: 'a', data: Buffer.alloc(0) }]);
  setType(linked, 0, '1');
  await assert.rejects(read(linked), /holds the link "a" instead of a file/);
});

test('headers that are to take all memory, or all time, are refused', async () => {
  const extended = async (type: string, ...bodies: readonly string[]) => {
    const archive = await write([...bodies, ''].map((body, at) => ({ name: `${at}`, data: Buffer.from(body) })));
    for (let at = 0; at < bodies.length; at++) setType(archive, at * 1024, type);
    return archive;
  };
  const large = await write([{ name: 'a', data: Buffer.alloc(0) }]);
  large.fill(0xff, 125, 136);
  large[124] = 0x80;
  setType(large, 0, '0');
  for (const [bad, message] of [
    [await write([{ name: 'x'.repeat(4097), data: Buffer.alloc(1) }]), /a name is too long/],
    [await extended('L', ...Array(9).fill('x')), /too many extended headers/],
    [await extended('x', '11 size=-1\n'), /a size is wrong/],
    [await extended('x', '12 size=0x1\n'), /a size is wrong/],
    [await extended('x', '26 size=99999999999999999\n'), /a size is wrong/],
    [large, /a size is wrong/],
  ] as const)
    await assert.rejects(read(bad), { name: 'OperatorError', message });
  assert.equal((await read(await extended('L', ...Array(8).fill('x'))))[0]!.name, 'x');
  const [file] = await read(await write([{ name: 'x'.repeat(4096), data: Buffer.alloc(1) }]));
  assert.equal(file!.name.length, 4096);
});

function setType(archive: Buffer, at: number, type: string): void {
  archive.write(type, at + 156, 'latin1');
  archive.fill(' ', at + 148, at + 156);
  const sum = archive.subarray(at, at + 512).reduce((sum, byte) => sum + byte, 0);
  archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
}
