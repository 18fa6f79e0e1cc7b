import assert from 'node:assert/strict';
import { appendFileSync, copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Ceph } from '../support/ceph.js';
import { CHECKOUT } from '../support/checkout.js';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { requireTools } from '../support/process.js';
import { startNginx } from '../support/proxy.js';
import { Random } from '../support/random.js';
import { program, Registry } from '../support/registry.js';
import { S3Service } from '../support/s3-service.js';
import { gateway } from '../support/versitygw.js';

/** How many pushes there are at least, a replica being killed beside each; it goes on until one was killed during a push. */
const COUNT = Number(process.env.COUNT ?? 4);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const REPLICAS = 3;

const HOST = 'registry.example.com';
const BUCKET = 'images';
const PASSWORD = 'a word';

/** What starts a service in a namespace, with that bucket in it. @returns its port */
const SERVICES: Readonly<Record<string, (namespace: Namespace) => Promise<number>>> = {
  versitygw: async namespace => {
    requireTools('versitygw');
    const data = join(namespace.dir, 'data');
    mkdirSync(join(data, BUCKET), { recursive: true });
    const { argv, env } = gateway(7070, data);
    await namespace.start('versitygw', argv, { env }).ready(() => namespace.answers('http://127.0.0.1:7070/'));
    return 7070;
  },
  ...(process.env.CEPH_TEST && {
    Ceph: async (namespace: Namespace) => {
      const { port } = await Ceph.start(namespace);
      const { accessKeyId, secretAccessKey } = S3Service.credentials;
      const signed = [
        ...['--aws-sigv4', 'aws:amz:us-east-1:s3', '--user', `${accessKeyId}:${secretAccessKey}`],
        ...['-H', 'x-amz-content-sha256: UNSIGNED-PAYLOAD'],
      ];
      await namespace.must(['curl', '-sfX', 'PUT', ...signed, `http://127.0.0.1:${port}/${BUCKET}`]);
      return port;
    },
  }),
};

for (const [name, start] of Object.entries(SERVICES))
  describe(
    `replicas over a bucket of ${name}, behind nginx, by the recipe of docs/scale.md`,
    { timeout: 3_600_000 },
    () => testReplicas(start),
  );

function testReplicas(startService: (namespace: Namespace) => Promise<number>): void {
  let namespace: Namespace;
  let port: number;
  let docker: Docker;
  const replicas: Registry[] = [];

  before(async () => {
    requireTools('nginx', 'docker', 'htpasswd');
    namespace = await Namespace.create();
    const names = Array.from({ length: REPLICAS }, (_, n) => `127.0.0.1${n + 1} replica${n + 1}.lan\n`);
    appendFileSync(join(namespace.dir, 'etc/hosts'), `${namespace.ip} ${HOST}\n${names.join('')}`);
    await namespace.must(program('init-certs', '--dir', namespace.dir, '--dns', HOST));
    await namespace.must(['htpasswd', '-ciB', join(namespace.dir, 'htpasswd'), 'alice'], { input: PASSWORD });
    for (const folder of ['nginx', `docker/certs.d/${HOST}`]) {
      mkdirSync(join(namespace.dir, 'etc', folder), { recursive: true });
      copyFileSync(join(namespace.dir, 'certs/ca.crt'), join(namespace.dir, 'etc', folder, 'ca.crt'));
    }
    for (const name of ['domain.crt', 'domain.key'])
      copyFileSync(join(namespace.dir, 'certs', name), join(namespace.dir, 'etc/nginx', name));
    port = await startService(namespace);
    const [started] = await Promise.all([
      Promise.all(Array.from({ length: REPLICAS }, (_, n) => start(n))),
      Docker.start(namespace).then(started => {
        docker = started;
      }),
    ]);
    replicas.push(...started);
    const [, recipe] = /^```nginx\n([\s\S]*?)^```$/m.exec(readFileSync(join(CHECKOUT, 'docs/scale.md'), 'utf8'))!;
    await startNginx(namespace, recipe!);
    await docker.must(['login', '-u', 'alice', '--password-stdin', HOST], { input: PASSWORD });
  });
  after(() => namespace?.close());

  const env = () => ({
    REGISTRY_STORAGE: 's3',
    REGISTRY_STORAGE_S3_BUCKET: BUCKET,
    REGISTRY_STORAGE_S3_REGIONENDPOINT: `http://127.0.0.1:${port}`,
    REGISTRY_STORAGE_S3_ACCESSKEY: S3Service.credentials.accessKeyId,
    REGISTRY_STORAGE_S3_SECRETKEY: S3Service.credentials.secretAccessKey,
    REGISTRY_HTTP_TLS_CERTIFICATE: join(namespace.dir, 'certs/domain.crt'),
    REGISTRY_HTTP_TLS_KEY: join(namespace.dir, 'certs/domain.key'),
    REGISTRY_AUTH_HTPASSWD_PATH: join(namespace.dir, 'htpasswd'),
    REGISTRY_HTTP_PROXIES_ADDRESSES: '127.0.0.0/8',
  });

  function start(n: number): Promise<Registry> {
    const host = `replica${n + 1}.lan:5000`;
    const args = ['serve', '--dir', '.', '--addr', `127.0.0.1${n + 1}:5000`];
    return Registry.start(namespace, args, { name: `replica${n + 1}`, host, env: env() });
  }

  test(`docker's pushes succeed, ${COUNT} times and more, while a replica is killed; no image is lost`, async t => {
    t.diagnostic(`SEED=${SEED} repeats the choices`);
    const random = new Random(SEED);
    const images: Array<{ name: string; id: string }> = [];
    const figures = { pushes: 0, during: 0, again: 0, milliseconds: 0 };
    for (let n = 0; n < COUNT || figures.during === 0; n++) {
      const name = `${HOST}/team/app:${n}`;
      const folder = join(namespace.dir, 'build');
      writeBuildFolder(folder, [random.between(1, 12_000_000), 2_000_000, 100]);
      await docker.build(folder, name);
      images.push({ name, id: await docker.imageId(name) });
      const started = performance.now();
      let ended = false;
      // docker tries layers again by itself, but not the config: then its user does.
      const push = () => docker.must(['push', '-q', name]);
      const pushing = push()
        .catch(error => {
          if (!/unexpected HTTP status: 502/.test((error as Error).message)) throw error;
          figures.again++;
          return push();
        })
        .finally(() => {
          ended = true;
        });
      const killing = pause(random.between(0, 800)).then(async () => {
        if (!ended) figures.during++;
        const which = random.between(0, REPLICAS - 1);
        await replicas[which]!.daemon.stop('SIGKILL');
        replicas[which] = await start(which);
      });
      await Promise.all([pushing, killing]);
      figures.pushes++;
      figures.milliseconds += Math.round(performance.now() - started);
    }
    assert.ok(figures.again <= 1 + COUNT / 10, `${figures.again} pushes were needed twice`);
    // Every byte in the bucket, and what clients are given.
    const report = JSON.parse(
      await namespace.must([...program('verify', '--json', '--dir', namespace.dir)], { env: env() }),
    );
    assert.deepEqual([report.clean, report.tags], [true, images.length]);
    for (const { name, id } of images) {
      await docker.must(['image', 'rm', name]);
      if (images.length > 10 && !random.chance(10 / images.length)) continue;
      await docker.must(['pull', '-q', name]);
      assert.equal(await docker.imageId(name), id);
    }
    t.diagnostic(JSON.stringify(figures));
  });
}
