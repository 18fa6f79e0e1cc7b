import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { S3Driver } from '../../src/storage/s3.js';
import { layout } from '../../src/store/layout.js';
import { must, requireTools } from '../support/process.js';
import { digestOf, RegistryFixture } from '../support/registry-fixture.js';
import { Versitygw } from '../support/versitygw.js';

interface Got {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

function get(url: string, headers: http.OutgoingHttpHeaders = {}, method = 'GET'): Promise<Got> {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent: false }, response => {
      const chunks: Buffer[] = [];
      response.on('data', chunk => chunks.push(chunk));
      response.once('error', reject).once('end', () => {
        resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) });
      });
    });
    request.once('error', reject).end();
  });
}

describe('pulls that are sent to the bucket', { timeout: 120_000 }, () => {
  let service: Versitygw;
  let registry: RegistryFixture;
  let bucket: string;
  const data = randomBytes(3_000_000);
  const blob = `/v2/team/app/blobs/${digestOf(data)}`;
  before(async () => {
    service = await Versitygw.start();
    bucket = service.makeBucket();
    registry = await RegistryFixture.start({ driver: new S3Driver(service.options(bucket, { redirects: true })) });
    await registry.pushBlob('team/app', data);
  });
  after(async () => {
    await registry?.stop();
    await service?.stop();
  });

  const locationOf = async (path = blob, headers: http.OutgoingHttpHeaders = {}): Promise<string> => {
    const answer = await registry.call('GET', path, { headers });
    assert.deepEqual([answer.status, answer.body.length], [307, 0]);
    assert.equal(answer.headers['docker-content-digest'], path.split('/').at(-1));
    assert.equal(answer.headers['cache-control'], 'no-store', 'nobody else is to be handed the URL');
    return answer.headers.location!;
  };

  test('have the bytes by a URL that is good for one blob and for minutes', async () => {
    const url = new URL(await locationOf());
    assert.equal(url.origin, service.endpoint);
    assert.equal(url.pathname, `/${bucket}/${layout.blob(digestOf(data))}`);
    assert.equal(url.searchParams.get('X-Amz-Expires'), '360', 'five minutes, and one before now');
    const got = await get(url.href);
    assert.ok(got.status === 200 && got.body.equals(data));
    assert.equal((await get(url.href, {}, 'DELETE')).status, 403);
    assert.equal((await get(url.href, {}, 'PUT')).status, 403);
    const other = new URL(url);
    other.pathname = `/${bucket}/registry-secure/format`;
    assert.equal((await get(other.href)).status, 403);
    assert.equal((await get(`${url.origin}${url.pathname}`)).status, 403);
  });

  test('go on with ranges there, and are answered here where the bucket knows no such ones', async () => {
    const part = await get(await locationOf(blob, { range: 'bytes=100-199' }), { range: 'bytes=100-199' });
    assert.deepEqual([part.status, part.headers['content-range']], [206, `bytes 100-199/${data.length}`]);
    assert.ok(part.body.equals(data.subarray(100, 200)));
    const ask = (headers: http.OutgoingHttpHeaders) => registry.call('GET', blob, { headers });
    const several = await ask({ range: 'bytes=0-1,10-11' });
    assert.equal(several.status, 206);
    assert.match(several.headers['content-type']!, /^multipart\/byteranges/);
    const resumed = await ask({ range: 'bytes=100-', 'if-range': `"${digestOf(data)}"` });
    assert.ok(resumed.status === 206 && resumed.body.equals(data.subarray(100)));
    assert.equal((await ask({ range: `bytes=${data.length}-` })).status, 416);
    assert.equal((await ask({ 'if-none-match': `"${digestOf(data)}"` })).status, 304);
  });

  test('are only those of who may pull it here; HEAD and manifests are answered here', async () => {
    const head = await registry.call('HEAD', blob);
    assert.deepEqual([head.status, head.headers['content-length']], [200, String(data.length)]);
    assert.equal((await registry.call('GET', blob, { user: 'nobody' })).status, 401);
    assert.equal((await registry.call('GET', blob.replace('team/app', 'hidden/app'))).status, 403);
    assert.equal((await registry.call('GET', blob.replace('team/app', 'team/other'))).status, 404);
    const image = await registry.pushImage('team/app', 'v1');
    const manifest = await registry.call('GET', '/v2/team/app/manifests/v1');
    assert.ok(manifest.status === 200 && manifest.body.equals(image.data));
    await registry.call('DELETE', `/v2/team/app/blobs/${image.layer}`);
    assert.equal((await registry.call('GET', `/v2/team/app/blobs/${image.layer}`)).status, 404);
  });

  test('an expired URL is refused by the bucket', async () => {
    const past = new S3Driver(service.options(bucket, { redirects: true }));
    const now = Date.now;
    try {
      // No request has told this driver the service's time yet.
      Date.now = () => now() - 361_000;
      const url = (await past.readUrl(layout.blob(digestOf(data))))!;
      assert.equal((await get(url)).status, 403);
    } finally {
      Date.now = now;
      await past.close();
    }
  });

  test('a driver that is not told to sends nobody away', async () => {
    const driver = new S3Driver(service.options(bucket));
    assert.equal(await driver.readUrl(layout.blob(digestOf(data))), undefined);
    await driver.close();
  });

  test('curl and skopeo follow', async () => {
    requireTools('curl', 'skopeo');
    const dir = mkdtempSync(join(tmpdir(), 'redirects-'));
    try {
      const file = join(dir, 'blob');
      const url = `http://127.0.0.1:${registry.port}${blob}`;
      assert.equal(
        await must(['curl', '-sfL', '-o', file, '-w', '%{num_redirects} %{http_code}', '--max-time', '60', url]),
        '1 200',
      );
      assert.ok(readFileSync(file).equals(data));
      // As a client resumes.
      writeFileSync(file, data.subarray(0, 1_000_000));
      await must(['curl', '-sfL', '-C', '-', '-o', file, '--max-time', '60', url]);
      assert.ok(readFileSync(file).equals(data));
      const image = await registry.pushImage('team/app', 'v2');
      const from = `docker://127.0.0.1:${registry.port}/team/app:v2`;
      const policy = join(dir, 'policy.json');
      writeFileSync(policy, '{"default":[{"type":"insecureAcceptAnything"}]}');
      await must(['skopeo', '--policy', policy, 'copy', '--src-tls-verify=false', from, `dir:${join(dir, 'image')}`]);
      for (const digest of [image.layer, image.config])
        assert.equal(digestOf(readFileSync(join(dir, 'image', digest.slice('sha256:'.length)))), digest);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
