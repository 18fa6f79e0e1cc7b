import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { OperatorError } from '../../src/errors.js';
import type { ObjectDriver } from '../../src/storage/object.js';
import type { SwiftOptions } from '../../src/storage/swift/options.js';
import { Keystone } from '../support/keystone.js';
import { RegistryFixture } from '../support/registry-fixture.js';
import { Swift } from '../support/swift.js';

/** As the tests of Swift. */
const { SWIFT_TEST } = process.env;

if (SWIFT_TEST)
  describe('on Swift with Keystone', { timeout: 600_000 }, () => {
    let keystone: Keystone;
    let service: Swift;
    before(async () => {
      keystone = await Keystone.start();
      service = await Swift.start({ keystone: keystone.url });
      await keystone.register(service.endpoint, 'one');
    });
    after(async () => {
      await service?.stop();
      await keystone?.stop();
    });

    const options = (more: Partial<SwiftOptions> = {}) =>
      service.options('images', {
        authUrl: keystone.url,
        authVersion: 3,
        login: {
          user: 'admin',
          password: 'testing',
          domain: { id: 'default' },
          project: { name: 'admin' },
        },
        region: 'one',
        ...more,
      });
    const refused = async (driver: ObjectDriver, message: RegExp, fix: RegExp) =>
      assert.rejects(driver.open(), (error: OperatorError) => {
        assert.match(error.message, message);
        assert.match(error.fix!, fix);
        return true;
      });

    test('a password opens a container, and an image is pushed and pulled', async () => {
      await refused(service.driver(options()), /there is no container images/, /openstack container create images/);
      await keystone.makeContainer('images');
      const registry = await RegistryFixture.start({ driver: service.driver(options()) });
      const image = await registry.pushImage('team/app', 'latest');
      assert.ok((await registry.call('GET', '/v2/team/app/manifests/latest')).body.equals(image.data));
      assert.equal((await registry.call('GET', `/v2/team/app/blobs/${image.layer}`)).status, 200);
      await registry.stop();
    });

    test('so does an application credential, and nobody else', async () => {
      const driver = service.driver(options({ login: await keystone.makeCredential() }));
      await driver.open();
      await driver.write('docker/x', Buffer.from('x'));
      assert.equal((await driver.get('docker/x'))?.toString(), 'x');
      await driver.close();
      const wrong = { user: 'admin', password: 'wrong', domain: { id: 'default' }, project: { name: 'admin' } };
      await refused(service.driver(options({ login: wrong })), /refuses the login \(HTTP 401\)/, /username, password/);
      await refused(service.driver(options({ region: 'two' })), /no public endpoint .* in the region two/, /region/);
      const { project: _, ...unscoped } = { ...wrong, password: 'testing' };
      await refused(service.driver(options({ login: unscoped })), /names no public endpoint/, /tenant, without which/);
    });
  });
else test('on Swift with Keystone, where SWIFT_TEST is set', { skip: 'it is not' }, () => {});
