import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { tokenRealm } from '../../src/server/token-realm.js';

const request = (host?: string) => ({ headers: host === undefined ? {} : { host } }) as IncomingMessage;

test('a client gets its token by the name that it came by, if the certificate is good for it', () => {
  const realm = tokenRealm({ host: '', prefix: '/p' }, () => ['registry.lan', '192.168.0.12', 'fd00::1', '*.lan']);
  for (const host of ['registry.lan', 'registry.lan:5000', '192.168.0.12:5000', '[fd00::1]:5000', 'x.lan'])
    assert.equal(realm(request(host)), `https://${host}/p/token`);
  assert.equal(realm(request('REGISTRY.lan')), 'https://registry.lan/p/token');
  for (const host of [
    'evil.example',
    '192.168.0.13',
    'registry.lan"',
    'registry.lan@evil',
    'a b',
    '',
    'x:y:z',
    undefined,
  ])
    assert.equal(realm(request(host)), undefined, host);
});

test('http.host counts before that, and over plain HTTP the name that was asked for', () => {
  const configured = tokenRealm({ host: 'https://registry.example.com:443/x', prefix: '' }, () => []);
  assert.equal(configured(request('evil.example')), 'https://registry.example.com/token');
  const plain = tokenRealm({ host: '', prefix: '' }, () => undefined);
  assert.equal(plain(request('127.0.0.1:5000')), 'http://127.0.0.1:5000/token');
  assert.equal(plain(request('a"b')), undefined);
});
