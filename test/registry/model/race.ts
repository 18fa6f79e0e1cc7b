import assert from 'node:assert/strict';
import type { IncomingHttpHeaders } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import type { Digest } from '../../../src/reference.js';
import type { StorageDriver } from '../../../src/storage/driver.js';
import { collect } from '../../../src/store/collector.js';
import type { Random } from '../../support/random.js';
import { callOf, type Request } from './calls.js';
import { effectsOf, History, type Thing } from './history.js';
import type { Of, Operation } from './operations.js';
import type { Processes } from './processes.js';
import { REPOSITORIES, TAGS } from './universe.js';
import { chosen, look } from './uploads.js';
import type { UploadState, World } from './world.js';

const DAY = 24 * 3_600_000;

/** With which statuses an operation may end, whatever else happens meanwhile. */
const ENDS: { readonly [Name in Request['do']]?: readonly number[] } = {
  patch: [202, 404, 416],
  finish: [201, 400, 404, 416],
  cancel: [204, 404],
  // With its repository, a blob loses what has arrived of it.
  post: [201, 404],
  mount: [201, 202],
  getBlob: [200, 404],
  deleteBlob: [202, 404],
  put: [201, 400],
  getManifest: [200, 404],
  deleteManifest: [202, 404],
  tags: [200, 404],
  referrers: [200],
  deleteRepository: [204, 404],
};

/** Makes storages take their time now and then, so that what is under way at once meets in ever other ways. */
export class Slowness {
  isOn = false;

  constructor(private readonly random: Random) {}

  of(driver: StorageDriver): StorageDriver {
    return new Proxy(driver, {
      get: (_, name: keyof StorageDriver) => {
        const member = driver[name];
        if (typeof member !== 'function') return member;
        return async (...parameters: unknown[]) => {
          if (this.isOn && this.random.chance(0.2)) await setTimeout(this.random.between(0, 3));
          return (member as (...parameters: unknown[]) => unknown).apply(driver, parameters);
        };
      },
    });
  }
}

/** What several clients do at once, and what must hold of it in whatever order it took effect. */
export class Race {
  readonly #history: History;
  /** How far each upload is known to have come. */
  readonly #offsets = new Map<UploadState, number>();
  /** Uploads that somebody was told are over. */
  readonly #ended = new Set<UploadState>();
  /** Repositories that somebody has begun to delete. */
  readonly #deleted = new Set<string>();

  /** @param world as it is before */
  constructor(
    private readonly processes: Processes,
    private readonly world: World,
    private readonly slowness: Slowness,
  ) {
    this.#history = new History(world);
    for (const upload of world.uploads) this.#offsets.set(upload, upload.bytes.length);
  }

  async run(clients: ReadonlyArray<readonly Operation[]>): Promise<void> {
    this.slowness.isOn = true;
    await Promise.all(
      clients.map(async steps => {
        for (const step of steps) await this.#take(step as Request | Of<'collect'>);
      }),
    );
    this.slowness.isOn = false;
  }

  async #take(step: Request | Of<'collect'>): Promise<void> {
    if (step.do === 'collect') {
      const report = await collect(this.processes.driver(step.at), { grace: DAY, untagged: step.untagged });
      assert.equal(report.manifests.removed + report.layers.removed + report.blobs.removed, 0, 'all of it is young');
      return;
    }
    const upload = 'upload' in step ? chosen(this.world, step) : undefined;
    // Everybody sends the right bytes for where an upload stands: there is an order in which all of them fit.
    if (upload) upload.bytes = upload.content.data.subarray(0, (await this.#look(upload, step.at)) ?? 0);
    if (step.do === 'deleteRepository') this.#deleted.add(step.repository);
    const call = callOf(this.world, step);
    const end = this.#history.begin(effectsOf(this.world, step));
    const { status, code, headers } = await this.processes.ask(step, call);
    const told = `${call.method} ${call.path} answers ${status} ${code ?? ''}`;
    assert.ok(ENDS[step.do]!.includes(status), told);
    if (step.do === 'post' && status === 404) assert.ok(this.#deleted.has(step.repository), told);
    if (step.do === 'put' && status === 400) assert.equal(code, 'MANIFEST_BLOB_UNKNOWN', told);
    // A mount that finds nothing begins an upload.
    const isDone = status < 300 && !(step.do === 'mount' && status === 202);
    end(isDone);
    if (upload && status === 202) this.#offsets.set(upload, Math.max(offsetOf(headers), this.#offsets.get(upload)!));
    if (upload && [201, 204, 400].includes(status)) this.#ended.add(upload);
    if (step.do === 'deleteRepository' && isDone)
      for (const upload of this.world.uploads) if (upload.repository === step.repository) this.#ended.add(upload);
  }

  /** How far an upload has come; undefined where it is over. */
  async #look(upload: UploadState, at: number): Promise<number | undefined> {
    const { status, headers } = await this.processes.ask({ at, by: upload.owner }, look(upload));
    assert.ok(status === 204 || status === 404, `a look at an upload answers ${status}`);
    return status === 204 ? offsetOf(headers) : undefined;
  }

  /** Makes the world what there is now, where that can be. */
  async adopt(): Promise<void> {
    for (const repository of REPOSITORIES) await this.#adoptRepository(repository);
    for (const repository of REPOSITORIES) this.#checkWhole(repository);
    for (const upload of this.world.uploads) {
      const offset = await this.#look(upload, 0);
      const wanted = this.#ended.has(upload) ? undefined : this.#offsets.get(upload);
      assert.equal(offset, wanted, `how far upload ${upload.uuid} in ${upload.repository} has come`);
      upload.open = offset !== undefined;
      upload.bytes = upload.content.data.subarray(0, offset);
    }
  }

  async #adoptRepository(name: string): Promise<void> {
    const { blobs, manifests } = this.world.universe;
    const repository = this.world.repository(name);
    const get = (path: string) =>
      this.processes.ask({ at: 0, by: 'insider' }, { method: 'GET', path: `/v2/${name}/${path}` });
    const adopt = async <T>(kind: Thing['kind'], key: string, known: Map<string, T>, value: (digest: Digest) => T) => {
      const { status, headers } = await get(`${kind === 'blob' ? 'blobs' : 'manifests'}/${key}`);
      const digest = status === 200 ? (headers['docker-content-digest'] as Digest) : undefined;
      const possible = this.#history.possible({ repository: name, kind, key });
      assert.ok(possible.includes(digest), `${kind} ${key} of ${name} is ${digest} and not ${possible.join(' or ')}`);
      if (digest) known.set(key, value(digest));
      else known.delete(key);
    };
    for (const content of blobs)
      for (const digest of [content.sha256, content.sha512])
        await adopt('blob', digest, repository.blobs, () => content);
    for (const content of manifests)
      for (const digest of [content.sha256, content.sha512])
        await adopt('manifest', digest, repository.manifests, () => content);
    for (const tag of TAGS) await adopt('tag', tag, repository.tags, digest => digest);
    repository.exists = (await get('tags/list')).status === 200;
    assert.ok(repository.exists || repository.isEmpty, `${name} has something and is unknown`);
  }

  /** What a manifest needs was there when it was pushed: it can only have been deleted since. */
  #checkWhole(repository: string): void {
    for (const [key, { needs }] of this.world.repository(repository).manifests)
      for (const { digest, ...need } of needs) {
        if (this.world.has(repository, { digest, ...need })) continue;
        const since = this.#history.firstPush({ repository, kind: 'manifest', key });
        const wasDeleted = (['blob', 'manifest'] as const).some(kind =>
          this.#history.mayHaveGone({ repository, kind, key: digest }, since),
        );
        assert.ok(wasDeleted, `${repository}@${key} lacks ${digest}, which nobody has deleted`);
      }
  }
}

/** What `Range` says. No upload of a race ever has one byte, which would look the same as none. */
function offsetOf({ range }: IncomingHttpHeaders): number {
  const last = Number(/^0-(\d+)$/.exec(String(range))![1]);
  return last === 0 ? 0 : last + 1;
}
