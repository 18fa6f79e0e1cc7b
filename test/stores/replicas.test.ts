import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import bcrypt from 'bcryptjs';
import { S3Driver } from '../../src/storage/s3.js';
import { changeAccount, changed } from '../../src/store/accounts.js';
import { whileAlone } from '../../src/store/collector-lease.js';
import { beginMaintenance, endMaintenance } from '../../src/store/maintenance.js';
import { LocalRegistry } from '../support/local-registry.js';
import { type Answer, RegistryClient } from '../support/registry-client.js';
import { digestOf, manifestOf, OCI_MANIFEST } from '../support/registry-fixture.js';
import { Versitygw } from '../support/versitygw.js';

const REPLICAS = 3;
const PASSWORD = 'a word';
const KILLS = Number(process.env.COUNT ?? 2);
const HOLDER = fileURLToPath(new URL('../support/lease-process.js', import.meta.url));

const POLICY = `rules:
  - {who: [user:alice], may: [push, delete], on: ["**"]}
  - {who: [user:ci], may: [create-only], on: ["**"]}
`;

/** One process of its own machine: it shares nothing with the others but the bucket, and files that are mounted in all. */
interface Replica {
  readonly dir: string;
  process: LocalRegistry;
  /** Of alice. */
  client: RegistryClient;
}

describe('replicas over one bucket', { timeout: 300_000 }, () => {
  let service: Versitygw;
  let bucket: string;
  let dir: string;
  let ca: Buffer;
  let env: Record<string, string>;
  /** What a command on yet another machine uses. */
  let elsewhere: S3Driver;
  const replicas: Replica[] = [];

  before(async () => {
    service = await Versitygw.start();
    bucket = service.makeBucket();
    elsewhere = new S3Driver(service.options(bucket));
    await elsewhere.open();
    dir = mkdtempSync(join(tmpdir(), 'replicas-'));
    const made = await LocalRegistry.run(dir, ['init-certs', '--dir', dir, '--ip', '127.0.0.1']);
    assert.equal(made.status, 0, made.stderr);
    ca = readFileSync(join(dir, 'certs/ca.crt'));
    mount({ htpasswd: users('alice', 'ci'), 'policy.yml': POLICY });
    const mounted = (name: string) => join(dir, 'mounted', name);
    env = {
      REGISTRY_STORAGE: 's3',
      REGISTRY_STORAGE_S3_BUCKET: bucket,
      REGISTRY_STORAGE_S3_REGION: 'us-east-1',
      REGISTRY_STORAGE_S3_REGIONENDPOINT: service.endpoint,
      REGISTRY_STORAGE_S3_ACCESSKEY: Versitygw.credentials.accessKeyId,
      REGISTRY_STORAGE_S3_SECRETKEY: Versitygw.credentials.secretAccessKey,
      REGISTRY_STORAGE_DELETE_ENABLED: 'true',
      // A minute after its start one of them would hold the lease of collectors for a while.
      REGISTRY_STORAGE_MAINTENANCE_GC_ENABLED: 'false',
      REGISTRY_STORAGE_TAG_IMMUTABLE: '[{repositories: [frozen], tags: ["*"]}]',
      REGISTRY_HTTP_TLS_CERTIFICATE: mounted('domain.crt'),
      REGISTRY_HTTP_TLS_KEY: mounted('domain.key'),
      REGISTRY_AUTH_HTPASSWD_PATH: mounted('htpasswd'),
      REGISTRY_ACCESS_POLICY: mounted('policy.yml'),
    };
    replicas.push(...(await Promise.all(Array.from({ length: REPLICAS }, (_, n) => start(`machine${n}`)))));
  });
  after(async () => {
    for (const { process, client } of replicas) {
      client.close();
      await process.stop();
    }
    await elsewhere?.close();
    await service?.stop();
    if (dir) rmSync(dir, { recursive: true });
  });

  const users = (...names: string[]) => names.map(name => `${name}:${bcrypt.hashSync(PASSWORD, 4)}\n`).join('');

  let versions = 0;
  /** Replaces what is mounted in all of them at once, as Kubernetes does: by another link. */
  function mount(files: Readonly<Record<string, string>>): void {
    const at = join(dir, 'mounted');
    const version = `..${++versions}`;
    mkdirSync(join(at, version), { recursive: true });
    if (versions > 1)
      for (const name of ['htpasswd', 'policy.yml']) copyFileSync(join(at, name), join(at, version, name));
    for (const name of ['domain.crt', 'domain.key']) copyFileSync(join(dir, 'certs', name), join(at, version, name));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(at, version, name), text, { mode: 0o600 });
    symlinkSync(version, join(at, '..new'));
    renameSync(join(at, '..new'), join(at, '..data'));
    if (versions === 1)
      for (const name of ['domain.crt', 'domain.key', 'htpasswd', 'policy.yml'])
        symlinkSync(join('..data', name), join(at, name));
  }

  async function start(name: string): Promise<Replica> {
    const own = join(dir, name);
    mkdirSync(own, { recursive: true });
    const process = await LocalRegistry.start(own, ['serve', '--dir', own], { env: environment(own) });
    return { dir: own, process, client: as('alice', process) };
  }

  /** The audit log of each machine has its seals there too: no other has the files that those in the bucket would tell of. */
  const environment = (own: string) => ({ ...env, REGISTRY_AUDIT_HEAD: join(own, 'seals') });

  const as = (user: string, { port }: LocalRegistry) => new RegistryClient(port, { ca, auth: `${user}:${PASSWORD}` });

  async function kill(replica: Replica): Promise<void> {
    await replica.process.stop('SIGKILL');
    replica.client.close();
  }

  async function revive(replica: Replica): Promise<void> {
    Object.assign(replica, await start(replica.dir.split('/').at(-1)!));
  }

  /** A command on one of the machines. */
  async function command(replica: Replica, ...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await LocalRegistry.run(replica.dir, [...args, '--dir', replica.dir], {
      env: environment(replica.dir),
    });
    assert.equal(status, 0, stderr);
    return stdout;
  }

  const everywhere = (ask: (replica: Replica) => Promise<Answer>) => Promise.all(replicas.map(ask));
  const statusEverywhere = async (ask: (replica: Replica) => Promise<Answer>) =>
    (await everywhere(ask)).map(({ status }) => status);

  /** Until all of them answer so, which is what clients see within a second or two. */
  async function until(status: number, ask: (replica: Replica) => Promise<Answer>): Promise<void> {
    const isSo = async (replica: Replica): Promise<boolean> => {
      if ((await ask(replica)).status === status) return true;
      // Each refused login counts, and only ten are free.
      await pause(200);
      return false;
    };
    await Promise.all(replicas.map(replica => replica.process.until(() => isSo(replica))));
  }

  const headers = { 'content-type': OCI_MANIFEST };

  async function pushManifest(client: RegistryClient, path: string): Promise<{ answer: Answer; data: Buffer }> {
    const config = randomBytes(100);
    const repository = path.split('/manifests/')[0]!;
    await client.must(201, 'POST', `${repository}/blobs/uploads/?digest=${digestOf(config)}`, { body: config });
    const data = manifestOf(config, []);
    return { answer: await client.send('PUT', path, { headers, body: data }), data };
  }

  test('any of them serves any request of a push', async () => {
    const [a, b, c] = replicas.map(({ client }) => client) as [RegistryClient, RegistryClient, RegistryClient];
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const parts = [randomBytes(300_000), randomBytes(10), randomBytes(6_000_000)];
      const digest = digestOf(Buffer.concat(parts), algorithm);
      const { location } = (await a.must(202, 'POST', '/v2/team/app/blobs/uploads/')).headers;
      for (const [at, client] of [b, c, b].entries()) await client.must(202, 'PATCH', location!, { body: parts[at]! });
      assert.equal((await c.must(204, 'GET', location!)).headers.range, '0-6300009');
      await a.must(201, 'PUT', `${location}?digest=${digest}`);
      for (const { status, body } of await everywhere(({ client }) =>
        client.send('GET', `/v2/team/app/blobs/${digest}`),
      ))
        assert.ok(status === 200 && body.equals(Buffer.concat(parts)));
    }
  });

  test(`a push whose replica dies in or after a PATCH is finished by another, ${KILLS} times`, async () => {
    for (let n = 0; n < KILLS; n++) {
      const [one, other] = [replicas[n % REPLICAS]!, replicas[(n + 1) % REPLICAS]!];
      const data = randomBytes(7_000_000);
      const { location } = (await one.client.must(202, 'POST', '/v2/team/killed/blobs/uploads/')).headers;
      await one.client.must(202, 'PATCH', location!, { body: data.subarray(0, 1_000_000) });
      // The next one it does not live to see the end of.
      const request = https.request({
        ...{ host: '127.0.0.1', port: one.process.port, method: 'PATCH', path: location!, ca },
        ...{ auth: `alice:${PASSWORD}`, headers: { 'content-length': 6_000_000 }, agent: false },
      });
      const broken = once(request, 'error');
      request.write(data.subarray(1_000_000, 6_500_000));
      if (n % 2 === 0) await new Promise(resolve => setTimeout(resolve, 20 * n));
      await kill(one);
      await broken;
      const { range } = (await other.client.must(204, 'GET', location!)).headers;
      assert.equal(range, '0-999999', 'what was acknowledged');
      await other.client.must(202, 'PATCH', location!, {
        headers: { 'content-range': `1000000-${data.length - 1}` },
        body: data.subarray(1_000_000),
      });
      await other.client.must(201, 'PUT', `${location}?digest=${digestOf(data)}`);
      const told = 'msg="read an upload again for its digest" repository=team/killed bytes=7000000 times=';
      await other.process.until(() => other.process.stderr.includes(told));
      const { body } = await other.client.must(200, 'GET', `/v2/team/killed/blobs/${digestOf(data)}`);
      assert.ok(body.equals(data));
      await revive(one);
    }
  });

  test('the last push of a tag is what all of them have; of pushes at once, one', async () => {
    const path = '/v2/team/app/manifests/moving';
    const found = async () => {
      const bodies = (await everywhere(({ client }) => client.must(200, 'GET', path))).map(({ body }) =>
        digestOf(body),
      );
      assert.equal(new Set(bodies).size, 1, 'all say the same');
      return bodies[0];
    };
    for (const { client } of replicas) {
      const { answer, data } = await pushManifest(client, path);
      assert.equal(answer.status, 201);
      assert.equal(await found(), digestOf(data));
    }
    for (let round = 0; round < 3; round++) {
      const pushed = await Promise.all(replicas.map(({ client }) => pushManifest(client, path)));
      assert.ok(pushed.every(({ answer }) => answer.status === 201));
      assert.ok(pushed.map(({ data }) => digestOf(data)).includes((await found()) as never));
    }
  });

  test('of pushes at once of a tag that cannot change, one is taken: immutable tags, and for who may only make them', async () => {
    for (const [user, repository] of [
      ['alice', 'frozen'],
      ['ci', 'made'],
    ] as const) {
      const clients = replicas.map(({ process }) => as(user, process));
      for (let round = 0; round < 3; round++) {
        const path = `/v2/${repository}/manifests/v${round}`;
        const pushed = await Promise.all([...clients, ...clients].map(client => pushManifest(client, path)));
        const taken = pushed.filter(({ answer }) => answer.status === 201);
        assert.deepEqual(
          pushed.map(({ answer }) => answer.status).sort(),
          [201, ...Array(2 * REPLICAS - 1).fill(403)],
          `${repository}: ${pushed.map(({ answer }) => answer.body)}`,
        );
        for (const { body } of await everywhere(({ client }) => client.must(200, 'GET', path)))
          assert.ok(body.equals(taken[0]!.data));
      }
      for (const client of clients) client.close();
    }
  });

  test('a token that one gives is good in all; tokens of machines and accounts count in all as they change', async () => {
    const { body } = await replicas[0]!.client.must(200, 'GET', '/token?service=registry-secure');
    const { token } = JSON.parse(body.toString()) as { token: string };
    const bearer = { headers: { authorization: `Bearer ${token}` } };
    assert.deepEqual(
      await statusEverywhere(({ client }) => client.send('GET', '/v2/_catalog', bearer)),
      [200, 200, 200],
    );

    const created = await command(replicas[1]!, 'token', 'create', '--user', 'ci', '--allow', 'pull:**', '--json');
    const machine = JSON.parse(created) as { id: string; token: string };
    const clients = replicas.map(
      ({ process }) => new RegistryClient(process.port, { ca, auth: `ci:${machine.token}` }),
    );
    const ask = (replica: Replica) => clients[replicas.indexOf(replica)]!.send('GET', '/v2/');
    assert.deepEqual(await statusEverywhere(ask), [200, 200, 200]);
    await command(replicas[2]!, 'token', 'revoke', machine.id);
    await until(401, ask);
    for (const client of clients) client.close();

    const asAlice = ({ client }: Replica) => client.send('GET', '/v2/');
    await changeAccount(elsewhere, 'alice', changed({ disabled: true }));
    await until(401, asAlice);
    await changeAccount(elsewhere, 'alice', changed({ disabled: false }));
    await until(200, asAlice);
  });

  test('users, policy and certificate that are mounted in all are read again by all', async () => {
    const asBob = ({ process }: Replica) => {
      const client = as('bob', process);
      return client.send('POST', '/v2/team/bob/blobs/uploads/').finally(() => client.close());
    };
    assert.deepEqual(await statusEverywhere(asBob), [401, 401, 401]);
    mount({ htpasswd: users('alice', 'ci', 'bob') });
    await until(403, asBob);
    mount({ 'policy.yml': POLICY.replace('user:alice', 'user:alice, user:bob') });
    await until(202, asBob);
    mount({ htpasswd: users('alice', 'ci') });
    await until(401, asBob);

    const serials = () =>
      Promise.all(
        replicas.map(async ({ process: { port } }) => {
          const socket = connect({ host: '127.0.0.1', port, ca });
          await once(socket, 'secureConnect');
          const { serialNumber } = socket.getPeerCertificate();
          socket.destroy();
          return serialNumber;
        }),
      );
    const before = new Set(await serials());
    const { status, stderr } = await LocalRegistry.run(dir, ['certs', 'renew', '--dir', dir]);
    assert.equal(status, 0, stderr);
    mount({});
    await replicas[0]!.process.until(async () => {
      const after = new Set(await serials());
      return after.size === 1 && before.size === 1 && !before.has([...after][0]!);
    });
  });

  test('each machine verifies its own audit log', async () => {
    assert.match(await command(replicas[1]!, 'audit', 'verify'), /all as it was written/);
  });

  test('maintenance that begins on one machine makes all of them read-only', async () => {
    const ask = ({ client }: Replica) => client.send('POST', '/v2/team/app/blobs/uploads/');
    await beginMaintenance(elsewhere, undefined);
    await until(405, ask);
    await endMaintenance(elsewhere);
    await until(202, ask);
  });

  test('one collector runs at a time, by a lease in the bucket that outlives no dead holder for long', async () => {
    const holder = spawn(process.execPath, [HOLDER], {
      env: { OPTIONS: JSON.stringify(service.options(bucket)) },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [said] = await once(holder.stdout, 'data');
    assert.equal(String(said), 'holding\n');
    let runs = 0;
    const run = () => whileAlone(elsewhere, async () => ++runs);
    assert.equal(await run(), undefined, 'another one has it');
    holder.kill('SIGKILL');
    await once(holder, 'close');
    assert.equal(await run(), undefined, 'nobody can know yet that it is dead');
    // Ten minutes later.
    const past = new Date(Date.now() - 11 * 60_000);
    utimesSync(join(service.dir, 'data', bucket, 'registry-secure/collector'), past, past);
    assert.equal(await run(), 1);
    assert.equal(await run(), 2, 'the lease is given back');
  });
});
