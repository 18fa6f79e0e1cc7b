import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redirectsOf } from '../../src/storage/redirect.js';

test('pulls are redirected unless told otherwise, where clients can reach the object store by HTTPS', () => {
  for (const endpoint of [
    'https://s3.amazonaws.com',
    'https://minio.example.com:9000',
    'https://8.8.8.8',
    'https://[2600::1]',
  ])
    assert.deepEqual(redirectsOf(undefined, endpoint), { on: true }, endpoint);
  for (const endpoint of [
    'http://minio.example.com:9000',
    'https://minio:9000',
    'https://minio.storage.svc.cluster.local',
    'https://store.lan',
    'https://10.1.2.3',
    'https://172.20.0.2',
    'https://127.0.0.1:7070',
    'https://[::1]',
    'https://[fd00::1]',
  ])
    assert.deepEqual(redirectsOf(undefined, endpoint), { on: false }, endpoint);
});

test('what is set counts, with a warning where it may not be meant', () => {
  assert.deepEqual(redirectsOf(true, 'https://s3.amazonaws.com'), { on: false });
  assert.deepEqual(redirectsOf(false, 'https://s3.amazonaws.com'), { on: true });
  assert.deepEqual(redirectsOf(false, 'http://minio:9000'), {
    on: true,
    warning:
      'pulls are redirected to http://minio, without TLS and at an address that may be known here only (storage.redirect.disable: false)',
  });
  assert.match(
    redirectsOf(false, 'https://192.168.0.5').warning!,
    /^pulls are redirected to https:\/\/192\.168\.0\.5, at an/,
  );
});

test('an endpoint for those inside is one of them, whatever its name', () => {
  const endpoint = 'https://swift.example.com/v1/AUTH_images';
  assert.deepEqual(redirectsOf(undefined, endpoint, true), { on: false });
  assert.match(
    redirectsOf(false, endpoint, true).warning!,
    /swift\.example\.com, at an address that may be known here only/,
  );
});
