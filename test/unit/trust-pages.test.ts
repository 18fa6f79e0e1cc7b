import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { createApp } from '../../src/server/app.js';
import { USUAL_CLIENTS } from '../../src/trust/table.js';
import { type Anchor, createTrustPages } from '../../src/ui/trust-pages.js';
import { say, serve, tcp } from '../support/listener.js';
import { selfSigned } from '../support/pair.js';

const PEM = selfSigned().certificate;
const SHA256 = createHash('sha256').update(PEM).digest('hex');
const NAMES = ['192.168.0.12', 'reg.lan', '*.apps.lan', 'localhost', '127.0.0.1', '::1'];

async function registry(t: TestContext, anchor: Anchor | undefined = { pem: PEM, names: NAMES }, prefix = '') {
  const app = createApp({
    registry: async (_request, response) => void response.end('the registry'),
    api: async () => undefined,
    prefix,
    headers: () => ['X-Content-Type-Options', 'nosniff'],
    health: { healthy: true, status: 'ok' },
    pages: createTrustPages({ anchor: async () => anchor, prefix }),
    onFault: () => undefined,
    onIdentity: () => undefined,
  });
  const { port } = await serve(t, app, { plain: true });
  const ask = async (target: string, { method = 'GET', host = 'reg.lan:5000', more = '' } = {}) => {
    const text = await say(
      await tcp(port),
      `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${more}\r\n`,
    );
    const end = text.indexOf('\r\n\r\n');
    return { head: text.slice(0, end), body: text.slice(end + 4), status: Number(text.slice(9, 12)) };
  };
  return { ask, port };
}

test('the file is handed out without a login, to be saved and not to be imported at a click', async t => {
  const { ask } = await registry(t);
  for (const name of ['ca.crt', 'ca.pem']) {
    const { head, body, status } = await ask(`/${name}`);
    assert.deepEqual([status, body], [200, PEM]);
    assert.match(head, /^Content-Type: application\/x-pem-file$/m);
    assert.match(head, new RegExp(`^Content-Disposition: attachment; filename="${name.replace('.', '\\.')}"$`, 'm'));
    assert.match(head, /^Cache-Control: no-cache$/m);
    assert.match(head, new RegExp(`^ETag: "${SHA256}"$`, 'm'));
    assert.match(head, /^X-Content-Type-Options: nosniff$/m);
  }
  const only = await ask('/ca.crt', { method: 'HEAD' });
  assert.deepEqual([only.status, only.body], [200, '']);
  assert.match(only.head, new RegExp(`^Content-Length: ${PEM.length}$`, 'm'));
  for (const tag of [`"${SHA256}"`, `W/"${SHA256}"`, `"other", "${SHA256}"`, '*']) {
    const again = await ask('/ca.crt', { more: `If-None-Match: ${tag}\r\n` });
    assert.deepEqual([again.status, again.body], [304, ''], tag);
  }
  assert.equal((await ask('/ca.crt', { more: 'If-None-Match: "other"\r\n' })).status, 200);
  const put = await ask('/ca.crt', { method: 'PUT' });
  assert.equal(put.status, 405);
  assert.match(put.head, /^Allow: GET, HEAD$/m);
});

test('the page has every client and the fingerprints, and is never kept', async t => {
  const { ask } = await registry(t);
  const { head, body, status } = await ask('/trust');
  assert.equal(status, 200);
  assert.match(head, /^Content-Type: text\/html; charset=utf-8$/m);
  assert.match(head, /^Cache-Control: no-store$/m);
  assert.match(head, /^X-Frame-Options: DENY$/m);
  for (const { name } of USUAL_CLIENTS) {
    assert.ok(body.includes(`data-tab="${name}"`), name);
    assert.ok(body.includes(`data-panel="${name}"`), name);
  }
  assert.ok(!body.includes('insecure-registries'));
  assert.ok(body.includes(`<code>${SHA256}</code>`));
  assert.ok(body.includes('sudo install -Dm644 ca.crt /etc/docker/certs.d/reg.lan:5000/ca.crt'));
  assert.deepEqual([(await ask('/trust', { method: 'HEAD' })).body, (await ask('/trust?x=1')).status], ['', 200]);
  for (const target of ['/trust/', '/Trust', '//trust', '/ca.crt/', '/images/trust'])
    assert.equal((await ask(target)).status, 404, target);
});

test('nothing but the style and the script in it may run, and nothing is loaded from elsewhere', async t => {
  const { ask } = await registry(t);
  const { head, body } = await ask('/trust');
  const policy = /^Content-Security-Policy: (.*)$/m.exec(head)![1]!.trim();
  const directives = new Map(policy.split('; ').map(part => [part.split(' ')[0]!, part.split(' ').slice(1).join(' ')]));
  assert.equal(directives.get('default-src'), "'none'");
  assert.doesNotMatch(policy, /unsafe|\*|https?:/);
  for (const [kind, tag] of [
    ['style-src', 'style'],
    ['script-src', 'script'],
  ] as const) {
    const inside = [...body.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, 'g'))].map(([, text]) => text!);
    assert.equal(inside.length, 1);
    assert.equal(directives.get(kind), `'sha256-${createHash('sha256').update(inside[0]!).digest('base64')}'`);
  }
  assert.doesNotMatch(body, /\s(style|on\w+)=/);
  for (const [, , target] of body.matchAll(/\s(src|href)="([^"]*)"/g))
    assert.match(target!, /^(#[a-z0-9-]+|\/ca\.crt|data:image\/svg\+xml,[^<>"]*)$/);
});

test('the host is the one that the reader uses where the certificate has it, and never what was sent as it came', async t => {
  const { ask, port } = await registry(t);
  const shown = async (host: string) => /<title>Trust ([^<]*)<\/title>/.exec((await ask('/trust', { host })).body)![1];
  assert.equal(await shown('192.168.0.12'), '192.168.0.12');
  assert.equal(await shown('REG.LAN:8443'), 'reg.lan:8443');
  assert.equal(await shown('a.apps.lan'), 'a.apps.lan');
  assert.equal(await shown('[::1]:5000'), '[::1]:5000');
  const own = `192.168.0.12:${port}`;
  for (const host of [
    'evil.example',
    'reg.lan.evil.example',
    'reg.lan:5000@evil.example',
    "reg.lan'><script>alert(1)</script>",
    'reg.lan:5000;reboot',
    '$(reboot)',
    '*.apps.lan',
    'reg.lan:99999',
    '',
  ]) {
    const { body, status } = await ask('/trust', { host });
    // Some of them the parser of HTTP refuses before.
    if (status === 400) continue;
    assert.equal(/<title>Trust ([^<]*)<\/title>/.exec(body)?.[1], own, host);
    assert.doesNotMatch(body, /evil|alert\(1\)|reboot/);
  }
});

test('during a rotation both fingerprints are shown, and stores get each by itself', async t => {
  const other = selfSigned().certificate;
  const { ask } = await registry(t, { pem: PEM + other, names: NAMES });
  const { body } = await ask('/trust');
  assert.match(body, /Fingerprint of the new authority[\s\S]*Fingerprint of the old authority/);
  assert.equal((await ask('/ca.crt')).body, PEM + other);
});

test('behind a prefix, which all that is printed has', async t => {
  const { ask } = await registry(t, undefined, '/images');
  for (const target of ['/images/ca.crt', '/ca.crt', '/images/ca.pem'])
    assert.equal((await ask(target)).body, PEM, target);
  const { body } = await ask('/images/trust');
  assert.match(body, /href="\/images\/ca\.crt"/);
  assert.match(body, /curl -fsSk -o ca\.crt https:\/\/reg\.lan:5000\/images\/ca\.crt/);
});

test('where a public authority signed there is nothing to install, and that is said', async t => {
  const pages = createTrustPages({ anchor: async () => undefined, prefix: '' });
  const app = createApp({
    registry: async () => undefined,
    api: async () => undefined,
    prefix: '',
    headers: () => [],
    health: { healthy: true, status: 'ok' },
    pages,
    onFault: () => undefined,
    onIdentity: () => undefined,
  });
  const { port } = await serve(t, app, { plain: true });
  for (const target of ['/ca.crt', '/ca.pem', '/trust']) {
    const said = await say(await tcp(port), `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    assert.match(said, /^HTTP\/1\.1 404 [\s\S]*Content-Type: text\/plain[\s\S]*Nothing has to be installed/, target);
  }
});
