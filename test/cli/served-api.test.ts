import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { descriptorOf, digestOf, indexOf, manifestOf, OCI_LAYER, OCI_MANIFEST } from '../support/registry-fixture.js';

const config = Buffer.from('{}');

/** What of the API depends on the configuration, through the program as it is started. */
describe('the API that is served', () => {
  async function start(t: TestContext, args: string[], env: NodeJS.ProcessEnv = {}) {
    const dir = await mkdtemp(join(tmpdir(), 'registry-secure-api-'));
    const registry = await LocalRegistry.start(dir, args, { env });
    t.after(async () => {
      await registry.stop('SIGKILL');
      await rm(dir, { recursive: true });
    });
    const auth = env.REGISTRY_AUTH === 'none' ? {} : { auth: `admin:${registry.password}` };
    const ask = async (method: string, path: string, body?: Buffer) => {
      const reply = await registry.call(method, path, { ...auth, ...(body && { body }) });
      const code = reply.status < 400 ? undefined : JSON.parse(String(reply.body)).errors[0].code;
      return code === undefined ? reply.status : [reply.status, code];
    };
    assert.equal(await ask('POST', `/v2/a/b/blobs/uploads/?digest=${digestOf(config)}`, config), 201);
    return { registry, ask };
  }
  const image = manifestOf(config, []);
  const platform = (architecture: string) => ({ platform: { os: 'linux', architecture } });
  const sparse = (there: string, absent: string) =>
    indexOf([], {
      manifests: [
        { ...descriptorOf(image, OCI_MANIFEST), ...platform(there) },
        { ...descriptorOf(Buffer.from('absent'), OCI_MANIFEST), ...platform(absent) },
      ],
    });
  const withUrl = (url: string) =>
    manifestOf(config, [], { layers: [{ ...descriptorOf(Buffer.from('x'), OCI_LAYER), urls: [url] }] });

  test('by default deletes are off, references must be there, and URLs are nobody’s business', async t => {
    const { registry, ask } = await start(t, ['up', '--ip', '127.0.0.1']);
    assert.equal(await ask('PUT', '/v2/a/b/manifests/v1', image), 201);
    for (const path of [
      '/v2/a/b/manifests/v1',
      `/v2/a/b/manifests/${digestOf(image)}`,
      `/v2/a/b/blobs/${digestOf(config)}`,
      '/api/v1/repositories/a/b',
    ])
      assert.deepEqual(await ask('DELETE', path), [405, 'UNSUPPORTED'], path);
    assert.equal(await ask('GET', '/v2/a/b/manifests/v1'), 200);
    assert.deepEqual(await ask('PUT', '/v2/a/b/manifests/i', sparse('amd64', 'arm64')), [400, 'MANIFEST_BLOB_UNKNOWN']);
    assert.equal(await ask('PUT', '/v2/a/b/manifests/u', withUrl('https://example.com/x')), 201);

    // What docker does when it searches: nothing, no credentials, empty ones, its own.
    const ping = await registry.call('GET', '/v1/_ping');
    assert.deepEqual([ping.status, String(ping.body)], [200, 'true']);
    const refused = await registry.call('GET', '/v1/search?q=a');
    assert.equal(refused.status, 401);
    assert.deepEqual(await registry.call('GET', '/v1/search?q=a', { auth: ':' }), refused);
    assert.equal(await ask('GET', '/v1/search?q=a'), 200);
  });

  test('as configured by a flag and by variables', async t => {
    const { ask } = await start(t, ['serve', '--allow-deletes', '--ip', '127.0.0.1'], {
      REGISTRY_AUTH: 'none',
      REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS: 'list',
      REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST: '[{architecture: amd64, os: linux}]',
      REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW: '[^https://example\\.com/]',
      REGISTRY_VALIDATION_MANIFESTS_URLS_DENY: '[secret]',
    });
    assert.equal(await ask('PUT', '/v2/a/b/manifests/v1', image), 201);
    assert.equal(await ask('PUT', '/v2/a/b/manifests/i', sparse('amd64', 'arm64')), 201);
    assert.deepEqual(await ask('PUT', '/v2/a/b/manifests/i', sparse('arm64', 'amd64')), [400, 'MANIFEST_BLOB_UNKNOWN']);
    assert.equal(await ask('PUT', '/v2/a/b/manifests/u', withUrl('https://example.com/x')), 201);
    for (const url of ['https://example.org/', 'https://example.com/secret'])
      assert.deepEqual(await ask('PUT', '/v2/a/b/manifests/u', withUrl(url)), [400, 'MANIFEST_INVALID'], url);
    assert.equal(await ask('DELETE', '/v2/a/b/manifests/v1'), 202);
    assert.deepEqual(await ask('GET', '/v2/a/b/manifests/v1'), [404, 'MANIFEST_UNKNOWN']);
    assert.equal(await ask('DELETE', '/api/v1/repositories/a/b'), 204);
    assert.deepEqual(await ask('GET', '/v2/a/b/tags/list'), [404, 'NAME_UNKNOWN']);
  });

  test('with the checks turned off, and sparse images let in', async t => {
    const { ask } = await start(t, ['serve', '--ip', '127.0.0.1'], {
      REGISTRY_AUTH: 'none',
      REGISTRY_VALIDATION_DISABLED: 'true',
      REGISTRY_VALIDATION_MANIFESTS_URLS_DENY: '[example]',
      REGISTRY_VALIDATION_MANIFESTS_IMAGES_BLOBS: 'none',
    });
    assert.equal(await ask('PUT', '/v2/a/b/manifests/i', sparse('amd64', 'arm64')), 201);
    assert.equal(await ask('PUT', '/v2/a/b/manifests/u', withUrl('https://example.com/x')), 201);
    const layers = [descriptorOf(Buffer.from('absent'), OCI_LAYER)];
    assert.equal(await ask('PUT', '/v2/a/b/manifests/s', manifestOf(config, [], { layers })), 201);
    assert.deepEqual(await ask('PUT', '/v2/a/b/manifests/bad', Buffer.from('{')), [400, 'MANIFEST_INVALID']);
  });
});
