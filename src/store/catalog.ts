import { isRepositoryName, isTag } from '../reference.js';
import type { Entry, StorageDriver } from '../storage/driver.js';
import type { ImmutableTags } from './immutable.js';
import { layout } from './layout.js';
import type { Locks } from './locks.js';

/** One page of names, in byte order. */
export interface Page {
  readonly names: string[];
  /** Whether there are more after the last of them. */
  readonly more: boolean;
}

/** Which repositories there are, and which tags a repository has. */
export class Catalog {
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
    const entries = await this.driver.list(layout.tags(repository), { after });
    if (entries.length === 0 && !(await this.exists(repository))) return undefined;
    const names: string[] = [];
    for (const { name } of entries) {
      // A crash between making a tag's folder and its link leaves a folder that is no tag.
      if (!isTag(name) || !(await this.driver.stat(layout.tagLink(repository, name)))) continue;
      if (names.length === limit) return { names, more: true };
      names.push(name);
    }
    return { names, more: false };
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
      await Promise.all(parts.map(({ name }) => this.driver.removeAll(`${layout.repository(repository)}/${name}`)));
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
    const children = (await listing).filter(({ name, folder }) => folder && !name.startsWith('_'));
    const keys = children.flatMap(({ name }) => [name, `${name}/`]).sort((a, b) => (a < b ? -1 : 1));
    // What a folder holds says both whether it is a repository and which ones lie below it.
    const listings = new Map<string, Promise<readonly Entry[]>>();
    const list = (path: string) => {
      const known = listings.get(path) ?? this.driver.list(layout.repository(path));
      listings.set(path, known);
      return known;
    };
    for (const key of keys) {
      const below = key.endsWith('/');
      const path = prefix + (below ? key.slice(0, -1) : key);
      if (below) {
        // All that lies below sorts between `path/` and `path0`, the slash raised by one.
        if (after < `${path}0`) yield* this.walk(`${path}/`, list(path), after);
        listings.delete(path);
      } else if (path > after && isRepositoryName(path) && (await list(path)).some(({ name }) => isPart(name)))
        yield path;
    }
  }
}

function isPart(name: string): boolean {
  return name === '_layers' || name === '_manifests';
}
