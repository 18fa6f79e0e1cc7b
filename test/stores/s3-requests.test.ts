import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { S3Driver } from '../../src/storage/s3.js';
import { layout } from '../../src/store/layout.js';
import { digestOf, manifestOf, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';
import { Versitygw } from '../support/versitygw.js';

const MIB = 1024 * 1024;

/** What services charge more for than for a GET or HEAD. */
const DEAR = /^(?:Put|Copy|Create|Complete|Upload|List)/;

/** The lines of the table in a document: what is done, and the numbers as they stand there. */
const documented = (name: string) =>
  new Map(
    [...readFileSync(`docs/${name}`, 'utf8').matchAll(/^\| ([^|]+) \| (\d[\d; or]*) \| (\d[\d or]*) \|$/gm)].map(
      ([, what, requests, dear]) => [what!, [requests!, dear!]],
    ),
  );

describe('requests to an object store', { timeout: 240_000 }, () => {
  let service: Versitygw;
  let driver: S3Driver;
  let registry: RegistryFixture;
  before(async () => {
    service = await Versitygw.start();
    driver = new S3Driver(service.options(service.makeBucket(), { calm: 3_600_000 }));
    registry = await RegistryFixture.start({ driver });
    // Whether somebody is removing things is looked for once in a while, and here before all that is counted.
    await driver.write('docker/first', Buffer.alloc(0));
    // The driver gives up what was abandoned below each of its two folders, beside the first requests.
    while ((driver.requests.get('ListMultipartUploads') ?? 0) < 2) await sleep(10);
  });
  after(async () => {
    await registry?.stop();
    await service?.stop();
  });

  const layer = randomBytes(100_000);
  const config = Buffer.from('{"os":"linux","architecture":"amd64"}');
  const manifest = manifestOf(config, [layer]);

  const call = async (status: number, ...parameters: Parameters<RegistryFixture['call']>) => {
    const answer = await registry.call(...parameters);
    assert.equal(answer.status, status, `${parameters[0]} ${parameters[1]}`);
    return answer;
  };

  const counted = async (work: () => Promise<unknown>): Promise<[all: number, dear: number]> => {
    const before = new Map(driver.requests);
    await work();
    const made = [...driver.requests].map(([kind, count]) => [kind, count - (before.get(kind) ?? 0)] as const);
    const sum = (of: typeof made) => of.reduce((total, [, count]) => total + count, 0);
    return [sum(made), sum(made.filter(([kind]) => DEAR.test(kind)))];
  };

  /** As docker does it. */
  const pushBlob = async (data: Buffer): Promise<void> => {
    const blob = `/v2/a/b/blobs/${digestOf(data)}`;
    await call(404, 'HEAD', blob);
    const begun = await call(202, 'POST', '/v2/a/b/blobs/uploads/');
    const sent = await call(202, 'PATCH', begun.headers.location!, { body: data });
    await call(201, 'PUT', `${sent.headers.location}?digest=${digestOf(data)}`);
    await call(200, 'HEAD', blob);
  };

  test('are as many as docs/storage.md says', async () => {
    const [one, other] = [randomBytes(1000), randomBytes(1000)];
    const headers = { 'content-type': OCI_MANIFEST };
    const once = randomBytes(50 * MIB);
    const found = {
      small: await counted(() => pushBlob(config)),
      more: await counted(() => pushBlob(layer)),
      large: await counted(() => pushBlob(randomBytes(50 * MIB))),
      post: await counted(() => call(201, 'POST', `/v2/a/b/blobs/uploads/?digest=${digestOf(one)}`, { body: one })),
      put: await counted(async () => {
        const begun = await call(202, 'POST', '/v2/a/b/blobs/uploads/');
        await call(201, 'PUT', `${begun.headers.location}?digest=${digestOf(other)}`, { body: other });
      }),
      largePost: await counted(() =>
        call(201, 'POST', `/v2/a/b/blobs/uploads/?digest=${digestOf(once)}`, { body: once }),
      ),
      manifest: await counted(() => call(201, 'PUT', '/v2/a/b/manifests/1', { body: manifest, headers })),
      head: await counted(() => call(200, 'HEAD', `/v2/a/b/blobs/${digestOf(layer)}`)),
      mount: await counted(() => call(201, 'POST', `/v2/a/c/blobs/uploads/?mount=${digestOf(layer)}&from=a/b`)),
      byTag: await counted(() => call(200, 'GET', '/v2/a/b/manifests/1')),
      byDigest: await counted(() => call(200, 'GET', `/v2/a/b/manifests/${digestOf(manifest)}`)),
      blob: await counted(() => call(200, 'GET', `/v2/a/b/blobs/${digestOf(layer)}`)),
    };
    const line =
      (...all: Array<[number, number]>) =>
      (between: string) => [
        all.map(([requests]) => requests).join(between),
        [...new Set(all.map(([, dear]) => dear))].join(' or '),
      ];
    assert.deepEqual(
      documented('storage.md'),
      new Map([
        ['push of a small blob: `HEAD`, `POST`, `PATCH`, `PUT`, `HEAD`', line(found.small)('')],
        ['the same, of more than 64 KiB', line(found.more)('')],
        ['the same, 50 MiB in parts of 10 MiB', line(found.large)('')],
        ['push of a small blob in one `POST`', line(found.post)('')],
        ['the same, 50 MiB', line(found.largePost)('')],
        ['push of a small blob by `POST` and one `PUT`, as containerd and BuildKit do', line(found.put)('')],
        ['push of a manifest by tag', line(found.manifest)('')],
        ['`HEAD` of a blob that is there, or a mount of it', line(found.head, found.mount)(' or ')],
        ['pull of a manifest by tag; by digest', line(found.byTag, found.byDigest)('; ')],
        ['pull of a blob', line(found.blob)('')],
      ]),
    );
    assert.equal(driver.passedAgain, 0);
  });

  test('of whole images are as many as docs/scale.md says', async () => {
    const blobs = Array.from({ length: 5 }, () => randomBytes(100_000));
    const settings = Buffer.from(
      JSON.stringify({ os: 'linux', architecture: 'amd64', unique: randomBytes(8).toString('hex') }),
    );
    const data = manifestOf(settings, blobs);
    const all = [...blobs, settings];
    const headers = { 'content-type': OCI_MANIFEST };
    const tag = '/v2/a/scale/manifests/1';
    const at = (blob: Buffer) => `/v2/a/scale/blobs/${digestOf(blob)}`;
    const push = async (way: 'docker' | 'containerd' | 'there') => {
      if (way !== 'there') await call(404, 'HEAD', tag);
      for (const blob of all) {
        await call(way === 'there' ? 200 : 404, 'HEAD', at(blob));
        if (way === 'there') continue;
        const { location } = (await call(202, 'POST', '/v2/a/scale/blobs/uploads/')).headers;
        if (way === 'docker') await call(202, 'PATCH', location!, { body: blob });
        await call(201, 'PUT', `${location}?digest=${digestOf(blob)}`, way === 'docker' ? {} : { body: blob });
        if (way === 'docker') await call(200, 'HEAD', at(blob));
      }
      await call(201, 'PUT', tag, { body: data, headers });
    };
    const forget = async () => {
      await driver.removeAll('docker/registry/v2/repositories/a/scale');
      for (const blob of [...all, data]) await driver.removeAll(layout.blob(digestOf(blob)).replace('/data', ''));
    };
    const byDocker = await counted(() => push('docker'));
    const again = await counted(() => push('there'));
    const pull = await counted(async () => {
      await call(200, 'HEAD', tag);
      await call(200, 'GET', `/v2/a/scale/manifests/${digestOf(data)}`);
      for (const blob of all) await call(200, 'GET', at(blob));
    });
    await forget();
    const byContainerd = await counted(() => push('containerd'));
    assert.deepEqual(
      documented('scale.md'),
      new Map(
        [
          ['push by docker: `HEAD`, `POST`, `PATCH`, `PUT`, `HEAD` for each blob', byDocker] as const,
          ['push by containerd or BuildKit: `HEAD`, `POST`, `PUT` for each blob', byContainerd] as const,
          ['push of what is there already', again] as const,
          ['pull: the manifest by tag and by digest, and all blobs', pull] as const,
        ].map(([what, counts]) => [what, counts.map(String)]),
      ),
    );
  });

  test('move no bytes twice but for what is too small to be joined by the service', async () => {
    const chunks = [12 * MIB, 1000, 12 * MIB].map(size => randomBytes(size));
    const { headers } = await call(202, 'POST', '/v2/a/b/blobs/uploads/');
    const data = Buffer.concat(chunks);
    for (const chunk of chunks) await call(202, 'PATCH', headers.location!, { body: chunk });
    await call(201, 'PUT', `${headers.location}?digest=${digestOf(data)}`);
    assert.ok((await call(200, 'GET', `/v2/a/b/blobs/${digestOf(data)}`)).body.equals(data));
    assert.equal(driver.passedAgain, 5 * MIB, 'the small chunk, and of the next what makes a part of it');
  });
});
