import { LRUCache } from 'lru-cache';
import { allDone } from '../at-once.js';
import { isRepositoryName, isTag } from '../reference.js';
import type { Entry, StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { ImmutableTags } from './immutable.js';
import { layout } from './layout.js';
import type { Locks } from './locks.js';

/** One page of names, in byte order. */
export interface Page {
  readonly names: readonly string[];
  /** Whether there are more after the last of them. */
  readonly more: boolean;
}

/** How many tags are looked at before it is asked whether the page is full. */
const LOOKS = 64;

/** Which repositories there are, and which tags a repository has. */
export class Catalog {
  readonly #pages = new KnownPages();

  constructor(
    private readonly driver: StorageDriver,
    private readonly locks: Locks,
    private readonly immutable: ImmutableTags,
  ) {}

  /** A repository is a folder that holds `_layers` or `_manifests`, at any depth. */
  async repositories(limit: number, after = '', visible: (name: string) => boolean = () => true): Promise<Page> {
    const names: string[] = [];
    for await (const name of this.names(after)) {
      if (!visible(name)) continue;
      if (names.length === limit) return { names, more: true };
      names.push(name);
    }
    return { names, more: false };
  }

  /** All repositories after the one named, in byte order, found one after the other. */
  names(after = ''): AsyncIterable<string> {
    return this.walk('', this.driver.list(layout.repositories), after);
  }

  /** @returns undefined where there is no such repository. */
  async tags(repository: string, limit: number, after = ''): Promise<Page | undefined> {
    const entries = await this.driver.list(layout.tags(repository));
    if (entries.length === 0 && !(await this.exists(repository))) return undefined;
    return this.#pages.of(repository, entries, { limit, after }, () =>
      this.tagsAmong(repository, entries, limit, after),
    );
  }

  /** As `tags`, where that can be told at once; undefined where it cannot, and for no such repository. */
  recallTags(repository: string, limit: number, after = ''): Page | undefined {
    const entries = this.driver.recall?.(layout.tags(repository))?.entries;
    return entries && this.#pages.recall(repository, entries, { limit, after });
  }

  private async tagsAmong(repository: string, entries: readonly Entry[], limit: number, after: string) {
    const names: string[] = [];
    let whole = true;
    const start = entries.findIndex(({ name }) => name > after);
    for (let at = start; start >= 0 && at < entries.length && names.length <= limit; at += LOOKS) {
      const found = await inBatches(entries.slice(at, at + LOOKS), async ({ name }) =>
        // A crash between making a tag's folder and its link leaves a folder that is no tag.
        isTag(name) && (await this.driver.stat(layout.tagLink(repository, name))) ? name : undefined,
      );
      for (const name of found)
        if (name === undefined) whole = false;
        else names.push(name);
    }
    return { page: { names: names.slice(0, limit), more: names.length > limit }, whole };
  }

  async exists(repository: string): Promise<boolean> {
    return (await this.driver.list(layout.repository(repository))).some(({ name }) => isPart(name));
  }

  /**
   * Removes a repository with all that it holds, but not those below its name, durably. Bytes are the collector's.
   * @returns false where there is none
   * @throws RegistryError DENIED where it has an immutable tag
   */
  async remove(repository: string): Promise<boolean> {
    return this.locks.exclusive(repository, async () => {
      if (!(await this.exists(repository))) return false;
      await this.immutable.checkRepository(repository);
      await this.removeManifests(repository);
      const parts = (await this.driver.list(layout.repository(repository))).filter(({ name }) => name.startsWith('_'));
      await allDone(parts.map(({ name }) => this.driver.removeAll(`${layout.repository(repository)}/${name}`)));
      // Another process may have pushed one meanwhile: it lacks what was just removed.
      await this.removeManifests(repository);
      return true;
    });
  }

  /** In the order in which nothing is left that points at nothing. */
  private async removeManifests(repository: string): Promise<void> {
    await this.driver.removeAll(layout.tags(repository));
    await this.driver.removeAll(layout.manifests(repository));
  }

  /**
   * The names below a folder in byte order. `a-b` sorts before `a/b`, though the folder `a` comes before `a-b`: so a
   * name and the names below it are two entries, and the latter sort as if they ended in a slash.
   */
  private async *walk(prefix: string, listing: Promise<readonly Entry[]>, after: string): AsyncGenerator<string> {
    // What a folder holds says both whether it is a repository and which ones lie below it.
    const listings = new Map<string, Promise<readonly Entry[]>>();
    const list = (path: string) => {
      const known = listings.get(path) ?? this.driver.list(layout.repository(path));
      listings.set(path, known);
      return known;
    };
    for (const key of partsOf(await listing).keys) {
      const below = key.endsWith('/');
      const path = prefix + (below ? key.slice(0, -1) : key);
      if (below) {
        // All that lies below sorts between `path/` and `path0`, the slash raised by one.
        if (after < `${path}0` && partsOf(await list(path)).keys.length > 0)
          yield* this.walk(`${path}/`, list(path), after);
        listings.delete(path);
      } else if (path > after && isRepositoryName(path) && partsOf(await list(path)).isRepository) yield path;
    }
  }
}

interface Parts {
  /** Names below the folder, in their order: each alone, and with a slash for what lies below it. */
  readonly keys: readonly string[];
  readonly isRepository: boolean;
}

const NO_KEYS: readonly string[] = [];

/** Of lists that the driver hands out again. */
const known = new WeakMap<readonly Entry[], Parts>();

function partsOf(entries: readonly Entry[]): Parts {
  const before = known.get(entries);
  if (before) return before;
  const children = entries.filter(({ name, folder }) => folder && !name.startsWith('_'));
  const keys = children.flatMap(({ name }) => [name, `${name}/`]).sort((a, b) => (a < b ? -1 : 1));
  const isRepository = entries.some(({ name }) => isPart(name));
  const parts = { keys: keys.length === 0 ? NO_KEYS : keys, isRepository };
  known.set(entries, parts);
  return parts;
}

/** How long a page of tags is good while no tag has come or gone (ms), and what all that are kept may take (bytes, roughly). */
const GOOD = 500;
const KEPT = 4 * 1024 * 1024;

interface KnownPage {
  readonly folders: readonly Entry[];
  readonly page: Page;
}

/**
 * Pages of tags, each by the folders that it was made of. A tag that is pushed or deleted makes or takes its folder, so
 * the same folders have the same tags. What has lost its link and still has its folder was not deleted, but is being, or
 * other links are left in it: that is found out after `GOOD`.
 */
class KnownPages {
  readonly #known = new LRUCache<string, KnownPage>({
    ttl: GOOD,
    maxSize: KEPT,
    sizeCalculation: ({ folders, page }, key) => 200 + key.length + 100 * folders.length + 8 * page.names.length,
  });

  /** @param make says also whether each of the folders is that of a tag: of others any may become one without a trace */
  async of(
    repository: string,
    folders: readonly Entry[],
    { limit, after }: { limit: number; after: string },
    make: () => Promise<{ page: Page; whole: boolean }>,
  ): Promise<Page> {
    const known = this.recall(repository, folders, { limit, after });
    if (known) return known;
    const { page, whole } = await make();
    if (whole) this.#known.set(keyOf(repository, limit, after), { folders, page });
    return page;
  }

  /** The page where it was made of the same folders. */
  recall(
    repository: string,
    folders: readonly Entry[],
    { limit, after }: { limit: number; after: string },
  ): Page | undefined {
    const known = this.#known.get(keyOf(repository, limit, after));
    return known?.folders === folders ? known.page : undefined;
  }
}

function keyOf(repository: string, limit: number, after: string): string {
  return `${repository} ${limit} ${after}`;
}

function isPart(name: string): boolean {
  return name === '_layers' || name === '_manifests';
}
