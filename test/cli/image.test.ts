import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dockerImage, savedByOldDocker, tarOf } from '../support/archives.js';
import { indexOf, manifestOf, OCI_INDEX } from '../support/content.js';
import { LocalRegistry } from '../support/local-registry.js';

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'registry-image-'));
  const one = dockerImage([randomBytes(1000)]);
  const two = dockerImage([randomBytes(1000)]);
  writeFileSync(join(dir, 'one.tar'), await tarOf(savedByOldDocker([{ tags: ['team/app:v1'], image: one }])));
  writeFileSync(join(dir, 'nameless.tar'), await tarOf(savedByOldDocker([{ tags: null, image: one }])));
  const both = [one, two].map((image, at) => ({ tags: [`team/app:v${at + 1}`], image }));
  writeFileSync(join(dir, 'two.tar'), await tarOf(savedByOldDocker(both)));
});
after(() => rm(dir, { recursive: true }));

const isPart = (name: string) => name.endsWith('.part');

const run = (...args: string[]) =>
  LocalRegistry.run(dir, args, { env: { HOME: dir, DOCKER_HOST: `unix://${join(dir, 'none')}` } });
async function must(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(...args);
  assert.deepEqual([status, stderr], [0, '']);
  return stdout;
}

test('the only image of an archive need not be named; it goes through folder, layout and archive, and is listed', async () => {
  assert.match(await must('copy', './one.tar', './data'), /^team\/app:v1: copied/);
  assert.match(await must('copy', './nameless.tar', './data#mine/app:v2'), /-> mine\/app:v2: copied/);
  assert.match(await must('copy', './two.tar#team/app:v2', 'oci:layout'), /^team\/app:v2: copied/);
  assert.match(await must('copy', './data', './all.tar', '--all'), /^2 new/m);
  assert.match(await must('copy', './layout', './all.tar'), /^1 new/m);
  assert.match(await must('copy', './all.tar', './again', '--match', 'team/*', '--json'), /"new": 2/);
  assert.match(await must('copy', './layout', './new.tar', '--dry-run'), /would be copied/);
  assert.ok(!existsSync(join(dir, 'new.tar')));

  const line = (name: string) => `${name} +sha256:[0-9a-f]{12}  1\\.\\d+ KiB\n`;
  const all = new RegExp(`^${['mine/app:v2', 'team/app:v1', 'team/app:v2'].map(line).join('')}$`);
  assert.match(await must('image', 'list', './all.tar'), all);
  const { images } = JSON.parse(await must('image', 'list', './data#team/app', '--json'));
  assert.deepEqual(
    images.map(({ name }: { name: string }) => name),
    ['team/app:v1'],
  );
  assert.deepEqual(readdirSync(dir).filter(isPart), []);
});

test('a place without images is said to have none, and nothing is printed where a list is expected', async () => {
  mkdirSync(join(dir, 'nothing'));
  for (const place of ['./nothing', './data#no/such']) {
    const { status, stdout, stderr } = await run('image', 'list', place);
    assert.deepEqual([status, stdout, stderr], [0, '', `registry-secure: there are no images in ${place}\n`]);
    assert.deepEqual(JSON.parse(await must('image', 'list', place, '--json')).images, []);
  }
});

test('an index that lists itself is listed, and no more', async () => {
  const entry = { mediaType: OCI_INDEX, digest: `sha256:${'0'.repeat(64)}`, size: 2 };
  const annotations = { 'org.opencontainers.image.ref.name': 'v1' };
  mkdirSync(join(dir, 'round/blobs/sha256'), { recursive: true });
  writeFileSync(join(dir, 'round/oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(dir, 'round/index.json'), JSON.stringify({ manifests: [{ ...entry, annotations }] }));
  writeFileSync(join(dir, 'round/blobs/sha256', '0'.repeat(64)), indexOf([], { manifests: [entry, entry] }));
  assert.match(await must('image', 'list', 'oci:round'), /^round:v1 +sha256:0+ +0 B\n$/);
});

test('a signal in the middle leaves nothing behind', async () => {
  const blob = Buffer.from('{}');
  // Half of each blob, and then nothing more.
  const server = createServer(({ url = '' }, response) => {
    if (url.includes('/blobs/')) response.writeHead(200, { 'Content-Length': blob.length }).write(blob.subarray(0, 1));
    else if (url.includes('/manifests/')) response.end(manifestOf(blob, []));
    else response.end('{}');
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  for (const target of ['oci:cut', './cut/out.tar']) {
    const args = ['copy', `127.0.0.1:${port}/app:v1`, target, '--src-plain-http'];
    const copying = LocalRegistry.watch(dir, args, { env: { HOME: dir, DOCKER_CONFIG: dir } });
    const parts = () =>
      existsSync(join(dir, 'cut')) &&
      readdirSync(join(dir, 'cut'), { recursive: true, encoding: 'utf8' }).filter(isPart);
    await copying.until(() => (parts() || []).length > 0);
    await copying.stop('SIGTERM');
    assert.deepEqual(parts(), [], target);
  }
  server.closeAllConnections();
  server.close();
});

test('the data of a registry move to another folder, and what is said leads to the switch', async () => {
  const dry = await must('storage', 'migrate', './data', './moved', '--dry-run');
  assert.match(dry, /^3 blobs would be copied \(.*\), 2 tags would be written, 0 other objects/);
  assert.ok(!existsSync(join(dir, 'moved')));
  const first = await must('storage', 'migrate', './data', './moved');
  assert.match(first, /^\d blobs copied \(.*shared\), 2 tags written/);
  assert.match(first, /What is pushed from now on is not copied[\s\S]*registry-secure maintenance on/);
  await must('maintenance', 'on', '--root', join(dir, 'data'));
  const last = await must('storage', 'migrate', './data', './moved');
  assert.match(
    last,
    /^0 blobs copied .*\nAll of it is there\. To switch over:\n {2}1\. stop the registry; if it was running until now, this command once more.*\n.*rootdirectory: \/.*moved;/s,
  );
  await must('copy', './two.tar#team/app:v2', './moved', '--dry-run');
  const { complete, passes, tags } = JSON.parse(await must('storage', 'migrate', './data', './moved', '--json'));
  assert.deepEqual([complete, passes, tags], [true, 1, { written: 0, same: 2, removed: 0 }]);
  assert.match(await must('image', 'list', './moved'), /^mine\/app:v2 .*\nteam\/app:v1 /);
  assert.equal(JSON.parse(await must('verify', '--root', join(dir, 'moved'), '--json')).clean, true);

  // What is copied there is no part of a backup.
  await must('copy', './two.tar#team/app:v2', './moved');
  const { status, stderr } = await run('storage', 'migrate', './data', './moved');
  assert.deepEqual([status, /that no backup has put there/.test(stderr)], [1, true], stderr);
  assert.match(await must('image', 'list', './moved'), /\nteam\/app:v2 /);
});

test('what cannot be: said in one line, with the way out and the exit code', async () => {
  symlinkSync('data', join(dir, 'linked'));
  const refusals: Array<[args: string[], status: number, message: RegExp]> = [
    [['copy', './two.tar', './x'], 2, /two\.tar has 2 images: team\/app:v1, team\/app:v2; name one of them, as in/],
    [['copy', './nameless.tar', './x'], 2, /has no name there; name one at the target, as in \.\/x#team\/app:v1/],
    [['copy', './one.tar', './x.tar.gz'], 2, /archives are not compressed here/],
    [['copy', './data', './x'], 2, /names no image; add REPOSITORY:TAG, or copy all of it with --all/],
    [['copy', 'oci:', './x'], 2, /names no folder; write oci:FOLDER/],
    [['copy', 'oci:data#a:b', './x'], 1, /is no image layout: it has no index\.json/],
    [['copy', './one.tar', './one.tar'], 2, /both ends are the same/],
    [['copy', 'docker-daemon:', './x'], 2, /names no image/],
    [
      ['image', 'push', 'team/app', './unmade'],
      1,
      /no Docker Engine answers at .*none \(ENOENT\); start it, or set DOCKER_HOST/,
    ],
    [['image', 'pull', 'Team/App', './data'], 2, /"Team\/App" is no name of a repository/],
    [['image', 'list', './data#a:b'], 2, /names one image; name the place/],
    [['storage', 'migrate', './data', './data'], 2, /both are the same place/],
    [['storage', 'migrate', './linked', './data'], 2, /both are the same place/],
    [['storage', 'migrate', './one.tar', './x'], 2, /is not where the data of a registry are; name a folder/],
    [
      ['storage', 'migrate', './data#a/b', './x'],
      2,
      /names an image, and all is moved; for single images there is copy/,
    ],
    [['storage', 'migrate', './data', './again'], 1, /holds images that no backup has put there/],
  ];
  for (const [args, status, message] of refusals) {
    const refused = await run(...args);
    assert.deepEqual(
      [refused.status, refused.stderr.match(message)?.length],
      [status, 1],
      `${args}: ${refused.stderr}`,
    );
    assert.equal(refused.stderr.trimEnd().split('\n').length, 1, refused.stderr);
  }
  assert.ok(!existsSync(join(dir, 'unmade')), 'nothing is made for images that nobody has');
});
