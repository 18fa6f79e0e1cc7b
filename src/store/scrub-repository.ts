import { type Digest, isTag } from '../reference.js';
import { inBatches } from './batches.js';
import { layout } from './layout.js';
import { digestsIn, readLink, writeLink } from './links.js';
import { needsOf } from './needs.js';
import { readRecord } from './records.js';
import type { Finding, ScrubRun } from './scrub.js';

/** Far above what any registry takes. */
const LARGEST_MANIFEST = 64 * 1024 * 1024;

/** A push writes what it notes of a manifest before the manifest's link: such a note is an orphan only later (ms). */
const SETTLED = 3_600_000;

/** Looks at one thing; what it finds can be mended by `mend`, where there is one. */
type Check = () => Promise<Suspicion | undefined>;

interface Suspicion {
  readonly finding: Finding;
  /** @returns what it has done, or undefined when that was no longer possible */
  readonly mend?: () => Promise<string | undefined>;
}

/** What is to be looked at once more, later. */
export interface SecondLook {
  /** How much. */
  readonly suspects: number;
  /** Tells of what is found again, and mends it where that is wanted. */
  again(): Promise<void>;
}

/** Checks every link of a repository, and what is known of its manifests. @returns undefined where all is well */
export async function scrubRepository(run: ScrubRun, repository: string): Promise<SecondLook | undefined> {
  const scrubber = new RepositoryScrubber(run, repository);
  const suspects: Check[] = [];
  for await (const checks of scrubber.checks()) {
    const suspicious = await inBatches(checks, async check => ((await check()) ? [check] : []));
    suspects.push(...suspicious.flat());
  }
  if (suspects.length === 0) return undefined;
  return {
    suspects: suspects.length,
    again: async () => {
      for (const check of suspects) {
        const suspicion = await check();
        if (!suspicion) continue;
        const repaired = run.options.repair ? await suspicion.mend?.() : undefined;
        run.found({ ...suspicion.finding, ...(repaired !== undefined && { repaired }) });
      }
    },
  };
}

class RepositoryScrubber {
  /** The tags on each digest, and the indexes that list it: for telling which images are broken. */
  private readonly tagsOn = new Map<Digest, string[]>();
  private readonly listedBy = new Map<Digest, Digest[]>();

  constructor(
    private readonly run: ScrubRun,
    private readonly repository: string,
  ) {}

  async *checks(): AsyncGenerator<Check[]> {
    const { repository } = this;
    const { driver, report } = this.run;
    const tags = (await driver.list(layout.tags(repository))).map(({ name }) => name).filter(isTag);
    report.tags += tags.length;
    await inBatches(tags, async tag => {
      const digest = await readLink(driver, layout.tagLink(repository, tag));
      if (digest) push(this.tagsOn, digest, tag);
    });
    const revisions = await digestsIn(this.run.driver, layout.revisions(repository));
    report.manifests += revisions.filter(digest => digest.startsWith('sha256:')).length;
    // First those that hold the names of others, so that a broken image is told by its tags.
    yield revisions.map(digest => () => this.learn(digest));
    yield tags.map(tag => () => this.checkTag(tag));
    yield revisions.map(digest => () => this.checkRevision(digest));
    yield (await digestsIn(this.run.driver, layout.layers(repository))).map(digest => () => this.checkLayer(digest));
    yield (await digestsIn(this.run.driver, layout.records(repository))).map(
      digest => () => this.checkOrphanRecord(digest),
    );
    for (const subject of await digestsIn(this.run.driver, layout.subjects(repository)))
      yield (await digestsIn(this.run.driver, layout.referrers(repository, subject))).map(
        digest => () => this.checkOrphanReferrer(subject, digest),
      );
  }

  /** No check: remembers which index lists what. */
  private async learn(digest: Digest): Promise<undefined> {
    const data = await this.manifest(digest);
    for (const child of (data && needsOf(data, this.run.options.validation)?.manifests) ?? [])
      push(this.listedBy, child, digest);
  }

  private async checkTag(tag: string): Promise<Suspicion | undefined> {
    const { driver } = this.run;
    const key = layout.tagLink(this.repository, tag);
    const digest = await readLink(driver, key);
    const about = { repository: this.repository, tags: [tag], key };
    if (!digest) {
      // A crash between making a tag's folder and its link leaves a folder that is no tag.
      if (!(await driver.stat(key))) return undefined;
      const message = `the tag ${this.repository}:${tag} holds no digest`;
      return { finding: { kind: 'torn-link', ...about, message }, mend: () => this.restoreTag(tag) };
    }
    if (await driver.stat(layout.revisionLink(this.repository, digest))) return undefined;
    const message = `the tag ${this.repository}:${tag} points at ${digest}, which the repository does not have`;
    return { finding: { kind: 'dangling-tag', ...about, digest, message } };
  }

  /** Points a torn tag at what it pointed at last, of what is still there; `registry:2` notes that before it moves a tag. */
  private async restoreTag(tag: string): Promise<string> {
    const { repository } = this;
    const { driver } = this.run;
    const known = await inBatches(await digestsIn(this.run.driver, layout.tagIndex(repository, tag)), async digest => {
      const info = await driver.stat(layout.tagIndexLink(repository, tag, digest));
      const isThere = (await this.manifest(digest)) !== undefined;
      return info && isThere ? [{ digest, modified: info.modified.getTime() }] : [];
    });
    const [last] = known.flat().sort((one, other) => other.modified - one.modified);
    if (!last) {
      await driver.removeAll(layout.tag(repository, tag));
      return 'removed';
    }
    await writeLink(driver, layout.tagLink(repository, tag), last.digest);
    return `points at ${last.digest} again, as it did last`;
  }

  private async checkRevision(digest: Digest): Promise<Suspicion | undefined> {
    const { repository } = this;
    const { driver, corrupt, options } = this.run;
    const key = layout.revisionLink(repository, digest);
    const canonical = await readLink(driver, key);
    const about = { repository, tags: this.tagsLeadingTo(digest), digest, key };
    const broken = (what: string): Suspicion => ({
      finding: { kind: 'broken-image', ...about, message: `${repository}@${digest} ${what}` },
    });
    if (!canonical) {
      if (!(await driver.stat(key))) return undefined;
      const message = `the link of the manifest ${repository}@${digest} holds no digest`;
      return { finding: { kind: 'torn-link', ...about, message }, mend: () => this.restoreRevision(digest) };
    }
    if (corrupt.has(canonical)) return broken('is corrupt');
    const data = await this.manifest(digest);
    if (!data) return (await driver.stat(key)) ? broken('is gone') : undefined;
    const needs = needsOf(data, options.validation);
    if (!needs) return broken('is no manifest');
    const missing = (
      await inBatches([...needs.required], async need =>
        (await this.has(need, needs.manifests.includes(need))) ? [] : [need],
      )
    ).flat();
    // Whether it is still there: a delete may have taken all of it.
    if (missing.length > 0 && (await driver.stat(key)))
      return broken(
        `lacks ${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ` and ${missing.length - 3} more` : ''}`,
      );
    return needs.manifest && this.checkRecord(digest, data, needs.manifest);
  }

  /** Whether the repository has these intact bytes: under a layer's link, or for what an index lists under a manifest's. */
  private async has(digest: Digest, listed: boolean): Promise<boolean> {
    const { driver, corrupt } = this.run;
    const links = [layout.layerLink, ...(listed ? [layout.revisionLink] : [])];
    for (const link of links) {
      const canonical = await readLink(driver, link(this.repository, digest));
      if (canonical && !corrupt.has(canonical) && (await driver.stat(layout.blob(canonical)))) return true;
    }
    return false;
  }

  /** A manifest's link was torn, and its content may be there all the same. */
  private async restoreRevision(digest: Digest): Promise<string> {
    const { driver, corrupt } = this.run;
    const key = layout.revisionLink(this.repository, digest);
    if (digest.startsWith('sha256:') && !corrupt.has(digest) && (await driver.stat(layout.blob(digest)))) {
      await writeLink(driver, key, digest);
      return 'written anew';
    }
    await driver.removeAll(layout.revision(this.repository, digest));
    return 'removed';
  }

  private async checkRecord(
    digest: Digest,
    data: Buffer,
    { mediaType, subject }: { mediaType: string; subject?: { digest: Digest } },
  ): Promise<Suspicion | undefined> {
    const { repository } = this;
    const { driver, store } = this.run;
    const key = layout.record(repository, digest);
    const record = await readRecord(driver, repository, digest);
    const name = `${repository}@${digest}`;
    const mend = async () => ((await store.manifests.records.rebuild(repository, digest)) ? 'made anew' : undefined);
    const about = { repository, digest, key };
    if (!record && !(await driver.stat(key)))
      return { finding: { kind: 'missing-record', ...about, message: `nothing is noted of ${name} yet` }, mend };
    const isRight =
      record?.mediaType === mediaType && record.size === data.length && record.subject === subject?.digest;
    if (!isRight)
      return { finding: { kind: 'wrong-record', ...about, message: `what is noted of ${name} is wrong` }, mend };
    if (!subject || (await driver.stat(layout.referrer(repository, subject.digest, digest)))) return undefined;
    const message = `${name} is not noted as a referrer of ${subject.digest} yet`;
    return { finding: { kind: 'missing-record', ...about, message }, mend };
  }

  private async checkLayer(digest: Digest): Promise<Suspicion | undefined> {
    const { repository } = this;
    const { driver, corrupt } = this.run;
    const key = layout.layerLink(repository, digest);
    const canonical = await readLink(driver, key);
    const info = await driver.stat(key);
    if (!info || (canonical && (corrupt.has(canonical) || (await driver.stat(layout.blob(canonical))))))
      return undefined;
    const about = { repository, digest, key };
    const mend = async () => {
      const removed = await driver.removeStale(key, info);
      return removed ? 'removed' : undefined;
    };
    const message = canonical
      ? `${repository} has a link to ${digest}, whose bytes are gone`
      : `the link of ${repository} to ${digest} holds no digest`;
    return { finding: { kind: canonical ? 'orphan' : 'torn-link', ...about, message }, mend };
  }

  private async checkOrphanRecord(digest: Digest): Promise<Suspicion | undefined> {
    const key = layout.record(this.repository, digest);
    const what = `a note of ${this.repository}@${digest}, which is gone`;
    return this.checkOrphan(digest, key, what);
  }

  private async checkOrphanReferrer(subject: Digest, digest: Digest): Promise<Suspicion | undefined> {
    const key = layout.referrer(this.repository, subject, digest);
    const what = `a note that ${this.repository}@${digest}, which is gone, refers to ${subject}`;
    return this.checkOrphan(digest, key, what);
  }

  private async checkOrphan(digest: Digest, key: string, message: string): Promise<Suspicion | undefined> {
    const { repository } = this;
    const { driver } = this.run;
    const info = await driver.stat(key);
    if (!info || Date.now() - info.modified.getTime() < SETTLED) return undefined;
    if (await driver.stat(layout.revisionLink(repository, digest))) return undefined;
    const mend = async () => {
      const removed = await driver.removeStale(key, info);
      return removed ? 'removed' : undefined;
    };
    return { finding: { kind: 'orphan', repository, digest, key, message }, mend };
  }

  private async manifest(digest: Digest): Promise<Buffer | undefined> {
    const { driver } = this.run;
    const canonical = await readLink(driver, layout.revisionLink(this.repository, digest));
    return canonical && driver.get(layout.blob(canonical), LARGEST_MANIFEST);
  }

  private tagsLeadingTo(digest: Digest): string[] {
    const tags: string[] = [];
    const seen = new Set<Digest>();
    const open = [digest];
    for (let next = open.pop(); next; next = open.pop()) {
      if (seen.has(next)) continue;
      seen.add(next);
      tags.push(...(this.tagsOn.get(next) ?? []));
      open.push(...(this.listedBy.get(next) ?? []));
    }
    return [...new Set(tags)].sort();
  }
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const values = map.get(key);
  if (values) values.push(value);
  else map.set(key, [value]);
}
