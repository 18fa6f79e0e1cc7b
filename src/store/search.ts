import { setTimeout as pause } from 'node:timers/promises';
import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { Catalog } from './catalog.js';
import { layout } from './layout.js';
import { readLink } from './links.js';
import type { Manifests } from './manifests.js';
import type { ManifestRecord } from './records.js';
import { subjectOfTag } from './referrers.js';

/** A repository as a search shows it. */
export interface SearchResult {
  readonly name: string;
  /** What its image says of itself; empty where it says nothing. */
  readonly description: string;
}

/** What is known of a repository. */
interface Entry {
  readonly name: string;
  /** What its image says of itself, and which image that is. */
  readonly digest?: Digest | undefined;
  readonly title: string;
  readonly description: string;
}

interface Index {
  /** In the order of their names. */
  readonly entries: readonly Entry[];
  /** Whether all repositories are in it. */
  readonly whole: boolean;
}

/** Longer words about an image are cut off. */
const LONGEST_TEXT = 1024;

/** So many characters of such words are kept in memory; what is said beyond is not found. */
const MOST_TEXT = 16 * 1024 * 1024;

/** How many repositories are looked at before the walk goes on. */
const BATCH = 64;

/** As long as the catalog is read so quickly (ms), each search reads it. */
const QUICK = 500;

/** So long a search waits for the catalog (ms), and then answers what was read by then. */
const PATIENCE = 4_000;

/** Beyond that it is read again after so many times its own duration, in the background. */
const SHARE = 10;

/**
 * Finds repositories by their names and by what their images say of themselves. Reads records, never manifests. Where that
 * takes long, since there are tens of thousands of repositories, searches are answered from what was read last.
 */
export class Search {
  private last: (Index & { readonly took: number; readonly at: number }) | undefined;
  /** Of the first reading, what it has come to. */
  private growing: Entry[] = [];
  private reading: Promise<void> | undefined;
  private next: Promise<void> | undefined;

  constructor(
    private readonly driver: StorageDriver,
    private readonly catalog: Catalog,
    private readonly manifests: Manifests,
    private readonly timing = { quick: QUICK, patience: PATIENCE },
  ) {}

  /**
   * @param query words that must all occur in the name, the title or the description, in any case; empty: every repository
   * @returns those results that `page` asks for, in the order of their names, and the number of all; `whole` where none is
   *   left out for want of time
   */
  async find(
    query: string,
    visible: (repository: string) => boolean,
    page: { skip: number; limit: number },
  ): Promise<{ results: SearchResult[]; total: number; whole: boolean }> {
    const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
    const { entries, whole } = await this.index();
    const found = entries.filter(({ name, title, description }) => {
      if (!visible(name)) return false;
      if (wanted.every(word => name.includes(word))) return true;
      const text = `${name}\n${title}\n${description}`.toLowerCase();
      return wanted.every(word => text.includes(word));
    });
    const shown = found.slice(page.skip, page.skip + page.limit);
    // Memory may be behind: what is gone is not shown.
    const results = await inBatches(shown, async ({ name, title, description }) =>
      (await this.catalog.exists(name)) ? [{ name, description: description || title }] : [],
    );
    return { results: results.flat(), total: found.length, whole };
  }

  private async index(): Promise<Index> {
    const { last, timing } = this;
    if (last && last.took > timing.quick) {
      // A failure shows itself to whoever reads or writes; the next search tries again.
      if (performance.now() - last.at > SHARE * last.took) this.readAnew().catch(() => undefined);
      return last;
    }
    const patience = new AbortController();
    const late = pause(timing.patience, undefined, { signal: patience.signal, ref: false }).catch(() => undefined);
    await Promise.race([this.readAnew(), late]).finally(() => patience.abort());
    return this.last ?? { entries: this.growing, whole: false };
  }

  /** Reads the catalog, from a beginning after this call: so that a push that was answered before it is found. */
  private readAnew(): Promise<void> {
    if (!this.reading) {
      this.reading = this.read().finally(() => {
        this.reading = undefined;
      });
      return this.reading;
    }
    this.next ??= this.reading
      .catch(() => undefined)
      .then(() => {
        this.next = undefined;
        return this.readAnew();
      });
    return this.next;
  }

  private async read(): Promise<void> {
    const start = performance.now();
    const known = new Map((this.last?.entries ?? []).map(entry => [entry.name, entry]));
    const entries: Entry[] = [];
    if (!this.last) this.growing = entries;
    let room = MOST_TEXT;
    const add = async (names: readonly string[]) => {
      for (const entry of await inBatches(names, name => this.about(name, known.get(name)))) {
        room -= entry.title.length + entry.description.length;
        entries.push(room < 0 ? { name: entry.name, title: '', description: '' } : entry);
      }
    };
    let names: string[] = [];
    for await (const name of this.catalog.names())
      if (names.push(name) === BATCH) {
        await add(names);
        names = [];
      }
    await add(names);
    const at = performance.now();
    this.last = { entries, whole: true, took: at - start, at };
    this.growing = [];
  }

  /** What the image under `latest` says or, where there is no such tag, under the last one. */
  private async about(repository: string, known: Entry | undefined): Promise<Entry> {
    const digest = (await this.tagged(repository, 'latest')) ?? (await this.lastTagged(repository));
    // What a manifest says does not change.
    if (known?.digest !== undefined && known.digest === digest) return known;
    const record = digest && (await this.manifests.records.get(repository, digest));
    const words = { title: word(record, 'title'), description: word(record, 'description') };
    return { name: repository, digest: record ? digest : undefined, ...words };
  }

  private tagged(repository: string, tag: string): Promise<Digest | undefined> {
    return readLink(this.driver, layout.tagLink(repository, tag));
  }

  private async lastTagged(repository: string): Promise<Digest | undefined> {
    const tags = await this.driver.list(layout.tags(repository));
    const last = tags.findLast(({ name }) => !subjectOfTag(name));
    return last && this.tagged(repository, last.name);
  }
}

/** A label of the image, or what is said of it from outside, which comes first (image-spec, annotations.md). */
function word(record: ManifestRecord | undefined, name: 'title' | 'description'): string {
  const key = `org.opencontainers.image.${name}`;
  return (record?.annotations?.[key] ?? record?.labels?.[key] ?? '').slice(0, LONGEST_TEXT);
}
