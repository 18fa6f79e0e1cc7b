import { Blob } from '../content.js';
import { Connection, type Target } from './connection.js';
import { pushBlob } from './transfers.js';
import { timed, type Work } from './work.js';

/** Pushes or pulls one blob after the other on one connection, for the given time and once at least. */
export interface Sizes {
  readonly kind: 'sizes';
  readonly how: 'push' | 'pull';
  readonly bytes: number;
  readonly seconds: number;
}

const REPOSITORY = 'bench/sizes';

/** @returns how long each took, from its first request to its last answer */
export async function sizes(target: Target, { how, bytes, seconds }: Sizes): Promise<Work> {
  const connection = new Connection(target);
  const known = Blob.known(bytes, bytes);
  if (how === 'pull') await pushBlob(connection, REPOSITORY, known, 'whole');
  const times: number[] = [];
  const work = await timed(async () => {
    const end = performance.now() + seconds * 1000;
    do {
      const blob = how === 'push' ? Blob.fresh(bytes) : known;
      const began = performance.now();
      if (how === 'push') await pushBlob(connection, REPOSITORY, blob, 'whole');
      else await connection.send('GET', `/v2/${REPOSITORY}/blobs/${blob.digest}`, { count: true, status: 200 });
      times.push(performance.now() - began);
    } while (performance.now() < end);
    return times.length;
  }, times);
  connection.close();
  return work;
}
