import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { descriptorOf, digestOf, manifestOf, OCI_INDEX, OCI_MANIFEST } from '../support/content.js';
import { type Blob, type Holdings, paths } from './content.js';
import { repositoryName, tagName } from './load/store.js';

export const REFERRERS = 1000;

/** Lays out as files what a registry would answer, so that a server of files has the same bytes at the same URLs. */
export function layOut(folder: string, held: Holdings): void {
  const { repository, image, tags, big, small } = held;
  const put = (path: string, data: Buffer | Blob | object) => {
    const file = join(folder, path);
    mkdirSync(dirname(file), { recursive: true });
    if (Buffer.isBuffer(data)) writeFileSync(file, data);
    else if ('pieces' in data) for (const piece of data.pieces()) writeFileSync(file, piece, { flag: 'a' });
    else writeFileSync(file, JSON.stringify(data));
  };
  for (const data of [...image.layers, image.config]) put(paths.blob(held, digestOf(data)), data);
  for (const blob of [big, small]) put(paths.blob(held, blob.digest), blob);
  for (const tag of tags) put(paths.tag(held, tag), image.manifest);
  put(paths.manifest(held), image.manifest);
  put(paths.tags(held), { name: repository, tags });
  const referrer = descriptorOf(manifestOf(image.config, []), OCI_MANIFEST);
  const manifests = Array.from({ length: REFERRERS }, (_, index) => ({
    ...referrer,
    annotations: { index: `${index}` },
  }));
  put(paths.referrers(held), { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  put('/v2/_catalog', { repositories: Array.from({ length: 100 }, (_, index) => repositoryName(index)) });
  const name = repositoryName(LARGE.repositories / 2);
  put(`/v2/${name}/tags/list`, { name, tags: Array.from({ length: LARGE.tags }, (_, index) => tagName(index)) });
}

/** The store on which listing and start-up are measured. */
export const LARGE = { repositories: 10_000, tags: 10 };
