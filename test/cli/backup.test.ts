import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { constants, existsSync, readdirSync, statSync, truncateSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { layout } from '../../src/store/layout.js';
import { LocalRegistry } from '../support/local-registry.js';
import { manifestOf, type PushedImage, RegistryFixture } from '../support/registry-fixture.js';

const EXECUTABLE = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));

let registry: RegistryFixture;
let image: PushedImage;
let scratch: string;
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'registry-backup-'));
  registry = await RegistryFixture.start();
  image = await registry.pushImage('team/app', 'v1');
});
after(async () => {
  await registry.stop();
  await rm(scratch, { recursive: true, force: true });
});

const at = (name: string) => join(scratch, name);
const run = (...args: string[]) => LocalRegistry.run(scratch, args);
const backup = (to: string, ...args: string[]) => run('backup', to, '--root', registry.root, ...args);

test('backup and restore say what they have done, and what was kept', async () => {
  const made = await backup(at('folder'));
  assert.deepEqual([made.status, made.stderr], [0, '']);
  assert.match(
    made.stdout,
    /^\S+folder: 1 tags \(1 new, 0 removed\), 3 blobs added \(\d+ B, shared with the data folder\), 0 kept, 0 removed in \d+\.\d s\n$/,
  );
  assert.equal(statSync(at('folder')).mode & 0o777, 0o700);
  const again = JSON.parse((await backup(at('folder'), '--json')).stdout);
  assert.deepEqual([again.tags, again.blobs.kept, again.problems], [{ written: 0, same: 1, removed: 0 }, 3, []]);

  const { digest } = await registry.pushImage('team/app', 'v1');
  const restored = await run('restore', at('folder'), '--root', registry.root);
  assert.deepEqual([restored.status, restored.stderr], [0, '']);
  assert.equal(
    restored.stdout,
    `kept team/app:v1 on ${digest}; in the backup it is on ${image.digest}\n0 tags restored, 0 are the same, 1 kept (--force moves them); 0 blobs added (0 B), 3 were there\n`,
  );
  const dry = await run('restore', at('folder'), '--root', registry.root, '--force', '--dry-run', '--json');
  assert.deepEqual(JSON.parse(dry.stdout).tags, { written: 1, same: 0, removed: 0 });
});

test('an archive appears whole, readable to nobody else, and goes through pipes', async () => {
  const made = await backup(at('archive.tar'));
  assert.match(made.stdout, /archive\.tar: 1 tags, 3 blobs \(\d+ B\) in/);
  assert.equal(statSync(at('archive.tar')).mode & 0o777, 0o600);
  assert.deepEqual(
    readdirSync(scratch).filter(name => name.includes('.part')),
    [],
  );
  assert.equal((await run('restore', at('archive.tar'), '--root', at('unpacked'))).status, 0);
  assert.ok(existsSync(join(at('unpacked'), layout.tagLink('team/app', 'v1'))));

  const script = `"$0" "$1" backup - --root "${registry.root}" | "$0" "$1" restore - --root "${at('piped')}"`;
  const args = ['-c', script, process.execPath, EXECUTABLE];
  const piped = await LocalRegistry.run(scratch, args, { command: ['/bin/sh'] });
  assert.equal(piped.status, 0, piped.stderr);
  assert.ok(existsSync(join(at('piped'), layout.tagLink('team/app', 'v1'))));
});

test('an archive that is interrupted leaves nothing', async () => {
  const [config, layer] = [Buffer.from('{}'), randomBytes(1 << 20)];
  for (const blob of [config, layer]) await registry.pushBlob('team/app', blob);
  await registry.pushManifest('team/app', 'large', manifestOf(config, [layer]));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // A pipe that nobody empties holds the backup where it is.
    const part = at('interrupted.tar.part');
    execFileSync('mkfifo', [part]);
    const pipe = await open(part, constants.O_RDWR);
    const child = spawn(process.execPath, [EXECUTABLE, 'backup', at('interrupted.tar'), '--root', registry.root]);
    const ended = once(child, 'exit');
    await pipe.read(Buffer.alloc(512));
    child.kill(signal);
    assert.deepEqual(await ended, [null, signal]);
    await pipe.close();
    assert.ok(!existsSync(part) && !existsSync(at('interrupted.tar')));
  }
});

test('what is corrupt is left out, and the exit code says so', async () => {
  const broken = await registry.pushImage('team/app', 'broken');
  truncateSync(join(registry.root, layout.blob(broken.layer)), 5);
  const { status, stderr } = await backup(at('partial.tar'));
  assert.equal(status, 1);
  assert.equal(
    stderr,
    `registry-secure: left out: team/app:broken is broken: ${broken.layer} is corrupt\nregistry-secure: 1 images were left out; see what is lost by: registry-secure verify\n`,
  );
});

test('what would go wrong is refused', async () => {
  await backup(at('served'));
  const served = await LocalRegistry.start(scratch, ['up', '--root', at('served')]);
  await served.stop();
  for (const [command, place, message] of [
    ['backup', registry.root, /is the data folder itself; name another folder/],
    ['restore', registry.root, /is the data folder itself; name the folder of a backup/],
    [
      'backup',
      at('served'),
      /holds images that no backup has put there, or that have been served since; name an empty folder/,
    ],
    ['backup', at('a.tar.gz'), /archives are not compressed here: .*; name a file that ends in \.tar, or pipe: /],
    ['backup', at('absent/a.tar'), /absent\/a\.tar cannot be written \(ENOENT\); check the folder/],
    ['restore', scratch, /there are no images in \S+; name the folder that has docker\/registry\/v2 in it/],
    ['restore', at('absent.tar'), /there is no backup \S*absent\.tar; name a folder or a \.tar file/],
  ] as const) {
    const { status, stderr } = await run(command, place, '--root', registry.root);
    assert.equal(status, 1);
    assert.match(stderr, message);
    assert.doesNotMatch(stderr, /\n.*\n/);
  }
});
