import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { testDriver } from './suite.js';

testDriver('filesystem', async () => {
  const root = await mkdtemp(join(tmpdir(), 'registry-secure-'));
  return {
    connect: () => new FilesystemDriver({ root }),
    remove: () => rm(root, { recursive: true }),
  };
});
