import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalRegistry } from '../support/local-registry.js';
import { digestOf, manifestOf, OCI_MANIFEST } from '../support/registry-fixture.js';

/**
 * The program, started by variables alone, takes an image and gives it back.
 * @param data how the line says it that tells where the data is
 * @param secrets what none of its lines may hold
 */
export async function serveByVariables(env: NodeJS.ProcessEnv, data: string, secrets: string[]): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'registry-secure-store-'));
  const registry = await LocalRegistry.start(dir, ['up'], { env });
  try {
    const auth = `admin:${registry.password}`;
    const [layer, config] = [Buffer.from('layer'), Buffer.from('{"os":"linux","architecture":"amd64"}')];
    for (const body of [layer, config]) {
      const path = `/v2/a/b/blobs/uploads/?digest=${digestOf(body)}`;
      assert.equal((await registry.call('POST', path, { auth, body })).status, 201);
    }
    const headers = { 'content-type': OCI_MANIFEST };
    const body = manifestOf(config, [layer]);
    assert.equal((await registry.call('PUT', '/v2/a/b/manifests/1', { auth, body, headers })).status, 201);
    assert.ok((await registry.call('GET', '/v2/a/b/manifests/1', { auth })).body.equals(body));
    assert.ok((await registry.call('GET', `/v2/a/b/blobs/${digestOf(layer)}`, { auth })).body.equals(layer));
    assert.ok(registry.stderr.includes(`data=${data}`), registry.stderr);
    for (const secret of secrets) assert.ok(!(registry.stderr + registry.stdout).includes(secret));
  } finally {
    await registry.stop();
    rmSync(dir, { recursive: true });
  }
}
