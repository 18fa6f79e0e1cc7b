import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import type { ObjectDriver } from '../../src/storage/object.js';
import type { SwiftOptions } from '../../src/storage/swift/options.js';
import { testCrashes } from '../crash/suite.js';
import { testModel } from '../registry/model/suite.js';
import { testFaults } from '../storage/faults.js';
import { Opening } from '../storage/opening.js';
import { serveByVariables } from '../storage/serving.js';
import { testDriver } from '../storage/suite.js';
import { LocalRegistry } from '../support/local-registry.js';
import { Swift } from '../support/swift.js';

/** Debian's Swift, which is heavy: for whoever has it at hand. */
const { SWIFT_TEST } = process.env;

if (SWIFT_TEST)
  describe('on Swift', () => {
    const at = new Opening(() => Swift.start(), /wrong-secret/);

    const connect = (options: SwiftOptions, onNotice?: (notice: string) => void): ObjectDriver =>
      at.closing(at.service.driver(options, { chunkSize: SMALLEST_PART, onNotice }));
    const namesIn = async (container: string, prefix: string) =>
      (await (await at.service.call('GET', `${container}?prefix=${prefix}`)).text()).split('\n').filter(Boolean);

    testDriver('swift', () => at.service.place({ chunkSize: SMALLEST_PART }));
    testModel('swift', () => at.service.place(), { alone: 1, atOnce: 1 });
    const faulty = async () => {
      const container = await at.service.makeContainer();
      // The login tells where the account is: past whatever stands before it, but for this.
      const through = (endpoint: string) => ({ authUrl: `${endpoint}/auth/v1.0` });
      return {
        port: at.service.port,
        connect: (endpoint?: string) =>
          at.service.driver(at.service.options(container, endpoint ? through(endpoint) : {}), {
            chunkSize: SMALLEST_PART,
          }),
      };
    };
    testFaults('a container of Swift', faulty, { decides: false });
    testCrashes('a container of Swift', () => at.service.crashPlace(), { pushes: 8, grace: 4000, alone: true });

    const refused = (what: string, more: () => Partial<SwiftOptions>, message: RegExp, fix: RegExp) =>
      at.refuses(what, async () => connect(at.service.options(await at.service.makeContainer(), more())), message, fix);
    refused(
      'a wrong password',
      () => ({ login: { user: 'test:tester', password: 'wrong-secret' } }),
      /refuses the login \(HTTP 401\)/,
      /username, password/,
    );
    refused(
      'the name of no container',
      () => ({ container: 'none' }),
      /no container none/,
      /openstack container create/,
    );
    refused(
      'a port where nobody listens',
      () => ({ authUrl: 'http://127.0.0.1:1/auth/v1.0' }),
      /ECONNREFUSED/,
      /authurl/,
    );

    test('what is large has segments of its own, and they go with it', async () => {
      const container = await at.service.makeContainer();
      const driver = connect(at.service.options(container));
      await driver.open();
      const content = randomBytes(12_000_000);
      const write = async (key: string) => {
        const writer = await driver.createSegment(key);
        await writer.write(content);
        await writer.close();
      };
      await write('docker/1');
      assert.equal((await namesIn(container, 'segments/')).length, 3);
      await driver.assemble(['docker/1'], 'docker/data');
      assert.equal((await namesIn(container, 'segments/')).length, 6);
      await driver.assemble(['docker/1', 'docker/1'], 'docker/data');
      assert.equal((await namesIn(container, 'segments/')).length, 9, 'those of the old one went');
      await driver.removeAll('docker/1');
      await driver.remove('docker/1');
      assert.equal((await namesIn(container, 'segments/')).length, 6);
      assert.equal(await driver.touch('docker/data'), true);
      assert.ok((await driver.get('docker/data', 30_000_000))!.equals(Buffer.concat([content, content])));
      assert.equal(await driver.remove('docker/data'), true);
      assert.deepEqual(await namesIn(container, 'segments/'), []);
      assert.equal(driver.passedAgain, 0);
    });

    test('of registry:2 is served as it is, and what it made of segments goes with them', async () => {
      const container = await at.service.makeContainer();
      for (const [n, part] of ['lay', 'er'].entries())
        await at.service.call('PUT', `${container}/segments/abc/def/000000000000000${n + 1}`, { body: part });
      const headers = { 'x-object-manifest': `${container}/segments/abc/def` };
      await at.service.call('PUT', `${container}/files/docker/registry/v2/blobs/data`, { headers });
      await at.service.call('PUT', `${container}/files/docker/registry/v2/link`, { body: 'sha256:1' });
      const driver = connect(at.service.options(container));
      await driver.open();
      assert.equal((await driver.get('docker/registry/v2/link'))?.toString(), 'sha256:1');
      assert.equal((await driver.get('docker/registry/v2/blobs/data'))?.toString(), 'layer');
      assert.equal((await driver.stat('docker/registry/v2/blobs/data'))?.size, 5);
      assert.equal(await driver.touch('docker/registry/v2/blobs/data'), true);
      assert.equal(
        (await driver.get('docker/registry/v2/blobs/data'))?.toString(),
        'layer',
        'renewed, it is still whole',
      );
      assert.equal(await driver.remove('docker/registry/v2/blobs/data'), true);
      assert.deepEqual(await namesIn(container, 'segments/'), []);
    });

    test('is for one process alone, and says so', async () => {
      const notices: string[] = [];
      const container = await at.service.makeContainer();
      const driver = connect(at.service.options(container), notice => notices.push(notice));
      await driver.open();
      assert.match(notices.join('\n'), /^the container .* one alone may serve it \(workers: 1\)/);
      assert.equal(driver.solitary, true);
    });

    test('is served by the variables of the original', async () => {
      const container = await at.service.makeContainer();
      const env = {
        REGISTRY_STORAGE: 'swift',
        REGISTRY_STORAGE_SWIFT_AUTHURL: `${at.service.endpoint}/auth/v1.0`,
        REGISTRY_STORAGE_SWIFT_USERNAME: 'test:tester',
        REGISTRY_STORAGE_SWIFT_PASSWORD: 'testing',
        REGISTRY_STORAGE_SWIFT_CONTAINER: container,
        REGISTRY_STORAGE_SWIFT_PREFIX: 'images',
      };
      await serveByVariables(env, `swift://${container}/images`, ['testing']);
      const refused = await LocalRegistry.run(process.cwd(), ['config', 'print'], { env });
      assert.doesNotMatch(refused.stdout, /testing/);
    });
  });
else test('on Swift, where SWIFT_TEST is set', { skip: 'it is not' }, () => {});
