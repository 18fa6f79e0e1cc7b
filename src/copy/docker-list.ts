import { readManifest } from '../store/manifest.js';
import { DEEPEST } from './copy.js';
import { type Files, readSmall } from './files.js';
import { blobPath, type LayoutIndex } from './layout-index.js';
import { ofPlatform, type Platform } from './platform.js';

/** Where `docker save` lists the images of an archive (moby, image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format"). */
export const LIST = 'manifest.json';

/** Configurations of what can be run: Docker loads nothing else. */
const CONFIGS = ['application/vnd.docker.container.image.v1+json', 'application/vnd.oci.image.config.v1+json'];

export interface DockerItem {
  /** Paths in the archive. */
  readonly Config: string;
  readonly Layers: readonly string[];
  readonly RepoTags: readonly string[] | null;
}

/** The list of the images of a layout that Docker can load, of the platform alone. */
export async function dockerList(files: Files, index: LayoutIndex, platform: Platform): Promise<Buffer> {
  const items = new Map<string, DockerItem>();
  for (const entry of index.entries) {
    const name = index.nameOf(entry);
    if (!name) continue;
    const item = items.get(entry.digest) ?? (await itemOf(files, entry.digest, platform));
    if (item) items.set(entry.digest, { ...item, RepoTags: [...item.RepoTags!, `${name.repository}:${name.tag}`] });
  }
  return Buffer.from(JSON.stringify([...items.values()]));
}

async function itemOf(
  files: Files,
  digest: Parameters<typeof blobPath>[0],
  platform: Platform,
  depth = 0,
): Promise<DockerItem | undefined> {
  const data = await readSmall(files, blobPath(digest));
  const manifest = data && readManifest(data);
  if (!manifest) return undefined;
  if (manifest.kind === 'index') {
    const chosen = ofPlatform(manifest, platform);
    return chosen && depth < DEEPEST ? itemOf(files, chosen.digest, platform, depth + 1) : undefined;
  }
  const { config } = manifest;
  const layers = manifest.blobs.filter(blob => blob !== config);
  const all = JSON.parse(data.toString('utf8')) as { layers?: readonly unknown[] };
  // Layers that are fetched from elsewhere are not here.
  if (!config || !CONFIGS.includes(config.mediaType) || all.layers?.length !== layers.length) return undefined;
  return { Config: blobPath(config.digest), Layers: layers.map(layer => blobPath(layer.digest)), RepoTags: [] };
}
