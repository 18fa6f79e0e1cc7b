import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { usualWorkers } from '../../src/config/workers.js';
import { inAFolder } from '../support/started.js';

describe('up and serve, as a newcomer starts them', () => {
  const place = inAFolder();

  test('from an empty folder to a pushed blob, and the same again without making anything', async () => {
    const first = await place.start(['up', '--ip', '192.168.0.12']);
    await first.until(() => first.stdout.includes('docker login'));
    const host = `192\\.168\\.0\\.12:${first.port}`;
    for (const line of [
      `^Registry +https://${host}/$`,
      '^Certificate .*domain\\.crt \\(created\\), until \\d{4}-\\d\\d-\\d\\d$',
      'good for +192\\.168\\.0\\.12, ',
      'SHA-256 +([0-9A-F]{2}:){31}[0-9A-F]{2}$',
      `^sudo install -Dm644 ${place.dir}/certs/ca\\.crt /etc/docker/certs\\.d/${host}/ca\\.crt$`,
      '^sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System\\.keychain ca\\.crt$',
      `^docker login -u admin ${host}$`,
    ])
      assert.match(first.stdout, new RegExp(line, 'm'));

    const expected = usualWorkers();
    if (expected > 1) await first.until(() => first.stderr.includes(`msg="all workers serve" workers=${expected}`));
    const children = await readFile(`/proc/${first.child.pid}/task/${first.child.pid}/children`, 'utf8');
    assert.equal(children.split(' ').filter(Boolean).length, expected === 1 ? 0 : expected);

    const { password } = first;
    assert.ok(!`${first.stdout}${first.stderr}`.includes(password), 'a log is no place for a password');
    for (const secret of ['auth/initial-password', 'auth/htpasswd', 'certs/ca.key', 'certs/domain.key'])
      assert.equal((await stat(join(place.dir, secret))).mode & 0o777, 0o600, secret);

    const data = randomBytes(100_000);
    const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    const auth = `admin:${password}`;
    for (const wrong of [undefined, 'admin:wrong', 'nobody:x'])
      assert.equal((await first.call('POST', '/v2/a/b/blobs/uploads/', wrong ? { auth: wrong } : {})).status, 401);
    assert.equal(
      (await first.call('POST', `/v2/a/b/blobs/uploads/?digest=${digest}`, { auth, body: data })).status,
      201,
    );
    for (const path of ['/', '/healthz']) assert.equal((await first.call('GET', path)).status, 200);
    assert.equal(await first.stop(), 0);

    const second = await place.start(['up', '--ip', '192.168.0.12']);
    await second.until(() => second.stdout.includes('docker login'));
    assert.match(second.stdout, /^Certificate .*\(reused\)/m);
    assert.match(second.stdout, /^Authority .*\(reused\)/m);
    assert.match(second.stdout, /^Users .*\(reused\)/m);
    assert.ok((await second.call('GET', `/v2/a/b/blobs/${digest}`, { auth })).body.equals(data));
    assert.equal(await second.stop('SIGINT'), 0, 'Ctrl-C drains as well');
  });

  test('plain HTTP and an open registry only by name, each with a warning', async () => {
    await writeFile(
      join(place.dir, 'config.yml'),
      'version: 0.1\nauth: { none: {} }\nstorage: { filesystem: { rootdirectory: data } }\n',
    );
    const registry = await place.start(['serve', join(place.dir, 'config.yml'), '--insecure-plain-http']);
    assert.match(registry.stderr, /level=warn msg="serving plain HTTP/);
    assert.match(registry.stderr, /level=warn msg="the registry is open/);
    const answer = await fetch(`http://127.0.0.1:${registry.port}/v2/`);
    assert.equal(answer.status, 200);
  });
});
