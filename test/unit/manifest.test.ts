import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseManifest, storedMediaType } from '../../src/store/manifest.js';

const digest = `sha256:${'ab'.repeat(32)}`;
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 2 };
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 10 };
const OCI = 'application/vnd.oci.image.manifest.v1+json';
const image = { schemaVersion: 2, mediaType: OCI, config, layers: [layer] };
const parse = (value: unknown, type?: string) => parseManifest(Buffer.from(JSON.stringify(value)), type);

test('an image, and its type with or without parameters, or from its members', () => {
  assert.deepEqual(parse(image, OCI).blobs.length, 2);
  assert.equal(parse(image, `${OCI}; charset=utf-8`).mediaType, OCI);
  const { mediaType: _, ...untyped } = image;
  assert.equal(parse(untyped).mediaType, OCI);
  assert.equal(parse(untyped).artifactType, config.mediaType);
  assert.equal(parse({ ...image, artifactType: 'a/b' }).artifactType, 'a/b');
});

test('an index has no artifact type of its own making', () => {
  const index = parse({ schemaVersion: 2, manifests: [{ ...layer, mediaType: OCI }] });
  assert.equal(index.kind, 'index');
  assert.equal(index.artifactType, undefined);
  assert.equal(index.manifests.length, 1);
  assert.deepEqual(parse({ schemaVersion: 2, manifests: [] }).manifests, []);
});

test('foreign and non-distributable layers are nobody’s to push', () => {
  const foreign = {
    ...layer,
    mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    urls: ['https://example.com/x'],
  };
  const restricted = { ...layer, mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' };
  assert.deepEqual(parse({ ...image, layers: [foreign, restricted] }).blobs, [config]);
});

describe('refused, with the member that is wrong', () => {
  const cases: ReadonlyArray<[string, unknown, RegExp, string?]> = [
    ['no object', [1], /"manifest" is not an object/],
    ['null', null, /not an object/],
    ['nothing of a manifest', {}, /unsupported media type/],
    ['unknown media type', { ...image, mediaType: 'text/html' }, /unsupported media type "text\/html"/],
    ['a type inherited from Object', { ...image, mediaType: 'constructor' }, /unsupported media type/],
    ['another Content-Type', image, /differs from/, 'application/vnd.oci.image.index.v1+json'],
    ['layers and manifests', { ...image, manifests: [] }, /both/],
    ['schema 1', { schemaVersion: 1, signatures: [], fsLayers: [] }, /unsupported media type/],
    ['schema 3', { ...image, schemaVersion: 3 }, /schemaVersion/],
    ['no config', { ...image, config: undefined }, /"config" is not an object/],
    ['no layers', { ...image, layers: undefined }, /"layers" is not a list/],
    [
      'a digest that leaves the store',
      { ...image, layers: [{ ...layer, digest: 'sha256:../../x' }] },
      /"layers\[0\].digest"/,
    ],
    ['a size below zero', { ...image, layers: [{ ...layer, size: -1 }] }, /"layers\[0\].size"/],
    ['a size that is text', { ...image, config: { ...config, size: '2' } }, /"config.size"/],
    ['no media type of a layer', { ...image, layers: [{ ...layer, mediaType: undefined }] }, /"layers\[0\].mediaType"/],
    ['annotations that are numbers', { ...image, annotations: { a: 1 } }, /annotations/],
    ['a subject without a digest', { ...image, subject: {} }, /"subject.digest"/],
    ['urls that are text', { ...image, layers: [{ ...layer, urls: 'x' }] }, /urls/],
  ];
  for (const [name, value, message, type] of cases)
    test(name, () => {
      assert.throws(() => parse(value, type), { code: 'MANIFEST_INVALID', status: 400, message });
    });
  test('no JSON', () => {
    assert.throws(() => parseManifest(Buffer.from('{"a":1,"a":1}'), OCI), {
      code: 'MANIFEST_INVALID',
      message: /duplicate/,
    });
    assert.throws(() => parseManifest(Buffer.from([0xff]), OCI), { code: 'MANIFEST_INVALID' });
  });
});

test('what an old volume holds is given back by its own type', () => {
  assert.equal(
    storedMediaType(Buffer.from('{"schemaVersion":1,"signatures":[]}')),
    'application/vnd.docker.distribution.manifest.v1+prettyjws',
  );
  assert.equal(storedMediaType(Buffer.from('no manifest')), undefined);
});
