import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import type { StorageDriver } from '../../src/storage/driver.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { Random } from '../support/random.js';
import type { RegistryFixture } from '../support/registry-fixture.js';

/** What tests of a place that is opened stand on. Made inside of their `describe`. */
export class Opening<S extends { readonly port: number; stop(): Promise<void> }> {
  service!: S;
  /** Before the service. */
  proxy!: FaultProxy;
  readonly #open: StorageDriver[] = [];

  /** @param secrets what no message may hold */
  constructor(
    start: () => Promise<S>,
    private readonly secrets: RegExp,
  ) {
    before(async () => {
      this.service = await start();
      this.proxy = await FaultProxy.start(this.service.port, new Random(1));
    });
    afterEach(async () => {
      this.proxy.skew = 0;
      for (const driver of this.#open.splice(0)) await driver.close();
    });
    after(async () => {
      await this.proxy?.stop();
      await this.service?.stop();
    });
  }

  /** Closes the driver after the test. */
  closing<D extends StorageDriver>(driver: D): D {
    this.#open.push(driver);
    return driver;
  }

  /** Registers a test of what cannot be opened. @param make the driver of it */
  refuses(what: string, make: () => Promise<StorageDriver>, message: RegExp, fix: RegExp): void {
    test(`does not open with ${what}, and says in one line what to do`, async () => {
      const driver = await make();
      await assert.rejects(driver.open(), (error: unknown) => {
        assert.ok(error instanceof OperatorError, String(error));
        assert.match(error.message, message);
        assert.match(error.fix!, fix);
        assert.doesNotMatch(`${error.message}${error.fix}`, /\n/);
        assert.doesNotMatch(`${error.message}${error.fix}`, this.secrets);
        return true;
      });
    });
  }

  /** Registers a test of data that a later version has written. @param make drivers of one place */
  testFormat(make: () => Promise<() => StorageDriver>): void {
    test('of a newer format is not touched', async () => {
      const connect = await make();
      const driver = this.closing(connect());
      await driver.open();
      await driver.write('registry-secure/format', Buffer.from('2\n'));
      await assert.rejects(this.closing(connect()).open(), /says format 2, and this version knows 1 only/);
    });
  }
}

/** A registry whose service has died says so, and when to come again. @param layer of an image that it has */
export async function isUnavailable(registry: RegistryFixture, layer: string): Promise<void> {
  const requests = [
    ['GET', '/v2/team/app/manifests/latest'],
    ['HEAD', `/v2/team/app/blobs/${layer}`],
    ['GET', `/v2/team/app/blobs/${layer}`],
    ['POST', '/v2/team/app/blobs/uploads/'],
    ['GET', '/v2/team/app/tags/list'],
    ['DELETE', '/v2/team/app/manifests/latest'],
  ] as const;
  const asked = requests.map(async ([method, path]) => {
    const { status, headers } = await registry.call(method, path);
    assert.deepEqual([status, headers['retry-after']], [503, '10'], `${method} ${path}`);
  });
  await Promise.all(asked);
}
