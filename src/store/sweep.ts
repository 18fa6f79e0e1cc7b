import { type Digest, isDigest } from '../reference.js';
import { unlessFull } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { CollectorRun } from './collector.js';
import { DigestSet } from './digest-set.js';
import { layout } from './layout.js';
import { readLink } from './links.js';
import { type ManifestNode, Reachability } from './reachability.js';
import { readRecord } from './records.js';
import { referencesOf } from './references.js';
import { type SubjectOfTag, subjectOfTag } from './referrers.js';
import { expiredTags, inScope, letsUntaggedGo, type TagAge } from './retention.js';

/** Far above what any registry takes. */
const LARGEST_MANIFEST = 64 * 1024 * 1024;

const BATCH = 512;

/**
 * Removes the links of one repository that nothing needs, and remembers what the others lead to. Each step relies on the
 * one before being on the disk: tags that a policy lets go, manifests that nothing leads to any more, layers that no
 * manifest names, and last what is known of manifests that are gone.
 */
export async function sweepRepository(run: CollectorRun, repository: string, parts: readonly string[]): Promise<void> {
  const { retention, untagged = false } = run.options;
  const dropsUntagged = untagged || (!retention?.dryRun && letsUntaggedGo(retention?.policies ?? [], repository));
  const targets = await sweepTags(run, repository);
  const { nodes, young } = await readManifests(run, repository, targets, dropsUntagged);
  const graph = new Reachability(nodes);
  for (const digest of targets) {
    const node = graph.find(digest);
    if (node) graph.keep(node);
    // A tag on nothing: its bytes stay, for whoever wants to mend it.
    else if (digest.startsWith('sha256:')) run.linked.add(digest);
  }
  for (const node of dropsUntagged ? young : nodes) graph.keep(node);
  await sweepImmutable(run, repository);
  await sweepManifests(run, repository, graph);
  for (const digest of graph.unreadable)
    run.report.problems.push(
      `${repository}: the manifest ${digest} cannot be read, so all layers of the repository stay`,
    );
  await sweepLayers(run, repository, graph);
  await sweepKnowledge(run, repository, graph);
  // Where there are manifests, folders that have become empty went with what was in them.
  if (graph.nodes.some(node => graph.isKept(node))) return;
  for (const part of parts) await run.removeEmptyFolders(`${layout.repository(repository)}/${part}`);
}

/** Removes the tags that a policy lets go. @returns what the others point at */
async function sweepTags(run: CollectorRun, repository: string): Promise<Digest[]> {
  const { driver, options, report } = run;
  const tags = await inBatches(await driver.list(layout.tags(repository)), async ({ name }) => {
    const digest = await readLink(driver, layout.tagLink(repository, name));
    if (!digest && !(await driver.stat(layout.tagLink(repository, name)))) await sweepTagIndex(run, repository, name);
    return digest ? [{ tag: name, digest }] : [];
  });
  const { policies = [], dryRun = false } = options.retention ?? {};
  const ages = await inBatches(tags.flat(), async ({ tag, digest }): Promise<TagAge[]> => {
    if (!policies.some(policy => inScope(policy, repository, tag)) || options.isImmutable?.(repository, tag)) return [];
    const subject = subjectOfTag(tag);
    const pushed = await pushTime(run, repository, tag, digest);
    return pushed ? [{ tag, pushed, ...(subject && { follows: await hasSubject(run, repository, subject) }) }] : [];
  });
  const expired = new Set(expiredTags(policies, repository, ages.flat(), run.start));
  const targets: Digest[] = [];
  for (const { tag, digest } of tags.flat()) {
    const goes = expired.has(tag);
    if (goes) run.tell({ event: 'expired', repository, name: tag });
    // Whoever has pushed the tag again since then keeps it.
    if (goes && !dryRun && (await run.remove(layout.tagLink(repository, tag), { before: run.start }))) {
      report.tags.removed += 1;
      run.tell({ event: 'removed', kind: 'tag', repository, name: tag });
      await sweepTagIndex(run, repository, tag, run.start);
    } else {
      report.tags.kept += 1;
      targets.push(digest);
    }
  }
  return targets;
}

/**
 * When the tag was set, as it was recorded. Where `registry:2` wrote it, the time of its file, which is no later than the
 * push of its manifest: else a copy has made it younger.
 */
async function pushTime(run: CollectorRun, repository: string, tag: string, digest: Digest): Promise<Date | undefined> {
  const record = await readRecord(run.driver, repository, digest);
  const recorded = Date.parse(record?.taggedAt?.[tag] ?? '');
  if (!Number.isNaN(recorded)) return new Date(recorded);
  const file = (await run.driver.stat(layout.tagLink(repository, tag)))?.modified;
  const pushed = Date.parse(record?.pushedAt ?? '');
  return file && (pushed < file.getTime() ? new Date(pushed) : file);
}

/** Whether the repository has the image that a tag such as `sha256-….sig` is about. */
async function hasSubject(run: CollectorRun, repository: string, { algorithm, hex }: SubjectOfTag): Promise<boolean> {
  if (algorithm === 'sha256')
    return (await run.driver.stat(layout.revisionLink(repository, `sha256:${hex}`))) !== undefined;
  const names = await run.driver.list(`${layout.revisions(repository)}/${algorithm}`);
  return names.some(({ name }) => name.startsWith(hex));
}

/** Removes what a tag ever pointed at, once the tag itself is gone. */
async function sweepTagIndex(run: CollectorRun, repository: string, tag: string, before = run.before): Promise<void> {
  const folder = `${layout.tag(repository, tag)}/index`;
  for await (const digests of digestsIn(run, folder))
    await inBatches(digests, digest =>
      run.remove(layout.tagIndexLink(repository, tag, digest), { before, durable: false }),
    );
  await run.removeEmptyFolders(layout.tag(repository, tag));
}

/** Removes the steps of immutable tags that are gone: they were deleted while nothing called them immutable. */
async function sweepImmutable(run: CollectorRun, repository: string): Promise<void> {
  for (const { name } of await run.driver.list(layout.immutables(repository))) {
    if (await run.driver.stat(layout.tagLink(repository, name))) continue;
    for (const step of [2, 1] as const) await run.remove(layout.immutable(repository, name, step), { durable: false });
  }
}

/**
 * The manifests of a repository. What a tag or an index leads to is looked for by its name too: on some network file
 * systems a list can lack what is there, while others are being removed.
 * @param ages whether to look which of them are young
 */
async function readManifests(
  run: CollectorRun,
  repository: string,
  targets: readonly Digest[],
  ages: boolean,
): Promise<{ nodes: ManifestNode[]; young: ManifestNode[] }> {
  const names = new Map<Digest, Digest[]>();
  const nodes = new Map<Digest, ManifestNode>();
  const young = new Set<Digest>();
  const look = async (name: Digest) => {
    const found = await lookAtRevision(run, repository, name, ages);
    if (!found) return;
    const { canonical } = found;
    if (found.young) young.add(canonical);
    const known = names.get(canonical);
    known?.push(name);
    if (known) return;
    const all = [name];
    names.set(canonical, all);
    nodes.set(canonical, await readNode(run, canonical, all));
  };
  for await (const digests of digestsIn(run, layout.revisions(repository))) await inBatches(digests, look);
  const seen = new Set([...names.values()].flat());
  for (let wanted = [...targets]; wanted.length > 0; ) {
    const missing = [...new Set(wanted)].filter(name => !seen.has(name));
    for (const name of missing) seen.add(name);
    await inBatches(missing, look);
    wanted = [...nodes.values()].flatMap(node => node.references?.manifests ?? []).filter(name => !seen.has(name));
  }
  for (const [canonical, all] of names)
    all.sort((one, other) => Number(other === canonical) - Number(one === canonical));
  return { nodes: [...nodes.values()], young: [...nodes.values()].filter(({ canonical }) => young.has(canonical)) };
}

async function lookAtRevision(
  run: CollectorRun,
  repository: string,
  name: Digest,
  ages: boolean,
): Promise<{ canonical: Digest; young: boolean } | undefined> {
  const key = layout.revisionLink(repository, name);
  const link = await readLink(run.driver, key);
  const info = link && !ages ? undefined : await run.driver.stat(key);
  if (!link && !info) {
    await run.removeEmptyFolders(layout.revision(repository, name));
    return undefined;
  }
  // A link that a crash of `registry:2` has emptied is mended by the next push, so what it led to stays until then.
  const canonical = link ?? (name.startsWith('sha256:') ? name : undefined);
  return canonical && { canonical, young: info !== undefined && info.modified >= run.before };
}

async function readNode(run: CollectorRun, canonical: Digest, names: readonly Digest[]): Promise<ManifestNode> {
  const data = await run.driver.get(layout.blob(canonical), LARGEST_MANIFEST);
  const references = data && referencesOf(data);
  const all = references ? [...references.blobs, ...references.manifests] : [];
  return {
    canonical,
    names,
    references: references && { manifests: references.manifests, subject: references.subject },
    referenceKeys: all.map(DigestSet.key),
  };
}

async function sweepManifests(run: CollectorRun, repository: string, graph: Reachability): Promise<void> {
  for (const node of graph.unneeded()) {
    const [first, ...others] = node.names.map(name => layout.revisionLink(repository, name));
    if (await run.remove(first!)) {
      for (const key of others) await run.remove(key);
      run.report.manifests.removed += 1;
      run.tell({ event: 'removed', kind: 'manifest', repository, name: node.canonical });
    } else if (await run.driver.stat(first!)) graph.keep(node);
  }
  for (const node of graph.nodes) {
    if (!graph.isKept(node)) continue;
    run.report.manifests.kept += 1;
    run.linked.add(node.canonical);
    for (const key of node.referenceKeys) run.linked.addKey(key);
    run.tell({ event: 'marked', kind: 'manifest', repository, name: node.canonical });
  }
}

async function sweepLayers(run: CollectorRun, repository: string, graph: Reachability): Promise<void> {
  const { driver, report } = run;
  const all = graph.unreadable.length > 0;
  const sweep = async (digest: Digest) => {
    const key = layout.layerLink(repository, digest);
    const needed = all || graph.references.has(digest);
    if (!needed && (await run.remove(key))) {
      report.layers.removed += 1;
      run.tell({ event: 'removed', kind: 'layer', repository, name: digest });
      return;
    }
    if (!needed && !(await driver.stat(key))) return run.removeEmptyFolders(layout.layer(repository, digest));
    report.layers.kept += 1;
    const canonical = digest.startsWith('sha256:') ? digest : await readLink(driver, key);
    if (canonical) run.linked.add(canonical);
    if (!needed) return;
    if (canonical) graph.references.add(canonical);
    run.tell({ event: 'marked', kind: 'blob', repository, name: digest });
  };
  // Those of other algorithms first: they say which canonical ones are needed.
  const algorithms = (await driver.list(layout.layers(repository))).map(({ name }) => name);
  const inOrder = algorithms.sort((one, other) => Number(one === 'sha256') - Number(other === 'sha256'));
  for await (const digests of digestsIn(run, layout.layers(repository), inOrder)) await inBatches(digests, sweep);
}

/**
 * Removes the records of manifests that are gone, and their entries among the referrers. They lie in folders that can be so
 * large that a full disk has no room for one more name in them (docs/decisions/0012): then they go when there is some.
 */
async function sweepKnowledge(run: CollectorRun, repository: string, graph: Reachability): Promise<void> {
  const isGone = (digest: Digest) => {
    const node = graph.find(digest);
    return !node || !graph.isKept(node);
  };
  const remove = (key: string) => run.remove(key, { durable: false }).catch(unlessFull);
  for await (const digests of digestsIn(run, layout.records(repository)))
    await inBatches(digests.filter(isGone), digest => remove(layout.record(repository, digest)));
  for await (const subjects of digestsIn(run, layout.subjects(repository)))
    for (const subject of subjects)
      for await (const digests of digestsIn(run, layout.referrers(repository, subject)))
        await inBatches(digests.filter(isGone), digest => remove(layout.referrer(repository, subject, digest)));
}

/** The digests by which a folder has children, some at a time: as text all of them can be a hundred megabytes. */
async function* digestsIn(run: CollectorRun, folder: string, algorithms?: readonly string[]): AsyncGenerator<Digest[]> {
  for (const algorithm of algorithms ?? (await run.driver.list(folder)).map(({ name }) => name)) {
    const entries = await run.driver.list(`${folder}/${algorithm}`);
    if (entries.length === 0) await run.removeEmptyFolders(`${folder}/${algorithm}`);
    for (let start = 0; start < entries.length; start += BATCH)
      yield entries
        .slice(start, start + BATCH)
        .map(({ name }) => `${algorithm}:${name}`)
        .filter(isDigest);
  }
}
