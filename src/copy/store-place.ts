import { Readable } from 'node:stream';
import { OperatorError, RegistryError } from '../errors.js';
import { type Digest, isDigest } from '../reference.js';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { layout } from '../store/layout.js';
import { orUnheld } from '../store/leases.js';
import type { Descriptor } from '../store/manifest.js';
import type { Store } from '../store/store.js';
import type { ImageSource, ImageTarget, OpenBlob, PlacedManifest } from './place.js';

/** Entries of one page of a list, and of referrers. */
const PAGE = 1_000;

/** The data of a registry, whether one serves it or not. */
export class StorePlace implements ImageSource, ImageTarget {
  /** @param driver opened; closed with this @param name for people */
  constructor(
    private readonly driver: StorageDriver,
    private readonly store: Store,
    readonly name: string,
  ) {}

  async close(): Promise<void> {
    await this.driver.close();
  }

  async *repositories(): AsyncGenerator<string> {
    for (let after = '', more = true; more; ) {
      const page = await this.#try(() => this.store.catalog.repositories(PAGE, after));
      yield* page.names;
      ({ more } = page);
      after = page.names.at(-1) ?? '';
    }
  }

  async *tags(repository: string): AsyncGenerator<string> {
    for (let after = '', more = true; more; ) {
      const page = await this.#try(() => this.store.catalog.tags(repository, PAGE, after));
      if (!page) return;
      yield* page.names;
      ({ more } = page);
      after = page.names.at(-1) ?? '';
    }
  }

  manifest(repository: string, reference: string): Promise<PlacedManifest | undefined> {
    return this.#try(() =>
      this.store.manifests.find(repository, isDigest(reference) ? { digest: reference } : { tag: reference }),
    );
  }

  referrers(repository: string, subject: Digest): Promise<readonly Descriptor[]> {
    return this.#try(async () => {
      const all: Descriptor[] = [];
      for (let after = '', more = true; more; ) {
        const page = await this.store.referrers.list(repository, subject, { limit: PAGE, after });
        all.push(...page.descriptors);
        ({ more } = page);
        after = page.descriptors.at(-1)?.digest ?? '';
      }
      return all;
    });
  }

  openBlob(repository: string, { digest }: Descriptor): OpenBlob {
    const place = this;
    return async function* (start) {
      try {
        const blob = await place.store.blobs.get(repository, digest);
        yield* await place.store.blobs.read(blob, start > 0 ? { start, end: blob.size - 1 } : undefined);
      } catch (error) {
        throw place.#told(error, digest);
      }
    };
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return (await this.manifest(repository, tag))?.digest;
  }

  async hasManifest(repository: string, digest: Digest): Promise<boolean> {
    return this.#try(async () => {
      try {
        await this.store.manifests.getHeld(repository, { digest });
        return true;
      } catch (error) {
        if (error instanceof RegistryError && error.status === 404) return false;
        throw error;
      }
    });
  }

  async hasBlob(repository: string, { digest }: Descriptor): Promise<boolean> {
    // Where nothing can be written, as in a dry run, it is looked at and no more.
    const look = () =>
      orUnheld(this.store.blobs.hold(repository, digest), () => this.store.blobs.find(repository, digest));
    return (await this.#try(look)) !== undefined;
  }

  holderOf({ digest }: Descriptor): Promise<string | undefined> {
    return this.#try(async () => {
      // No list says who has it: so there is no search for what nobody can have.
      const isHere = digest.startsWith('sha256:') && (await this.driver.stat(layout.blob(digest)));
      return isHere ? this.store.blobs.sourceOf(digest, () => true) : undefined;
    });
  }

  mount(repository: string, { digest }: Descriptor, from: string): Promise<boolean> {
    return this.#try(() => this.store.blobs.mount(repository, digest, from));
  }

  async putBlob(repository: string, { digest, size }: Descriptor, open: OpenBlob): Promise<void> {
    const body = Readable.from(copied(open(0)), { objectMode: false });
    try {
      await this.#try(() => this.store.uploads.whole(repository, digest, body, size));
    } finally {
      body.destroy();
    }
  }

  async putManifest(
    repository: string,
    { digest, mediaType, data }: PlacedManifest,
    tag: string | undefined,
  ): Promise<void> {
    const target = { digest, tags: tag === undefined ? [] : [tag] };
    await this.#try(() => this.store.manifests.put(repository, target, data, { contentType: mediaType }));
  }

  async #try<T>(task: () => Promise<T>): Promise<T> {
    try {
      return await task();
    } catch (error) {
      throw this.#told(error);
    }
  }

  #told(error: unknown, digest?: Digest): unknown {
    if (!(error instanceof RegistryError || error instanceof StorageError)) return error;
    const what = digest === undefined ? error.message : `${digest}: ${error.message}`;
    return new OperatorError(`${this.name}: ${what}`, { cause: error });
  }
}

/** A stream holds chunks for longer than they are lent. */
async function* copied(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield Buffer.from(chunk);
}
