import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { OperatorError } from '../../src/errors.js';
import type { AzureOptions } from '../../src/storage/azure/options.js';
import type { ObjectDriver } from '../../src/storage/object.js';
import { isUnavailable, Opening } from '../storage/opening.js';
import { serveByVariables } from '../storage/serving.js';
import { Azurite } from '../support/azurite.js';
import { ChangingProxy } from '../support/changing-proxy.js';
import { Entra } from '../support/entra.js';
import { selfSigned } from '../support/pair.js';
import { digestOf, manifestOf, RegistryFixture } from '../support/registry-fixture.js';

const WRONG_KEY = Buffer.from('wrong-secret').toString('base64');

describe('a container', { timeout: 240_000 }, () => {
  const at = new Opening(() => Azurite.start(), new RegExp(`wrong-secret|${WRONG_KEY}`));

  const connect = (options: AzureOptions, more: { readOnly?: boolean } = {}): ObjectDriver =>
    at.closing(at.service.driver(options, more));

  type More = Parameters<Azurite['options']>[1];
  const refused = (what: string, more: () => More, message: RegExp, fix: RegExp) =>
    at.refuses(what, async () => connect(at.service.options(await at.service.makeContainer(), more())), message, fix);

  refused(
    'a wrong key',
    () => ({ login: { key: WRONG_KEY } }),
    /refuses the account key/,
    /storage\.azure\.accountkey/,
  );
  refused(
    'the name of no container',
    () => ({ container: 'none' }),
    /there is no container none at/,
    /^make it \(az storage container create/,
  );
  refused('a port where nobody listens', () => ({ endpoint: 'http://127.0.0.1:1' }), /ECONNREFUSED/, /serviceurl/);
  refused(
    'a clock that is wrong',
    () => {
      at.proxy.skew = 600_000;
      return { endpoint: at.proxy.endpoint };
    },
    /lie 10 minutes apart/,
    /set the clock/,
  );

  at.testFormat(async () => {
    const options = at.service.options(await at.service.makeContainer());
    return () => at.service.driver(options);
  });

  test('refuses what is asked of a blob that somebody has leased', async () => {
    const container = await at.service.makeContainer();
    const driver = connect(at.service.options(container));
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    await at.service.client(container).getBlobClient('docker/x').getBlobLeaseClient().acquireLease(60);
    const failure = { name: 'StorageError', kind: 'unavailable', message: /LeaseIdMissing.*HTTP 412/ };
    await assert.rejects(driver.write('docker/x', Buffer.from('y')), failure);
    await assert.rejects(driver.touch('docker/x'), failure);
    await assert.rejects(driver.remove('docker/x'), failure);
    assert.equal((await driver.get('docker/x'))?.toString(), 'x');
  });

  test('is not written to where it is to be read only', async () => {
    const container = await at.service.makeContainer();
    const reader = connect(at.service.options(container), { readOnly: true });
    await reader.open();
    await assert.rejects(reader.write('docker/x', Buffer.from('y')), { name: 'StorageError' });
    const { value } = await at.service.client(container).listBlobsFlat().byPage().next();
    assert.deepEqual(value.segment.blobItems, []);
  });

  test('of registry:2 is served as it is: its names begin with a slash, and its blobs are appended to', async () => {
    const container = await at.service.makeContainer();
    const [layer, config] = [Buffer.from('layer'), Buffer.from('{"os":"linux","architecture":"amd64"}')];
    const manifest = manifestOf(config, [layer]);
    const put = async (path: string, data: Buffer, append: boolean) => {
      const name = `/docker/registry/v2/${path}`;
      if (!append) return at.service.client(container).uploadBlockBlob(name, data, data.length);
      const blob = at.service.client(container).getAppendBlobClient(name);
      await blob.create();
      return blob.appendBlock(data, data.length);
    };
    const hex = (data: Buffer) => digestOf(data).slice('sha256:'.length);
    for (const data of [layer, config, manifest])
      await put(`blobs/sha256/${hex(data).slice(0, 2)}/${hex(data)}/data`, data, data !== manifest);
    for (const data of [layer, config])
      await put(`repositories/a/b/_layers/sha256/${hex(data)}/link`, Buffer.from(digestOf(data)), false);
    const revisions = `repositories/a/b/_manifests`;
    for (const link of [`revisions/sha256/${hex(manifest)}`, 'tags/1/current', `tags/1/index/sha256/${hex(manifest)}`])
      await put(`${revisions}/${link}/link`, Buffer.from(digestOf(manifest)), false);

    const registry = await RegistryFixture.start({ driver: connect(at.service.options(container)) });
    assert.ok((await registry.call('GET', '/v2/a/b/manifests/1')).body.equals(manifest));
    for (const blob of [layer, config])
      assert.ok((await registry.call('GET', `/v2/a/b/blobs/${digestOf(blob)}`)).body.equals(blob));
    assert.deepEqual((await registry.call('GET', '/v2/_catalog')).json(), { repositories: ['a/b'] });
    await registry.driver.assemble([], `docker/registry/v2/blobs/sha256/${hex(layer).slice(0, 2)}/${hex(layer)}/data`);
    await registry.pushBlob('a/b', layer);
    const pushed = await registry.pushImage('a/b', '2');
    await registry.stop();
    const names: string[] = [];
    for await (const { name } of at.service.client(container).listBlobsFlat()) names.push(name);
    assert.deepEqual(
      names.filter(name => !name.startsWith('/')),
      [],
    );
    assert.ok(names.some(name => name.includes(pushed.layer.slice('sha256:'.length))));
  });

  test('keeps a blob of any kind whose bytes are pushed again, and mends one that is corrupt', async () => {
    const container = await at.service.makeContainer();
    const driver = connect(at.service.options(container));
    await driver.open();
    const writer = await driver.createSegment('docker/1');
    await writer.write(Buffer.from('good'));
    await writer.close();
    const push = () => driver.assemble(['docker/1'], 'docker/data');
    for (const [content, isKept] of [
      ['good', true],
      ['evil', false],
    ] as const) {
      await at.service
        .client(container)
        .deleteBlob('docker/data')
        .catch(() => undefined);
      const appended = at.service.client(container).getAppendBlobClient('docker/data');
      await appended.create();
      await appended.appendBlock(content, content.length);
      await push();
      const { blobType } = await appended.getProperties();
      assert.equal(blobType, isKept ? 'AppendBlob' : 'BlockBlob');
      assert.equal((await driver.get('docker/data'))?.toString(), 'good');
    }
    const { CopyBlob: copies } = Object.fromEntries(driver.requests);
    await push();
    assert.equal(Object.fromEntries(driver.requests).CopyBlob, copies, 'a good one is not copied onto');
    await driver.write('docker/data', Buffer.from('evil'));
    await push();
    assert.equal((await driver.get('docker/data'))?.toString(), 'good');
  });

  test('bears what the service does and azurite does not: copies that go on, and kinds that cannot be replaced', async () => {
    const container = await at.service.makeContainer();
    let other = false;
    let pending = 0;
    let failed = false;
    const front = http.createServer((request, response) => {
      const { method, url = '', headers } = request;
      const isBlob = url.includes('/docker/data') || url.includes('/docker%2Fdata');
      if (other && isBlob && method === 'PUT' && 'x-ms-copy-source' in headers) {
        request.resume();
        response.writeHead(409, { 'x-ms-error-code': 'InvalidBlobType' }).end();
        return;
      }
      const onward = http.request({ host: '127.0.0.1', port: at.service.port, method, path: url, headers }, answer => {
        if (isBlob && method === 'DELETE') other = false;
        const isCopy = isBlob && answer.headers['x-ms-copy-status'] !== undefined;
        const isPending = isCopy && pending-- > 0;
        response.writeHead(answer.statusCode!, {
          ...answer.headers,
          ...(isPending && { 'x-ms-copy-status': 'pending' }),
          ...(isCopy && failed && { 'x-ms-copy-status': 'failed' }),
        });
        answer.pipe(response);
      });
      onward.once('error', () => response.destroy());
      request.pipe(onward);
    });
    await new Promise<void>(resolve => front.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(front.address() as AddressInfo).port}`;
    const driver = connect(at.service.options(container, { endpoint }));
    await driver.open();
    const writer = await driver.createSegment('docker/1');
    await writer.write(Buffer.from('good'));
    await writer.close();
    const push = () => driver.assemble(['docker/1'], 'docker/data');
    pending = 3;
    await push();
    assert.ok(pending <= 0, 'it was waited for');
    pending = 1;
    await assert.rejects(driver.stat('docker/data'), { name: 'StorageError', kind: 'unavailable' });
    pending = 0;
    assert.equal((await driver.get('docker/data'))?.toString(), 'good');

    failed = true;
    assert.equal(await driver.get('docker/data'), undefined);
    await driver.write('docker/data', Buffer.from('good'));
    assert.equal((await driver.get('docker/data'))?.toString(), 'good', 'what a copy has left is written over');
    failed = false;

    other = true;
    await push();
    assert.equal(other, true, 'the same bytes were not removed');
    await driver.write('docker/data', Buffer.from('evil'));
    await push();
    assert.equal(other, false, 'others were');
    assert.equal((await driver.get('docker/data'))?.toString(), 'good');
    front.closeAllConnections();
    front.close();
  });

  test('keeps to its root', async () => {
    const container = await at.service.makeContainer();
    const driver = connect(at.service.options(container, { root: 'team/images' }));
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    assert.deepEqual(await driver.list('docker'), [{ name: 'x', folder: false }]);
    const names: string[] = [];
    for await (const { name } of at.service.client(container).listBlobsFlat()) names.push(name);
    assert.deepEqual(names, ['team/images/docker/x', 'team/images/registry-secure/format']);
  });

  test('refuses bytes that are not those whose checksum came with them', async () => {
    const changing = await ChangingProxy.start(at.service.port, 1000);
    const { endpoint } = changing;
    const driver = connect(at.service.options(await at.service.makeContainer(), { endpoint }));
    await driver.open();
    const failure = { name: 'StorageError', message: /Md5/i };
    await assert.rejects(driver.write('docker/x', Buffer.alloc(1000)), failure);
    await assert.rejects(driver.create('docker/x', Buffer.alloc(1000)), failure);
    assert.equal(await driver.get('docker/x'), undefined);
    await changing.stop();
  });

  test('whose service dies is answered for with 503 and Retry-After, and served again when it is back', async () => {
    const own = await Azurite.start();
    const registry = await RegistryFixture.start({ driver: own.driver(own.options(await own.makeContainer())) });
    const image = await registry.pushImage('team/app', 'latest');
    await own.kill();
    await isUnavailable(registry, image.layer);
    await own.restart();
    assert.equal((await registry.call('GET', '/v2/team/app/manifests/latest')).status, 503, 'its container is gone');
    await own.client('container-1').create();
    await registry.pushImage('team/app', 'latest');
    assert.equal((await registry.call('GET', '/v2/team/app/manifests/latest')).status, 200);
    await registry.stop();
    await own.stop();
  });

  test('is served by the variables of the original, and its key is in no line of the log', async () => {
    const { serviceUrl, account, container, login } = at.service.options(await at.service.makeContainer());
    const { key } = login as { key: string };
    const env = {
      REGISTRY_STORAGE: 'azure',
      REGISTRY_STORAGE_AZURE_ACCOUNTNAME: account,
      REGISTRY_STORAGE_AZURE_ACCOUNTKEY: key,
      REGISTRY_STORAGE_AZURE_CONTAINER: container,
      REGISTRY_STORAGE_AZURE_SERVICEURL: serviceUrl,
      REGISTRY_STORAGE_AZURE_CREDENTIALS_TYPE: 'shared_key',
      REGISTRY_STORAGE_AZURE_ROOTDIRECTORY: '/images/',
    };
    await serveByVariables(env, `"azure://${container}/images?accountname=${account}"`, [key]);
  });
});

test('a container is reached with tokens of an application, over TLS', { timeout: 240_000 }, async () => {
  const dir = mkdtempSync(join(tmpdir(), 'azure-tokens-'));
  const pair = selfSigned();
  const [cert, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
  writeFileSync(cert, pair.certificate);
  writeFileSync(key, pair.key, { mode: 0o600 });
  const service = await Azurite.start('--cert', cert, '--key', key, '--oauth', 'basic');
  const entra = await Entra.start();
  const options = (secret: string) => service.options('images', { ...entra.login(secret), skipVerify: true });
  try {
    const driver = service.driver(options('our-secret'));
    // Nothing is there yet, and a token is what finds that out.
    await assert.rejects(driver.open(), /there is no container images/);
    assert.deepEqual(Object.fromEntries(entra.asked[0]!), {
      grant_type: 'client_credentials',
      scope: 'https://storage.azure.com/.default',
      client_id: 'our-client',
      client_secret: 'our-secret',
    });
    await service.client('images').create();
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    assert.equal((await driver.get('docker/x'))?.toString(), 'x');
    assert.equal(entra.asked.length, 1, 'a token is used again');
    await driver.close();
    await assert.rejects(service.driver(options('wrong-secret')).open(), (error: OperatorError) => {
      assert.match(
        error.message,
        /gives no token: invalid_client: AADSTS7000215: Invalid client secret\. \(HTTP 401\)/,
      );
      assert.match(error.fix!, /storage\.azure\.credentials/);
      return true;
    });
    await assert.rejects(
      service.driver({ ...options('our-secret'), skipVerify: false }).open(),
      (error: OperatorError) => {
        assert.match(error.message, /the certificate of https:.* is not trusted/);
        assert.match(error.fix!, /NODE_EXTRA_CA_CERTS/);
        return true;
      },
    );
  } finally {
    entra.stop();
    await service.stop();
    rmSync(dir, { recursive: true });
  }
});
