import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import type { StorageDriver } from '../../../src/storage/driver.js';
import { scrub } from '../../../src/store/scrub.js';
import type { Place } from '../../storage/places.js';
import { type Answer, RegistryFixture } from '../../support/registry-fixture.js';
import { type Call, meet } from './call.js';
import { callOf } from './calls.js';
import { everything } from './state.js';
import type { User } from './universe.js';
import { look } from './uploads.js';
import type { World } from './world.js';

/** Two processes that share a storage, as far as one can tell: neither knows what the other has in its memory. */
export class Processes {
  readonly #running: RegistryFixture[] = [];

  private constructor(
    private readonly place: Place,
    private readonly through: (driver: StorageDriver) => StorageDriver,
  ) {}

  /** @param through what is to stand between the processes and the storage */
  static async start(place: Place, through = (driver: StorageDriver) => driver): Promise<Processes> {
    const processes = new Processes(place, through);
    for (const at of [0, 1]) await processes.#start(at);
    return processes;
  }

  async stop(): Promise<void> {
    for (const registry of this.#running) await registry.stop();
  }

  /** Waits until what is written next has a later time than all before. */
  async tick(): Promise<void> {
    await setTimeout(this.place.wholeSeconds ? 1001 : 2);
  }

  driver(at: number): StorageDriver {
    return this.#running[at]!.driver;
  }

  async restart(at: number): Promise<void> {
    await this.#running[at]!.stop();
    await this.#start(at);
  }

  setReadOnly(at: number, on: boolean): void {
    this.#running[at]!.readOnly = on ? 'for maintenance' : undefined;
  }

  async ask({ at, by }: { at: number; by: User }, { method, path, options }: Omit<Call, 'expected'>): Promise<Answer> {
    const registry = this.#running[at]!;
    const answer = await registry.call(method, path, { user: by, ...options });
    assert.deepEqual(registry.faults, [], `${method} ${path}`);
    return answer;
  }

  async meet(asked: { at: number; by: User }, call: Call): Promise<void> {
    meet(await this.ask(asked, call), call);
  }

  /** Compares all that can be seen with the reference, through both processes, and looks at all that is stored. */
  async compare(world: World): Promise<void> {
    for (const upload of world.uploads) await this.meet({ at: 0, by: upload.owner }, look(upload));
    const looks = everything(world);
    const lane = async () => {
      for (const operation of looks) await this.meet(operation, callOf(world, operation));
    };
    await Promise.all([lane(), lane(), lane(), lane()]);
    const [{ driver, store }] = this.#running as [RegistryFixture];
    const found: string[] = [];
    await scrub(driver, store, {
      repair: false,
      validation: { urls: undefined, indexes: 'all', images: 'all' },
      patience: 1,
      onFinding: ({ kind, repository, digest }) => found.push(`${kind} ${repository}@${digest}`),
      onProgress: () => {},
    });
    assert.deepEqual(
      found.sort(),
      world.broken().map(name => `broken-image ${name}`),
    );
  }

  async #start(at: number): Promise<void> {
    const driver = this.through(this.place.connect({ flush: false }));
    this.#running[at] = await RegistryFixture.start({ driver });
  }
}
