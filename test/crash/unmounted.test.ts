import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { must, requireTools } from '../support/process.js';
import { Random } from '../support/random.js';
import { Refused } from '../support/registry-client.js';
import { Ledger } from './ledger.js';
import { Rig, SEED } from './rig.js';
import { noFindings, verify } from './verify.js';
import { newImage, pushBlob, pushImage, STYLES } from './workload.js';

describe('a volume that is unmounted while it is served', () => {
  let rig: Rig;
  before(() => {
    requireTools('mkfs.ext4', 'truncate');
    rig = new Rig();
  });
  after(() => rig.close());

  test('nothing is written beside it, nothing counts as deleted, and all is well when it is back', async () => {
    const random = new Random(SEED);
    const file = join(rig.dir, 'volume.img');
    await must(['truncate', '-s', '64M', file]);
    await must(['mkfs.ext4', '-q', file]);
    const device = await rig.attach(file);
    const folder = await rig.mount('volume', device);
    const server = await rig.start({ root: folder, env: { REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL: '50ms' } });
    const { client } = server;
    const ledger = new Ledger();
    const app = ledger.repository('app');
    const digest = await pushImage(client, app, 'tag', newImage(random, [5000, 5000]), STYLES);
    const healthIs = (expected: number) =>
      server.process.until(async () => (await client.send('GET', '/healthz')).status === expected);

    // Lazily, for the audit log has a file open there.
    await must(['umount', '--lazy', folder]);
    for (const style of STYLES)
      await assert.rejects(pushBlob(client, ledger.repository('away'), random.bytes(100), style), isUnavailable);
    for (const [method, path] of [
      ['GET', 'manifests/tag'],
      ['HEAD', 'manifests/tag'],
      ['GET', `manifests/${digest}`],
      ['HEAD', `blobs/${[...app.blobs.keys()][0]}`],
      ['GET', 'tags/list'],
      ['GET', `referrers/${digest}`],
      ['DELETE', `manifests/${digest}`],
    ] as const)
      await client.must(503, method, `/v2/app/${path}`);
    await client.must(503, 'GET', '/v2/_catalog');
    await healthIs(503);
    await server.process.until(() =>
      /the volume of the data folder .* is not mounted any more: mount it again/.test(server.process.stderr),
    );
    assert.deepEqual(readdirSync(folder), []);

    await must(['mount', device, folder]);
    await healthIs(200);
    await verify(client, [app], noFindings());
    await pushImage(client, app, 'other', newImage(random, [5000]), STYLES);
    await verify(client, ledger.repositories.values(), noFindings());
  });
});

function isUnavailable(error: unknown): boolean {
  return error instanceof Refused && error.answer.status === 503;
}
