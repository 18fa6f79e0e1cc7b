import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { say, tcp } from '../support/listener.js';
import {
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

/** What every answer carries here, some of which handlers say themselves. */
const CARRIED = ['X-Request-Id', 'one', 'X-Two', 'a', 'X-Two', 'b', 'cache-control', 'no-store', 'etag', 'none'];

/** Two registries on the same data, one of which has every request carried by the framework. */
async function both(t: TestContext, prefix = ''): Promise<[short: RegistryFixture, long: RegistryFixture]> {
  const short = await RegistryFixture.start({ prefix, headers: CARRIED });
  const { root } = short;
  const long = await RegistryFixture.start({ prefix, headers: CARRIED, root, everythingByFramework: true });
  t.after(async () => {
    assert.deepEqual([short.faults, long.faults], [[], []]);
    await long.stop({ keep: true });
    await short.stop();
  });
  return [short, long];
}

async function answerOf({ port }: RegistryFixture, head: string): Promise<string> {
  const text = await say(await tcp(port), `${head}\r\nHost: x\r\nConnection: close\r\n\r\n`);
  assert.match(text, /^HTTP\/1\.1 \d{3} [\s\S]*\r\nX-Request-Id: one\r\n/, head);
  return text.replace(/\r\nDate: [^\r]*/, '');
}

test('what only reads is answered alike by both ways: status, headers and body', async t => {
  const [short, long] = await both(t);
  const image = await short.pushImage('team/app', 'v1');
  const other = await short.pushImage('team/app', 'v2', { annotations: { a: 'b' } });
  await short.pushManifest('team/app', 'index', indexOf([image.data, other.data]), OCI_INDEX);
  const referrer = manifestOf(Buffer.from('{}'), [], {
    artifactType: 'a/b',
    subject: { mediaType: OCI_INDEX, digest: image.digest, size: image.data.length },
  });
  await short.pushBlob('team/app', Buffer.from('{}'));
  await short.pushManifest('team/app', digestOf(referrer), referrer);
  await short.pushImage('hidden/app', 'v1');
  const absent = digestOf(Buffer.from('nothing like it'));
  const paths = [
    '/v2/',
    '/v2',
    '/v2/_catalog',
    '/v2/_catalog?n=1',
    '/v2/_catalog?n=-1',
    ...['team/app', 'hidden/app', 'no/thing', 'A/b', '..', 'a%2fb'].flatMap(name => [
      `/v2/${name}/manifests/v1`,
      `/v2/${name}/manifests/index`,
      `/v2/${name}/manifests/absent`,
      `/v2/${name}/manifests/${image.digest}`,
      `/v2/${name}/manifests/${image.digest.replace(':', '%3A')}`,
      `/v2/${name}/manifests/sha256:x`,
      `/v2/${name}/manifests/%zz`,
      `/v2/${name}/blobs/${image.layer}`,
      `/v2/${name}/blobs/${absent}`,
      `/v2/${name}/blobs/uploads/`,
      `/v2/${name}/blobs/uploads/00000000-0000-4000-8000-000000000000`,
      `/v2/${name}/tags/list`,
      `/v2/${name}/tags/list?n=1`,
      `/v2/${name}/tags/list?n=1&last=v1`,
      `/v2/${name}/tags/list?n=x`,
      `/v2/${name}/referrers/${image.digest}`,
      `/v2/${name}/referrers/${image.digest}?artifactType=a/b`,
      `/v2/${name}/referrers/x`,
      `/v2/${name}`,
      `/v2/${name}/other`,
    ]),
    '/v2//',
    '/v2/?',
    '/v2x/',
    '/v1/_ping',
    '/v1/search?q=app',
    '/token',
    '/',
    'http://other/v2/team/app/tags/list',
  ];
  for (const path of paths)
    for (const method of ['GET', 'HEAD'])
      for (const header of [
        '',
        '\r\nX-Test-User: nobody',
        '\r\nX-Test-User: insider',
        `\r\nIf-None-Match: "${image.digest}"`,
        '\r\nRange: bytes=1-5',
      ]) {
        const head = `${method} ${path} HTTP/1.1${header}`;
        assert.equal(await answerOf(short, head), await answerOf(long, head), head);
      }
});

test('what is carried with every answer gives way to what the answer says itself', async t => {
  const [short, long] = await both(t, '/images');
  const [config, content] = [Buffer.from('{}'), Buffer.from('layer')];
  for (const body of [config, content])
    await short.call('POST', `/images/v2/team/app/blobs/uploads/?digest=${digestOf(body)}`, { body });
  const data = manifestOf(config, [content]);
  const headers = { 'content-type': OCI_MANIFEST };
  assert.equal((await short.call('PUT', '/images/v2/team/app/manifests/v1', { body: data, headers })).status, 201);
  const [digest, layer] = [digestOf(data), digestOf(content)];
  for (const fixture of [short, long]) {
    const manifest = await answerOf(fixture, 'GET /images/v2/team/app/manifests/v1 HTTP/1.1');
    assert.deepEqual(manifest.match(/^etag: .*$/gim), [`ETag: "${digest}"`]);
    assert.deepEqual(manifest.match(/^cache-control: .*$/gim), ['cache-control: no-store']);
    assert.deepEqual(manifest.match(/^x-two: .*$/gim), ['X-Two: a', 'X-Two: b']);
    const blob = await answerOf(fixture, `GET /images/v2/team/app/blobs/${layer} HTTP/1.1`);
    assert.deepEqual(blob.match(/^cache-control: .*$/gim), ['Cache-Control: max-age=31536000, private']);
  }
});
