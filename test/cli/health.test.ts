import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'registry-secure-health-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const health = (...args: string[]) => LocalRegistry.run(dir, ['health', ...args]);

test('asks over TLS with a certificate that nobody trusts, or over plain HTTP; no answer is a failure', async () => {
  for (const plain of [[], ['--insecure-plain-http']]) {
    const registry = await LocalRegistry.start(dir, ['up', ...plain]);
    const addr = `127.0.0.1:${registry.port}`;
    const config = join(dir, 'config.yml');
    writeFileSync(config, `{version: 0.1, http: {addr: '${addr}', insecureplainhttp: ${plain.length > 0}}}`);
    for (const args of [[config, '--addr', addr, ...plain], [config]])
      assert.deepEqual(await health(...args), { status: 0, stdout: '{"status":"ok"}\n', stderr: '' }, args.join(' '));
    await registry.stop();
    const { status, stdout, stderr } = await health(config);
    assert.deepEqual([status, stdout], [1, '']);
    assert.equal(stderr, `registry-secure: ${addr} does not answer: connect ECONNREFUSED ${addr}\n`);
  }
});

test('a registry that is not well is a failure, with what it says', async () => {
  const unwell = createServer((_request, response) => response.writeHead(503).end('{"status":"the storage …"}'));
  await new Promise<void>(resolve => unwell.listen(0, 'localhost', resolve));
  const { port } = unwell.address() as AddressInfo;
  const config = join(dir, 'config.yml');
  writeFileSync(config, `{version: 0.1, http: {addr: ':${port}', insecureplainhttp: true}}`);
  const { status, stderr } = await health(config);
  unwell.close();
  assert.equal(status, 1);
  assert.equal(stderr, 'registry-secure: not well: 503 {"status":"the storage …"}\n');
});

test('REGISTRY_SECURE_USER takes nothing but volume', async () => {
  const { status, stderr } = await LocalRegistry.run(dir, ['up', '--addr', '127.0.0.1:0'], {
    env: { REGISTRY_SECURE_USER: 'nobody' },
  });
  assert.equal(status, 1);
  assert.match(stderr, /^registry-secure: REGISTRY_SECURE_USER=nobody is not known; volume: /m);
});
