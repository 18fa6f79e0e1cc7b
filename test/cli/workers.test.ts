import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { RegistryClient } from '../support/registry-client.js';
import { digestOf, manifestOf, OCI_MANIFEST } from '../support/registry-fixture.js';

const WORKERS = 2;

describe('several workers', () => {
  let dir: string;
  let registry: LocalRegistry;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'workers-'));
    registry = await start();
  });
  after(async () => {
    await registry.stop();
    rmSync(dir, { recursive: true });
  });

  const start = async (...more: string[]) => {
    const started = await LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1', '--workers', `${WORKERS}`, ...more], {
      env: { REGISTRY_HTTP_DRAINTIMEOUT: '120s' },
    });
    await started.until(() => /msg="all workers serve"/.test(started.stderr));
    return started;
  };
  const auth = () => `admin:${registry.password}`;
  const ca = () => readFileSync(join(dir, 'certs/ca.crt'));
  const workers = () => childrenOf(registry.child.pid!);
  /** Which worker has answered, as its request ids tell. */
  const askedOf = async (path: string, credentials = auth()) => {
    const client = new RegistryClient(registry.port, { ca: ca(), auth: credentials });
    try {
      const { status, headers } = await client.send('GET', path);
      return { status, worker: /^([0-9a-f]{8})-/.exec(headers['x-request-id'] as string)![1]! };
    } finally {
      client.close();
    }
  };
  /** Asks on new connections until every worker has answered: what the last of each said. */
  const everyWorker = async (path: string, credentials?: string) => {
    const said = new Map<string, number>();
    for (let asked = 0; said.size < WORKERS; asked++) {
      assert.ok(asked < 500, `${said.size} of ${WORKERS} workers have answered`);
      const { status, worker } = await askedOf(path, credentials);
      said.set(worker, status);
    }
    return [...said.values()];
  };

  test('all answer on the one port, and the first alone speaks at the start', async () => {
    assert.equal(workers().length, WORKERS);
    assert.deepEqual(await everyWorker('/v2/'), [200, 200]);
    assert.equal(registry.stderr.split('msg=listening').length - 1, 1, registry.stderr);
    const stories = () => registry.stdout.split('docker login -u').length - 1;
    await registry.until(() => stories() > 0);
    assert.equal(stories(), 1, 'the story is told once');
  });

  test('any of them goes on with an upload of any other', async () => {
    const parts = Array.from({ length: 12 }, () => randomBytes(10_000));
    const digest = digestOf(Buffer.concat(parts));
    const server = new Set<string>();
    const send = async (method: string, path: string, body?: Buffer) => {
      // On a connection of its own, each time.
      const client = new RegistryClient(registry.port, { ca: ca(), auth: auth() });
      try {
        const { headers } = await client.must([201, 202], method, path, body && { body });
        server.add(String(headers['x-request-id']).slice(0, 8));
        return headers.location!;
      } finally {
        client.close();
      }
    };
    // The choice is the kernel's: as many uploads as it takes for one that several have served.
    for (let tries = 0; server.size < WORKERS; tries++) {
      assert.ok(tries < 50, 'one worker alone has served them all');
      server.clear();
      let location = await send('POST', '/v2/team/app/blobs/uploads/');
      for (const part of parts) location = await send('PATCH', location, part);
      await send('PUT', `${location}?digest=${digest}`);
    }
    const { status, body } = await registry.call('GET', `/v2/team/app/blobs/${digest}`, { auth: auth() });
    assert.equal(status, 200);
    assert.ok(body.equals(Buffer.concat(parts)));
  });

  test('what one of them is charged with for wrong logins counts for all', async () => {
    // A connection that is kept stays with its worker. Each six seconds forgive one failure.
    const client = new RegistryClient(registry.port, { ca: ca(), auth: 'nobody:wrong' });
    let failures = 0;
    const charged = new Set<string>();
    for (let status = 401; status !== 429; failures++) {
      assert.ok(failures < 100, 'ten failures are free');
      const { headers, ...answer } = await client.send('GET', '/v2/');
      ({ status } = answer);
      charged.add(String(headers['x-request-id']).slice(0, 8));
    }
    client.close();
    assert.ok(failures > 10, `${failures}`);
    assert.equal(charged.size, 1);
    const askedOfOther = async () => {
      for (let tries = 0; tries < 500; tries++) {
        const { status, worker } = await askedOf('/v2/', 'nobody:wrong');
        if (!charged.has(worker)) return status;
      }
      throw new Error('the other worker has not answered');
    };
    // The word may be on its way. The other is asked less often than it takes to be charged with as much by itself.
    for (let pause = 100; (await askedOfOther()) !== 429; pause *= 2) {
      assert.ok(pause < 10_000, 'the other has heard nothing of it');
      await new Promise(resolve => setTimeout(resolve, pause));
    }
    assert.deepEqual(await everyWorker('/v2/'), [200, 200], 'others are let in');
  });

  test('a user who is removed is refused by all', async () => {
    const add = await LocalRegistry.run(dir, ['user', 'add', 'bob', '--password-stdin'], { input: 'a word of bob' });
    assert.equal(add.status, 0, add.stderr);
    const all =
      (...statuses: number[]) =>
      async () =>
        (await everyWorker('/v2/', 'bob:a word of bob')).every(said => statuses.includes(said));
    await registry.until(all(200));
    const removed = await LocalRegistry.run(dir, ['user', 'remove', 'bob']);
    assert.equal(removed.status, 0, removed.stderr);
    // The one that has read the file first may have put off whoever goes on asking by the time that the other has.
    await registry.until(all(401, 429));
  });

  test('a certificate that is renewed is served by all', async () => {
    const { status, stderr } = await LocalRegistry.run(dir, ['certs', 'renew']);
    assert.equal(status, 0, stderr);
    // The two files of one renewal may be met in two looks.
    const reloads = () =>
      new Set(registry.stderr.match(/msg="reloaded the certificate".*worker=\d/g)?.map(line => line.at(-1)));
    await registry.until(() => reloads().size === WORKERS);
  });

  test('one that is killed is replaced, and what it has answered is there', async () => {
    const acknowledged: string[] = [];
    let running = true;
    let lost = 0;
    const pushing = async (lane: number) => {
      for (let number = 0; running; number++) {
        const client = new RegistryClient(registry.port, { ca: ca(), auth: auth() });
        try {
          const config = randomBytes(1000);
          const repository = `killed/n${lane}-${number}`;
          await client.must(201, 'POST', `/v2/${repository}/blobs/uploads/?digest=${digestOf(config)}`, {
            body: config,
          });
          const headers = { 'content-type': OCI_MANIFEST };
          await client.must(201, 'PUT', `/v2/${repository}/manifests/1`, { body: manifestOf(config, []), headers });
          acknowledged.push(repository);
        } catch (error) {
          if ((error as Error).name !== 'Lost') throw error;
          lost++;
        } finally {
          client.close();
        }
      }
    };
    const lanes = Promise.all([pushing(1), pushing(2), pushing(3)]);
    lanes.catch(() => undefined);
    for (let kill = 0; kill < WORKERS; kill++) {
      const before = workers();
      const [victim] = before.slice(kill % WORKERS);
      process.kill(victim!, 'SIGKILL');
      await registry.until(() => registry.stderr.split('a worker serves in its place').length - 1 > kill);
      assert.equal(workers().length, WORKERS);
    }
    await Promise.race([lanes, registry.until(() => acknowledged.length > 10 + lost)]);
    running = false;
    await lanes;
    for (const repository of acknowledged) {
      const { status } = await registry.call('GET', `/v2/${repository}/manifests/1`, { auth: auth() });
      assert.equal(status, 200, repository);
    }
    assert.doesNotMatch(registry.stderr, /a request failed/);
  });

  test('SIGTERM drains all of them', async () => {
    const clients = Array.from({ length: 8 }, () => new RegistryClient(registry.port, { ca: ca(), auth: auth() }));
    const body = randomBytes(200_000);
    const open = await Promise.all(
      clients.map(async client => {
        const { headers } = await client.must(202, 'POST', '/v2/drained/app/blobs/uploads/');
        return headers.location!;
      }),
    );
    const finished = Promise.all(
      clients.map((client, n) => client.must(201, 'PUT', `${open[n]}?digest=${digestOf(body)}`, { body })),
    );
    registry.child.kill('SIGTERM');
    // Those that had not begun find the door closed; the others end well.
    await finished.catch(error => assert.equal(error.name, 'Lost'));
    assert.equal(await registry.exited, 0, registry.stderr);
    for (const client of clients) client.close();
    assert.doesNotMatch(registry.stderr, /cut off transfers/);
    registry = await start();
  });

  test('without the process that has started them they end', async () => {
    const left = workers();
    process.kill(registry.child.pid!, 'SIGKILL');
    await registry.exited;
    const gone = () => left.every(pid => !existsSync(`/proc/${pid}`));
    for (const deadline = Date.now() + 60_000; !gone(); await new Promise(resolve => setTimeout(resolve, 20)))
      assert.ok(Date.now() < deadline, `${left}`);
    registry = await start();
  });

  test('what keeps the first from serving is said once, with the exit code of a single process', async () => {
    const address = `127.0.0.1:${registry.port}`;
    const { status, stderr } = await LocalRegistry.run(dir, ['serve', '--workers', '3', '--addr', address]);
    assert.equal(status, 1);
    assert.match(stderr, /^registry-secure: port \d+ is in use .*$/m);
    assert.equal(stderr.split('in use').length - 1, 1, stderr);
  });
});

describe('workers that have given up root', {
  skip: process.getuid?.() !== 0 && 'only root can give it up',
}, () => {
  const SERVICE = 65532;
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'workers-root-'));
    // Whom they become must reach its data.
    chmodSync(dir, 0o755);
  });
  after(() => rmSync(dir, { recursive: true }));

  const idsOf = (pid: number) =>
    /^Uid:\t(.*)$/m
      .exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!
      .split('\t')
      .map(Number);

  for (const [what, owner, first] of [
    [
      'a key that only root may read: one process lends root to a replacement, and has no use of it itself',
      0,
      [0, SERVICE, 0, SERVICE],
    ],
    ['a key that the owner of the volume may read: root is gone', SERVICE, [SERVICE, SERVICE, SERVICE, SERVICE]],
  ] as const)
    test(what, async () => {
      const folder = join(dir, `${owner}`);
      mkdirSync(folder);
      const made = await LocalRegistry.run(folder, ['init-certs', '--ip', '127.0.0.1']);
      assert.equal(made.status, 0, made.stderr);
      const [certificate = '', key = ''] = ['domain.crt', 'domain.key'].map(name => join(folder, 'certs', name));
      chownSync(key, owner, owner);
      const pair = ['--certificate', certificate, '--key', key];
      const registry = await LocalRegistry.start(folder, ['up', '--workers', '2', ...pair], {
        env: { REGISTRY_SECURE_USER: 'volume' },
      });
      try {
        await registry.until(() => /msg="all workers serve"/.test(registry.stderr));
        const supervisor = registry.child.pid!;
        assert.deepEqual(idsOf(supervisor), first);
        process.kill(childrenOf(supervisor)[0]!, 'SIGKILL');
        await registry.until(() => /msg="a worker serves in its place"/.test(registry.stderr));
        for (const pid of childrenOf(supervisor)) assert.deepEqual(idsOf(pid), Array(4).fill(SERVICE));
        assert.deepEqual(idsOf(supervisor), first);
        const { status } = await registry.call('GET', '/v2/', { auth: `admin:${registry.password}` });
        assert.equal(status, 200);
      } finally {
        assert.equal(await registry.stop(), 0, registry.stderr);
      }
    });
});

/** Process ids. */
function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
}
