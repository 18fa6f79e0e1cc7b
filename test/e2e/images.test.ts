import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { requireTools } from '../support/process.js';
import { program, Registry } from '../support/registry.js';

describe('images between Docker and storage, with no registry running', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let docker: Docker;
  let podman: Podman;
  let env: Record<string, string>;
  let id: string;

  before(async () => {
    requireTools('versitygw');
    namespace = await Namespace.create();
    docker = await Docker.start(namespace);
    podman = new Podman(namespace);
    const objects = join(namespace.dir, 'objects');
    mkdirSync(join(objects, 'ops-goodies'), { recursive: true });
    const keys = { ROOT_ACCESS_KEY: 'test', ROOT_SECRET_KEY: 'testsecret' };
    const gateway = ['versitygw', '-q', '--port', '127.0.0.1:7070', 'posix', objects];
    await namespace.start('versitygw', gateway, { env: keys }).ready(() => namespace.answers('http://127.0.0.1:7070/'));
    env = {
      DOCKER_HOST: `unix://${join(docker.dir, 's')}`,
      REGISTRY_STORAGE_S3_ACCESSKEY: 'test',
      REGISTRY_STORAGE_S3_SECRETKEY: 'testsecret',
    };
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [3_000_000, 10_000, 0]);
    await docker.build(folder, 'hipache');
    id = await docker.imageId('hipache');
  });
  after(() => namespace?.close());

  const image = (...args: string[]) => namespace.must(program('image', ...args), { env });
  const copy = (...args: string[]) => namespace.must(program('copy', ...args), { env });
  const bucket = (rest = '') =>
    `s3://ops-goodies/docker-repo?region=us-east-1&regionendpoint=http://127.0.0.1:7070${rest}`;
  const forget = () => docker.must(['image', 'rm', '-f', 'hipache']);

  test('an image is pushed to a bucket, listed, and pulled back as the same image', async () => {
    assert.match(
      await image('push', 'hipache', bucket()),
      /^hipache:latest: copied \(2\.\d+ MiB\)\n1 new, .* 4 layers copied/,
    );
    assert.match(await image('push', 'hipache', bucket()), /^0 new, 0 moved, 1 the same/);
    assert.match(await image('list', bucket()), /^hipache:latest {2}sha256:[0-9a-f]{12} {2}2\.\d+ MiB\n$/);
    await forget();
    assert.match(await image('pull', 'hipache', bucket()), /^hipache:latest: copied/);
    assert.equal(await docker.imageId('hipache'), id);
    assert.match(await image('pull', 'hipache', bucket()), /^0 new, 0 moved, 1 the same/);
    // One more layer on top of what the Engine and the bucket have.
    const more = join(namespace.dir, 'more');
    writeBuildFolder(more, [20_000]);
    writeFileSync(join(more, 'Dockerfile'), 'FROM hipache\nCOPY layer0 /more\n');
    await docker.build(more, 'more:v1');
    const ofMore = await docker.imageId('more:v1');
    assert.match(await image('push', 'more:v1', bucket()), /2 layers copied \(\d+\.\d+ KiB\), 3 mounted/);
    await docker.must(['image', 'rm', '-f', 'more:v1']);
    await image('pull', 'more:v1', bucket());
    assert.equal(await docker.imageId('more:v1'), ofMore);
  });

  test('what it has written to a folder is served at once, and what docker pushes there is pulled from it', async () => {
    await docker.must(['tag', 'hipache', 'other.example.com:5000/team/app:v1']);
    await image('push', 'other.example.com:5000/team/app:v1', './data');
    const host = '127.0.0.1:5000';
    const up = ['up', '--addr', host, '--ip', '127.0.0.1', '--user', 'alice', '--password-stdin'];
    const data = { REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(namespace.dir, 'data') };
    await Registry.start(namespace, up, { host, input: 'correct horse\n', env: data });
    await docker.must(['login', '-u', 'alice', '--password-stdin', host], { input: 'correct horse' });
    await docker.must(['pull', '-q', `${host}/team/app:v1`]);
    assert.equal(await docker.imageId(`${host}/team/app:v1`), id);
    await docker.must(['tag', 'hipache', `${host}/team/app:v2`]);
    await docker.must(['push', '-q', `${host}/team/app:v2`]);
    await image('pull', 'team/app:v2', './data');
    assert.equal(await docker.imageId('team/app:v2'), id);
  });

  test('docker, podman and skopeo read the archive, and what they save is read', async () => {
    await image('push', 'hipache', './ours.tar');
    await forget();
    assert.match(await docker.must(['load', '-i', 'ours.tar']), /Loaded image: hipache:latest/);
    assert.equal(await docker.imageId('hipache'), id);
    assert.match(await podman.must('podman', ['load', '-i', 'ours.tar']), /hipache:latest/);
    assert.equal(
      `sha256:${(await podman.must('podman', ['image', 'inspect', '--format', '{{.Id}}', 'docker.io/library/hipache:latest'])).trim()}`,
      id,
    );
    for (const format of ['docker-archive', 'oci-archive']) {
      await podman.must('podman', [
        'save',
        '-q',
        '--format',
        format,
        '-o',
        `${format}.tar`,
        'docker.io/library/hipache:latest',
      ]);
      await copy(`./${format}.tar`, `./again#${format}:v1`);
    }
    await docker.must(['save', '-o', 'theirs.tar', 'hipache']);
    await copy('./theirs.tar', './again');
    execFileSync('gzip', ['-k', join(namespace.dir, 'theirs.tar')]);
    await copy('./theirs.tar.gz', './again#gz:v1');
    const list = JSON.parse(await image('list', './again', '--json')).images as Array<{ name: string; digest: string }>;
    assert.deepEqual(
      list.map(({ name }) => name),
      ['docker-archive:v1', 'gz:v1', 'hipache:latest', 'oci-archive:v1'],
    );
    assert.equal(list[1]!.digest, list[2]!.digest);
    await image('pull', 'oci-archive:v1', './again');
    assert.ok(await docker.imageId('oci-archive:v1'));
  });

  test('skopeo and podman read the layout', async () => {
    await copy('docker-daemon:hipache', 'oci:layout');
    await copy('docker-daemon:hipache', 'oci:layout#team/app:v1');
    assert.ok(readFileSync(join(namespace.dir, 'layout/oci-layout')));
    await podman.must('skopeo', ['inspect', 'oci:layout:team/app:v1']);
    await podman.must('skopeo', ['copy', '-q', 'oci:layout:hipache:latest', 'dir:copied']);
    await podman.must('podman', ['pull', '-q', 'oci:layout:team/app:v1']);
    await podman.must('skopeo', ['copy', '-q', 'oci:layout:team/app:v1', 'oci:foreign:one']);
    await copy('./foreign', 'docker-daemon:foreign:one');
    assert.equal(await docker.imageId('foreign:one'), id);
  });
});
