import { digestOf, manifestOf, OCI_MANIFEST } from '../../support/content.js';
import { type Holdings, holdings } from '../content.js';
import { Connection, type Target } from './connection.js';
import { pushBlob } from './transfers.js';
import { timed, type Work } from './work.js';

/** Pushes what every server holds before anything is measured. */
export interface Seed {
  readonly kind: 'seed';
  readonly bytes: number;
}

/** Pushes so many manifests whose subject is the image. */
export interface Referrers {
  readonly kind: 'referrers';
  readonly count: number;
}

const small = (data: Buffer) => ({ digest: digestOf(data), size: data.length, pieces: () => [data] });

function putManifest(connection: Connection, { repository }: Holdings, reference: string, body: Buffer) {
  const headers = { 'content-type': OCI_MANIFEST };
  return connection.send('PUT', `/v2/${repository}/manifests/${reference}`, { headers, body, status: 201 });
}

export function seed(target: Target, { bytes }: Seed): Promise<Work> {
  return timed(async () => {
    const held = holdings(bytes);
    const { repository, image, tags } = held;
    const connection = new Connection(target);
    for (const blob of [...image.layers.map(small), small(image.config), held.big, held.small])
      await pushBlob(connection, repository, blob, 'whole');
    for (const tag of tags) await putManifest(connection, held, tag, image.manifest);
    connection.close();
    return tags.length;
  });
}

export function referrers(target: Target, { count }: Referrers): Promise<Work> {
  return timed(async () => {
    const held = holdings(0);
    const { config, manifest } = held.image;
    const subject = { mediaType: OCI_MANIFEST, digest: digestOf(manifest), size: manifest.length };
    const connection = new Connection(target);
    for (let index = 0; index < count; index++) {
      const data = manifestOf(config, [], { subject, annotations: { index: `${index}` } });
      await putManifest(connection, held, digestOf(data), data);
    }
    connection.close();
    return count;
  });
}
