import assert from 'node:assert/strict';
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { layout } from '../../src/store/layout.js';
import { LocalRegistry } from '../support/local-registry.js';
import { type PushedImage, RegistryFixture } from '../support/registry-fixture.js';

let registry: RegistryFixture;
let image: PushedImage;
before(async () => {
  registry = await RegistryFixture.start();
  image = await registry.pushImage('team/app', 'v1');
});
after(() => registry.stop());

const verify = (...args: string[]) => LocalRegistry.run(registry.root, ['verify', '--root', registry.root, ...args]);

test('verify says what is lost, in text and JSON and by its exit code, and what to do', async () => {
  const clean = await verify();
  assert.deepEqual([clean.status, clean.stderr], [0, '']);
  assert.match(clean.stdout, /^3 blobs \(\d+ B\), 1 repositories, 1 manifests and 1 tags in .* s \(.*\/s\)\nclean\n$/);

  const file = join(registry.root, layout.blob(image.layer));
  truncateSync(file, 1);
  const damaged = await verify();
  assert.equal(damaged.status, 1);
  const [corrupt, broken, , verdict, push] = damaged.stdout.split('\n');
  assert.match(
    corrupt!,
    new RegExp(`^corrupt-blob: ${image.layer} is corrupt: its 1 bytes hash to sha256:\\w+ \\(docker/`),
  );
  assert.match(
    broken!,
    new RegExp(`^broken-image: team/app@${image.digest} lacks ${image.layer}; it is needed by v1$`),
  );
  assert.equal(verdict, 'not clean: 2 faults; run registry-secure verify --repair');
  assert.equal(push, 'to be pushed again: team/app:v1');

  const repaired = await verify('--repair', '--json');
  assert.equal(repaired.status, 1, 'there is still something to push');
  const report = JSON.parse(repaired.stdout);
  assert.deepEqual([report.clean, report.losses, report.repaired, report.tags], [false, 2, 1, 1]);
  assert.deepEqual(
    report.findings.map(({ kind, repository, tags, digest }: Record<string, unknown>) => ({
      kind,
      repository,
      tags,
      digest,
    })),
    [
      { kind: 'corrupt-blob', repository: undefined, tags: undefined, digest: image.layer },
      { kind: 'broken-image', repository: 'team/app', tags: ['v1'], digest: image.digest },
    ],
  );
});

test('verify tells of the quotas', async () => {
  const config = join(registry.root, 'config.yml');
  writeFileSync(
    config,
    `{version: "0.1", storage: {filesystem: {rootdirectory: ${registry.root}}}, limits: {quotas: {team: 1GiB}}}`,
  );
  const { stdout } = await LocalRegistry.run(registry.root, ['verify', config]);
  assert.match(stdout, /^quota team: \d+ B of 1\.00 GiB$/m);
  rmSync(config);
});

test('verify of what is not there', async () => {
  const { status, stderr } = await LocalRegistry.run(registry.root, ['verify', '--dir', join(registry.root, 'absent')]);
  assert.equal(status, 1);
  assert.match(stderr, /^registry-secure: there is no data folder \S*absent\/data; check the path, or the mount$/m);
});
