import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { makeFolder } from '../../src/folder.js';

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'folder-'));
});
after(() => rm(dir, { recursive: true }));

test('a folder is made with those above it, and made again without harm', async () => {
  const folder = join(dir, 'a/b/c');
  await makeFolder(folder);
  await makeFolder(folder);
  assert.ok((await stat(folder)).isDirectory());
});

test('a folder that cannot be made is named', { timeout: 60_000 }, async () => {
  await writeFile(join(dir, 'file'), '');
  // Where nothing can be made, mkdir(2) of Linux answers that there is no such folder above.
  for (const folder of [
    join(dir, 'file'),
    join(dir, 'file/below'),
    ...(process.platform === 'linux' ? ['/proc/a/b'] : []),
  ])
    await assert.rejects(
      makeFolder(folder),
      error => error instanceof OperatorError && error.message.includes(folder) && error.fix !== undefined,
      folder,
    );
});
