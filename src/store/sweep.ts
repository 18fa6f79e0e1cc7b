import { type Digest, isDigest } from '../reference.js';
import { inBatches } from './batches.js';
import type { CollectorRun } from './collector.js';
import { DigestSet } from './digest-set.js';
import { layout } from './layout.js';
import { readLink } from './links.js';
import { type ManifestNode, Reachability } from './reachability.js';
import { readRecord } from './records.js';
import { referencesOf } from './references.js';
import { expiredTags, inScope, letsUntaggedGo, type TagAge } from './retention.js';

/** Far above what any registry takes. */
const LARGEST_MANIFEST = 64 * 1024 * 1024;

/**
 * Removes the links of one repository that nothing needs, and remembers what the others lead to. Each step relies on the
 * one before being on the disk: tags that a policy lets go, manifests that nothing leads to any more, layers that no
 * manifest names, and last what is known of manifests that are gone.
 */
export async function sweepRepository(run: CollectorRun, repository: string, parts: readonly string[]): Promise<void> {
  const { retention, untagged = false } = run.options;
  const dropsUntagged = untagged || (!retention?.dryRun && letsUntaggedGo(retention?.policies ?? [], repository));
  const targets = await sweepTags(run, repository);
  const { nodes, young } = await readManifests(run, repository, dropsUntagged);
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
    const pushed = await pushTime(run, repository, tag, digest);
    return pushed ? [{ tag, pushed }] : [];
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

/** As it was recorded; where `registry:2` wrote the tag, the time of its file. */
async function pushTime(run: CollectorRun, repository: string, tag: string, digest: Digest): Promise<Date | undefined> {
  const recorded = new Date((await readRecord(run.driver, repository, digest))?.pushedAt ?? Number.NaN);
  if (!Number.isNaN(recorded.getTime())) return recorded;
  return (await run.driver.stat(layout.tagLink(repository, tag)))?.modified;
}

/** Removes what a tag ever pointed at, once the tag itself is gone. */
async function sweepTagIndex(run: CollectorRun, repository: string, tag: string, before = run.before): Promise<void> {
  const folder = `${layout.tag(repository, tag)}/index`;
  for (const digest of await digestsIn(run, folder))
    await run.remove(layout.tagIndexLink(repository, tag, digest), { before, durable: false });
  await run.removeEmptyFolders(layout.tag(repository, tag));
}

/** Removes the steps of immutable tags that are gone: they were deleted while nothing called them immutable. */
async function sweepImmutable(run: CollectorRun, repository: string): Promise<void> {
  for (const { name } of await run.driver.list(layout.immutables(repository))) {
    if (await run.driver.stat(layout.tagLink(repository, name))) continue;
    for (const step of [2, 1] as const) await run.remove(layout.immutable(repository, name, step), { durable: false });
  }
}

/** @param ages whether to look which of them are young */
async function readManifests(
  run: CollectorRun,
  repository: string,
  ages: boolean,
): Promise<{ nodes: ManifestNode[]; young: ManifestNode[] }> {
  const { driver } = run;
  const names = new Map<Digest, Digest[]>();
  const young = new Set<Digest>();
  await inBatches(await digestsIn(run, layout.revisions(repository)), async name => {
    const key = layout.revisionLink(repository, name);
    const link = await readLink(driver, key);
    const info = link && !ages ? undefined : await driver.stat(key);
    if (!link && !info) return run.removeEmptyFolders(layout.revision(repository, name));
    // A link that a crash of `registry:2` has emptied is mended by the next push, so what it led to stays until then.
    const canonical = link ?? (name.startsWith('sha256:') ? name : undefined);
    if (!canonical) return;
    names.set(canonical, [...(names.get(canonical) ?? []), name]);
    if (info && info.modified >= run.before) young.add(canonical);
  });
  const nodes = await inBatches([...names], async ([canonical, names]): Promise<ManifestNode> => {
    const data = await driver.get(layout.blob(canonical), LARGEST_MANIFEST);
    const references = data && referencesOf(data);
    const all = references ? [...references.blobs, ...references.manifests] : [];
    return {
      canonical,
      names: names.sort((one, other) => Number(other === canonical) - Number(one === canonical)),
      references: references && { manifests: references.manifests, subject: references.subject },
      referenceKeys: all.map(DigestSet.key),
    };
  });
  return { nodes, young: nodes.filter(({ canonical }) => young.has(canonical)) };
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
  const digests = await digestsIn(run, layout.layers(repository));
  const isCanonical = (digest: Digest) => digest.startsWith('sha256:');
  // Those of other algorithms first: they say which canonical ones are needed.
  await inBatches(
    digests.filter(digest => !isCanonical(digest)),
    sweep,
  );
  await inBatches(digests.filter(isCanonical), sweep);
}

/** Removes the records of manifests that are gone, and their entries among the referrers. */
async function sweepKnowledge(run: CollectorRun, repository: string, graph: Reachability): Promise<void> {
  const isGone = (digest: Digest) => {
    const node = graph.find(digest);
    return !node || !graph.isKept(node);
  };
  const remove = (key: string) => run.remove(key, { durable: false });
  const records = (await digestsIn(run, layout.records(repository))).filter(isGone);
  await inBatches(records, digest => remove(layout.record(repository, digest)));
  for (const subject of await digestsIn(run, layout.subjects(repository))) {
    const referrers = (await digestsIn(run, layout.referrers(repository, subject))).filter(isGone);
    await inBatches(referrers, digest => remove(layout.referrer(repository, subject, digest)));
  }
}

/** The digests by which a folder has children. */
async function digestsIn(run: CollectorRun, folder: string): Promise<Digest[]> {
  const algorithms = await run.driver.list(folder);
  const digests: Digest[] = [];
  for (const { name: algorithm } of algorithms) {
    const entries = await run.driver.list(`${folder}/${algorithm}`);
    if (entries.length === 0) await run.removeEmptyFolders(`${folder}/${algorithm}`);
    for (const { name } of entries) {
      const digest = `${algorithm}:${name}`;
      if (isDigest(digest)) digests.push(digest);
    }
  }
  return digests;
}
