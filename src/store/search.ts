import { LRUCache } from 'lru-cache';
import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { Catalog } from './catalog.js';
import { layout } from './layout.js';
import { readLink } from './links.js';
import type { Manifests } from './manifests.js';
import type { ManifestRecord } from './records.js';

/** A repository as a search shows it. */
export interface SearchResult {
  readonly name: string;
  /** What its image says of itself; empty where it says nothing. */
  readonly description: string;
}

interface Words {
  readonly title: string;
  readonly description: string;
}

/** Tags of signatures and lists of referrers, which say nothing of the image. */
const OF_A_DIGEST = /^sha(256|512)-[0-9a-f]{64}/;

/** Longer words about an image are cut off. */
const LONGEST_TEXT = 1024;

/** Finds repositories by their names and by what their images say of themselves. Reads records, never manifests. */
export class Search {
  /** By repository and digest: what a manifest says does not change. */
  private readonly words = new LRUCache<string, Words>({ max: 20_000 });

  constructor(
    private readonly driver: StorageDriver,
    private readonly catalog: Catalog,
    private readonly manifests: Manifests,
  ) {}

  /**
   * @param query words that must all occur in the name, the title or the description, in any case; empty: every repository
   * @returns those results that `page` asks for, in the order of their names, and the number of all
   */
  async find(
    query: string,
    visible: (repository: string) => boolean,
    page: { skip: number; limit: number },
  ): Promise<{ results: SearchResult[]; total: number }> {
    const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
    const names: string[] = [];
    for await (const name of this.catalog.names()) if (visible(name)) names.push(name);
    const matches = await inBatches(names, async name => {
      // What the name alone decides needs no look at the repository.
      if (wanted.every(word => name.includes(word))) return [name];
      const { title, description } = await this.about(name);
      const text = `${name}\n${title}\n${description}`.toLowerCase();
      return wanted.every(word => text.includes(word)) ? [name] : [];
    });
    const found = matches.flat();
    const shown = found.slice(page.skip, page.skip + page.limit);
    const results = await inBatches(shown, async name => {
      const { title, description } = await this.about(name);
      return { name, description: description || title };
    });
    return { results, total: found.length };
  }

  /** What the image under `latest` says or, where there is no such tag, under the last one. */
  private async about(repository: string): Promise<Words> {
    const digest = (await this.tagged(repository, 'latest')) ?? (await this.lastTagged(repository));
    if (!digest) return { title: '', description: '' };
    const key = `${repository}@${digest}`;
    const known = this.words.get(key);
    if (known) return known;
    const record = await this.manifests.records.get(repository, digest);
    const words = { title: word(record, 'title'), description: word(record, 'description') };
    if (record) this.words.set(key, words);
    return words;
  }

  private tagged(repository: string, tag: string): Promise<Digest | undefined> {
    return readLink(this.driver, layout.tagLink(repository, tag));
  }

  private async lastTagged(repository: string): Promise<Digest | undefined> {
    const tags = await this.driver.list(layout.tags(repository));
    const last = tags.findLast(({ name }) => !OF_A_DIGEST.test(name));
    return last && this.tagged(repository, last.name);
  }
}

/** A label of the image, or what is said of it from outside, which comes first (image-spec, annotations.md). */
function word(record: ManifestRecord | undefined, name: 'title' | 'description'): string {
  const key = `org.opencontainers.image.${name}`;
  return (record?.annotations?.[key] ?? record?.labels?.[key] ?? '').slice(0, LONGEST_TEXT);
}
