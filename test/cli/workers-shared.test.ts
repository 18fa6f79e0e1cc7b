import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import type { OutgoingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import bcrypt from 'bcryptjs';
import { layout } from '../../src/store/layout.js';
import { tcp } from '../support/listener.js';
import { LocalRegistry } from '../support/local-registry.js';
import { type Answer, RegistryClient } from '../support/registry-client.js';
import { digestOf, manifestOf, OCI_MANIFEST } from '../support/registry-fixture.js';

const WORKERS = 3;
const PASSWORD = 'a word';
const STALLED = 1_000;
const UPLOADS = 100;
const QUOTA = 20_000;
/** Milliseconds between pushes under one quota, from try to try: how long a word may be on its way. */
const PAUSES = [0, 50, 500, 2_000];

/** What one worker knows, all know: each is asked on a connection of its own, which is kept. */
describe('what workers share', () => {
  let dir: string;
  let registry: LocalRegistry;
  let stalled: Promise<number>;
  const clients: RegistryClient[] = [];
  /** One for each worker, of the user alice. */
  let each: RegistryClient[];

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'workers-shared-'));
    const hash = bcrypt.hashSync(PASSWORD, 4);
    write('htpasswd', ['alice', 'bob'].map(user => `${user}:${hash}\n`).join(''));
    write('groups', 'readers:\n');
    write('policy.yml', policyFor('[user:alice]'));
    registry = await LocalRegistry.start(
      dir,
      ['up', '--ip', '127.0.0.1', '--workers', `${WORKERS}`, '--allow-deletes'],
      {
        env: {
          REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'htpasswd'),
          REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
          REGISTRY_ACCESS_GROUPS: join(dir, 'groups'),
          REGISTRY_HTTP_TLS_CLIENTAUTH: 'verify-client-cert-if-given',
          REGISTRY_LIMITS_UPLOADS: `${UPLOADS}`,
          REGISTRY_LIMITS_QUOTAS: `{${PAUSES.map(pause => `full/p${pause}: ${QUOTA}`).join(', ')}}`,
        },
      },
    );
    await registry.until(() => /msg="all workers serve"/.test(registry.stderr));
    stalled = stall();
    each = await oneForEach('alice');
  });
  after(async () => {
    for (const client of clients) client.close();
    assert.equal(await registry.stop(), 0, registry.stderr);
    rmSync(dir, { recursive: true });
  });

  function write(name: string, text: string): void {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
  }

  function policyFor(who: string): string {
    return `rules:\n  - who: ${who}\n    may: [push, delete]\n    on: ["**"]\n  - who: [group:readers]\n    may: [pull]\n    on: ["**"]\n`;
  }

  /** Connections to the workers, as many as it takes to have one to each: the choice is the kernel's. */
  async function oneForEach(user: string): Promise<RegistryClient[]> {
    const found = new Map<string, RegistryClient>();
    const ca = readFileSync(join(dir, 'certs/ca.crt'));
    for (let tries = 0; found.size < WORKERS; tries++) {
      assert.ok(tries < 500, `${found.size} of ${WORKERS} workers have answered`);
      const client = new RegistryClient(registry.port, { ca, auth: `${user}:${PASSWORD}` });
      clients.push(client);
      const worker = workerOf(await client.send('GET', '/v2/'));
      if (found.has(worker)) client.close();
      else found.set(worker, client);
    }
    return [...found.values()];
  }

  function workerOf({ headers }: Answer): string {
    return /^([0-9a-f]{8})-/.exec(String(headers['x-request-id']))![1]!;
  }

  async function push(client: RegistryClient, path: string, config: Buffer): Promise<Buffer> {
    const [repository] = path.split('/manifests/');
    await client.must(201, 'POST', `${repository}/blobs/uploads/?digest=${digestOf(config)}`, { body: config });
    const data = manifestOf(config, []);
    await client.must(201, 'PUT', path, { headers: { 'content-type': OCI_MANIFEST }, body: data });
    return data;
  }

  /** What each of them answers, when all answer the same. */
  async function all(method: string, path: string, asked: readonly RegistryClient[] = each): Promise<Answer> {
    const answers = await Promise.all(asked.map(client => client.send(method, path)));
    assert.equal(new Set(answers.map(({ status }) => status)).size, 1, answers.map(({ status }) => status).join());
    return answers[0]!;
  }

  /** Waits until each of them answers so. */
  async function until(status: number, path: string, asked: readonly RegistryClient[], method = 'GET'): Promise<void> {
    await registry.until(async () => {
      const answers = await Promise.all(asked.map(client => client.send(method, path)));
      return answers.every(answer => answer.status === status);
    });
  }

  /** Opens connections that begin a handshake and say no more. @returns how many, once the server has closed them all */
  async function stall(): Promise<number> {
    const sockets = await Promise.all(Array.from({ length: STALLED }, () => tcp(registry.port)));
    const ends = sockets.map(async socket => {
      socket.on('error', () => {}).resume();
      socket.write(Buffer.from([0x16, 0x03, 0x01]));
      await new Promise(resolve => socket.once('close', resolve));
    });
    await Promise.all(ends);
    return ends.length;
  }

  test('each connection stays with its worker', async () => {
    const asked = async () => Promise.all(each.map(async client => workerOf(await client.send('GET', '/v2/'))));
    const first = await asked();
    assert.equal(new Set(first).size, WORKERS);
    assert.deepEqual(await asked(), first);
  });

  test('a tag that one moves, and what one deletes, the next request sees in every other', async () => {
    const path = '/v2/team/app/manifests/v1';
    for (const writer of each) {
      const config = randomBytes(1000);
      for (const next of [config, randomBytes(1000)]) {
        const data = await push(writer, path, next);
        const { body } = await all('GET', path);
        assert.ok(body.equals(data));
        assert.equal((await all('GET', `/v2/team/app/blobs/${digestOf(next)}`)).status, 200);
        const byDigest = `/v2/team/app/manifests/${digestOf(data)}`;
        assert.equal((await all('GET', byDigest)).status, 200);
        await writer.must(202, 'DELETE', byDigest);
        assert.equal((await all('GET', byDigest)).status, 404);
        assert.equal((await all('GET', path)).status, 404);
        await writer.must(202, 'DELETE', `/v2/team/app/blobs/${digestOf(next)}`);
        assert.equal((await all('HEAD', `/v2/team/app/blobs/${digestOf(next)}`)).status, 404);
      }
    }
    const { body } = await all('GET', '/v2/team/app/tags/list');
    assert.deepEqual(JSON.parse(body.toString()), { name: 'team/app', tags: [] });
  });

  test('an upload that one begins goes on in the second and ends in the third', async () => {
    const [first, second, third] = each as [RegistryClient, RegistryClient, RegistryClient];
    const parts = [randomBytes(70_000), randomBytes(70_000), randomBytes(70_000)];
    const digest = digestOf(Buffer.concat(parts));
    let { location } = (await first.must(202, 'POST', '/v2/team/upload/blobs/uploads/')).headers;
    let sent = 0;
    for (const [index, client] of [second, third].entries()) {
      const body = parts[index]!;
      const headers = { 'content-range': `${sent}-${sent + body.length - 1}` };
      ({ location } = (await client.must(202, 'PATCH', location!, { headers, body })).headers);
      sent += body.length;
      for (const asked of each) {
        const { headers } = await asked.must(204, 'GET', location!);
        assert.equal(headers.range, `0-${sent - 1}`);
      }
    }
    await first.must(201, 'PUT', `${location}?digest=${digest}`, { body: parts[2]! });
    assert.ok((await all('GET', `/v2/team/upload/blobs/${digest}`)).body.equals(Buffer.concat(parts)));
  });

  test('a token that one gives is taken by all', async () => {
    const [first] = each as [RegistryClient];
    const { body } = await first.must(200, 'GET', '/token?service=registry-secure');
    const { token } = JSON.parse(body.toString()) as { token: string };
    const bearer = (headers: OutgoingHttpHeaders) =>
      Promise.all(each.map(async client => (await client.send('GET', '/v2/_catalog', { headers })).status));
    assert.deepEqual(await bearer({ authorization: `Bearer ${token}` }), Array(WORKERS).fill(200));
    assert.deepEqual(await bearer({ authorization: `Bearer ${token}x` }), Array(WORKERS).fill(401));
  });

  test('rights are read again by all: the policy, and its groups', async () => {
    const bobs = await oneForEach('bob');
    await push(each[0]!, '/v2/rights/manifests/v1', randomBytes(100));
    await until(403, '/v2/rights/manifests/v1', bobs);
    write('groups', 'readers: bob\n');
    await until(200, '/v2/rights/manifests/v1', bobs);
    assert.equal((await all('POST', '/v2/rights/blobs/uploads/', bobs)).status, 403);
    write('policy.yml', policyFor('[user:alice, user:bob]'));
    // However often it is asked, this leaves nothing behind that is bounded.
    await until(404, '/v2/rights/manifests/absent', bobs, 'DELETE');
    assert.equal((await all('POST', '/v2/rights/blobs/uploads/', bobs)).status, 202);
    write('policy.yml', policyFor('[user:alice]'));
    write('groups', 'readers:\n');
    await until(403, '/v2/rights/manifests/v1', bobs);
  });

  test('trust in client certificates is read again by all', async () => {
    const run = async (...args: string[]) => {
      const { status, stderr } = await LocalRegistry.run(dir, ['certs', 'client', ...args]);
      assert.equal(status, 0, stderr);
    };
    const reloads = () =>
      new Set(
        registry.stderr.match(/msg="reloaded the trust in client certificates".*worker=\d/g)?.map(line => line.at(-1)),
      );
    await run('add', 'alice');
    await run('revoke', 'alice');
    await registry.until(() => reloads().size === WORKERS);
  });

  test('read-only mode begins and ends in all', async () => {
    for (const [word, status] of [
      ['on', 405],
      ['off', 404],
    ] as const) {
      const done = await LocalRegistry.run(dir, ['maintenance', word, '--root', join(dir, 'data')]);
      assert.equal(done.status, 0, done.stderr);
      await until(status, '/v2/maintained/manifests/absent', each, 'DELETE');
    }
  });

  test('a quota bounds what all take together', async () => {
    const send = async (client: RegistryClient, pause: number, size: number) => {
      const body = randomBytes(size);
      const path = `/v2/full/p${pause}/blobs/uploads/?digest=${digestOf(body)}`;
      return (await client.send('POST', path, { body })).status;
    };
    const attempt = async (pause: number) => {
      // From now on each has counted what is there.
      for (const client of each) assert.equal(await send(client, pause, 100), 201);
      const taken: number[] = [];
      for (let round = 0; round < 4; round++)
        for (const client of each) {
          taken.push(await send(client, pause, 5_000));
          await new Promise(resolve => setTimeout(resolve, pause));
        }
      assert.deepEqual([...new Set(taken)].sort(), [201, 403]);
      // One more where a word has come after a push.
      return taken.filter(status => status === 201).length <= 1 + Math.floor(QUOTA / 5_000);
    };
    let bounded = false;
    for (const pause of PAUSES) bounded ||= await attempt(pause);
    assert.ok(bounded, 'each takes as much as all may');
  });

  test('a blob that one finds corrupt is absent in all, so that it is sent again', async () => {
    const [first, , third] = each as [RegistryClient, RegistryClient, RegistryClient];
    const data = randomBytes(5_000_000);
    const digest = digestOf(data);
    const upload = `/v2/rotten/blobs/uploads/?digest=${digest}`;
    await first.must(201, 'POST', upload, { body: data });
    const file = join(dir, 'data', layout.blob(digest));
    const { atime, mtime } = statSync(file);
    writeFileSync(file, Buffer.concat([data.subarray(0, -1), Buffer.from([data.at(-1)! ^ 1])]));
    utimesSync(file, atime, mtime);
    assert.equal((await all('HEAD', `/v2/rotten/blobs/${digest}`)).status, 200, 'nobody knows');
    await assert.rejects(first.send('GET', `/v2/rotten/blobs/${digest}`), { name: 'Lost' });
    // Its connection is gone with the answer.
    const others = await oneForEach('alice');
    await until(404, `/v2/rotten/blobs/${digest}`, others, 'HEAD');
    await third.must(201, 'POST', upload, { body: data });
    assert.ok((await all('GET', `/v2/rotten/blobs/${digest}`, others)).body.equals(data));
    const found = () => registry.stderr.split('the stored bytes are corrupt').length - 1;
    await registry.until(() => found() > 0);
    assert.equal(found(), 1);
  });

  test('unfinished uploads of one user are bounded, whoever of them is asked', async () => {
    const asked = await oneForEach('alice');
    let begun = 0;
    for (;;) {
      const { status } = await asked[begun % asked.length]!.send('POST', '/v2/many/blobs/uploads/');
      if (status === 429) break;
      assert.equal(status, 202);
      begun++;
      // Each may have taken its share of an eighth before it looked.
      assert.ok(begun <= UPLOADS * (1 + WORKERS / 8), `${begun} uploads, where ${UPLOADS} are allowed`);
    }
  });

  test(`${STALLED} connections that stall keep nobody from being served, and are closed`, async () => {
    assert.equal(await stalled, STALLED);
    assert.equal((await registry.call('GET', '/v2/', { auth: `alice:${PASSWORD}` })).status, 200);
    assert.doesNotMatch(registry.stderr, /a request failed|a worker has ended/);
  });
});
