import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, type TestContext, test } from 'node:test';
import type { Validation } from '../../src/store/validation.js';
import {
  descriptorOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

const config = Buffer.from('{}');

async function start(t: TestContext, validation: Partial<Validation>): Promise<RegistryFixture> {
  const registry = await RegistryFixture.start({ validation });
  t.after(() => registry.stop());
  await registry.pushBlob('r', config);
  return registry;
}

/** The section `validation` of the configuration. */
describe('what a pushed manifest must fulfil', () => {
  const withUrls = (...urls: string[]) => {
    const layer = descriptorOf(Buffer.from('x'), 'application/vnd.oci.image.layer.nondistributable.v1.tar');
    return manifestOf(config, [], { layers: [{ ...layer, urls }] });
  };
  const accepts = async (registry: RegistryFixture, data: Buffer, type: string = OCI_MANIFEST) => {
    const { status, code } = await registry.pushManifest('r', 't', data, type);
    if (status === 201) return true;
    assert.deepEqual([status, code], [400, type === OCI_INDEX ? 'MANIFEST_BLOB_UNKNOWN' : 'MANIFEST_INVALID']);
    return false;
  };

  test('any URL, as long as nothing is said of them', async t => {
    const registry = await start(t, {});
    for (const url of ['https://example.com/a', 'http://example.com/a#b', 's3://bucket/key'])
      assert.ok(await accepts(registry, withUrls(url)), url);
  });

  test('URLs that are allowed and not denied', async t => {
    const urls = { allow: [/^https:\/\/([^/]+\.)?example\.com\//u, /^https:\/\/cdn\//u], deny: [/secret/u] };
    const registry = await start(t, { urls });
    assert.ok(await accepts(registry, withUrls()));
    assert.ok(await accepts(registry, withUrls('https://a.example.com/x', 'https://cdn/y')));
    for (const url of [
      'https://example.org/',
      'http://example.com/',
      'https://example.com/secret',
      'https://example.com/x#y',
      'file:///etc/passwd',
      `https://example.com/${'a'.repeat(2048)}`,
      '',
    ]) {
      assert.equal(await accepts(registry, withUrls(url)), false, url);
      assert.equal(await accepts(registry, withUrls('https://cdn/y', url)), false, url);
    }
    const onConfig = manifestOf(config, [], {
      config: { ...descriptorOf(config, 'a/b'), urls: ['https://example.org/'] },
    });
    assert.equal(await accepts(registry, onConfig), false);
  });

  test('all URLs but those that are denied', async t => {
    const registry = await start(t, { urls: { allow: [], deny: [/example/u] } });
    assert.ok(await accepts(registry, withUrls('http://elsewhere/')));
    assert.equal(await accepts(registry, withUrls('http://example.com/')), false);
    assert.equal(await accepts(registry, withUrls('ftp://elsewhere/')), false);
  });

  /** An index of one image that was pushed and one that was not. */
  const sparse = async (registry: RegistryFixture, there: object, absent: object) => {
    const image = manifestOf(config, []);
    await registry.pushManifest('r', 'image', image);
    return indexOf([], {
      manifests: [
        { ...descriptorOf(image, OCI_MANIFEST), ...there },
        { ...descriptorOf(randomBytes(10), OCI_MANIFEST), ...absent },
      ],
    });
  };
  const amd64 = { platform: { os: 'linux', architecture: 'amd64' } };
  const arm64 = { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } };

  test('every image of an index, or none', async t => {
    const strict = await start(t, {});
    assert.equal(await accepts(strict, await sparse(strict, amd64, arm64), OCI_INDEX), false);
    const lax = await start(t, { indexes: 'none' });
    const index = await sparse(lax, amd64, arm64);
    assert.ok(await accepts(lax, index, OCI_INDEX));
    assert.ok((await lax.call('GET', '/v2/r/manifests/t')).body.equals(index));
  });

  test('the images of the listed platforms', async t => {
    const registry = await start(t, { indexes: [{ os: 'linux', architecture: 'amd64' }] });
    assert.ok(await accepts(registry, await sparse(registry, amd64, arm64), OCI_INDEX));
    assert.ok(await accepts(registry, await sparse(registry, amd64, {}), OCI_INDEX));
    assert.ok(await accepts(registry, await sparse(registry, amd64, { platform: 'odd' }), OCI_INDEX));
    assert.equal(await accepts(registry, await sparse(registry, arm64, amd64), OCI_INDEX), false);
  });

  test('the blobs of an image, or none', async t => {
    const layer = randomBytes(10);
    const data = manifestOf(config, [], { layers: [descriptorOf(layer, OCI_LAYER)] });
    const strict = await start(t, { indexes: 'none' });
    const refused = await strict.pushManifest('r', 't', data);
    assert.deepEqual([refused.status, refused.code], [400, 'MANIFEST_BLOB_UNKNOWN']);
    const lax = await start(t, { images: 'none' });
    assert.ok(await accepts(lax, data));
    assert.equal((await lax.call('HEAD', '/v2/r/manifests/t')).status, 200);
  });
});
