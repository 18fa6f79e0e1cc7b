import { createHash, randomUUID } from 'node:crypto';
import { type Digest, hexOf, isDigest } from '../reference.js';
import { type ByteStream, type ObjectInfo, type StorageDriver, StorageError } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { layout } from './layout.js';
import type { ScrubRun } from './scrub.js';

/** Small blobs cost mostly the wait for the storage: so some are under way while one is hashed. */
const LANES = 4;

/** How often a blob is looked at again that changes while it is being moved away. */
const TRIES = 5;

/** Reads and hashes every blob. */
export async function scrubBlobs(run: ScrubRun): Promise<void> {
  for await (const digests of blobs(run.driver))
    await inBatches(digests, async digest => {
      const info = await run.driver.stat(layout.blob(digest));
      run.report.totalBytes += info?.size ?? 0;
    });
  for await (const digests of blobs(run.driver)) {
    const rest = digests.values();
    const lane = async () => {
      for (const digest of rest) await scrubBlob(run, digest);
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  }
}

/** What is stored, in parts that are small enough to hold. */
async function* blobs(driver: StorageDriver): AsyncGenerator<Digest[]> {
  for (const { name } of await driver.list(layout.blobs)) {
    const entries = await driver.list(`${layout.blobs}/${name}`);
    yield entries.map(entry => `sha256:${entry.name}`).filter(isDigest);
  }
}

type Verdict =
  | { readonly state: 'intact' | 'absent' }
  | { readonly state: 'corrupt' | 'unreadable'; readonly message: string; readonly info: ObjectInfo };

async function scrubBlob(run: ScrubRun, digest: Digest): Promise<void> {
  const key = layout.blob(digest);
  let verdict = await judge(run, digest, key);
  run.report.blobs += verdict.state === 'absent' ? 0 : 1;
  for (let tries = 1; 'info' in verdict; tries++) {
    run.corrupt.add(digest);
    const { message, info } = verdict;
    const finding = { kind: 'corrupt-blob', digest, key, message } as const;
    if (!run.options.repair || tries > TRIES) return run.found(finding);
    const quarantine = verdict.state === 'corrupt' ? await copy(run.driver, digest, key) : undefined;
    // Whoever has pushed it again since, or renewed it, keeps it: then it is another case.
    if (await run.driver.removeStale(key, info))
      return run.found({ ...finding, repaired: quarantine ? `moved to ${quarantine}` : 'removed' });
    if (quarantine) await run.driver.remove(quarantine);
    run.corrupt.delete(digest);
    verdict = await judge(run, digest, key);
  }
}

async function judge(run: ScrubRun, digest: Digest, key: string): Promise<Verdict> {
  let info: ObjectInfo | undefined;
  try {
    const stream = await run.driver.read(key);
    if (!stream) return { state: 'absent' };
    info = stream.info;
    const actual: Digest = `sha256:${await hashOf(run, stream)}`;
    if (actual === digest) return { state: 'intact' };
    return { state: 'corrupt', info, message: `${digest} is corrupt: its ${info.size} bytes hash to ${actual}` };
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    info ??= await run.driver.stat(key);
    if (!info) throw error;
    return { state: 'unreadable', info, message: `${digest} cannot be read: ${error.message}` };
  }
}

/** The storage reads one chunk ahead while this process hashes, which `LENT_CHUNKS` leaves room for. */
async function hashOf({ report, options }: ScrubRun, stream: ByteStream): Promise<string> {
  const hash = createHash('sha256');
  let ahead = stream.next();
  try {
    for (;;) {
      const { value } = await ahead;
      if (value === undefined) return hash.digest('hex');
      ahead = stream.next();
      // Its failure is met at the next turn.
      ahead.catch(() => undefined);
      hash.update(value);
      report.bytes += value.length;
      options.onProgress(report);
    }
  } finally {
    await stream.return();
  }
}

/** Keeps corrupt bytes for whoever wants to look at them. @returns their new key */
async function copy(driver: StorageDriver, digest: Digest, key: string): Promise<string | undefined> {
  const stream = await driver.read(key);
  if (!stream) return undefined;
  const quarantine = layout.quarantine(hexOf(digest), randomUUID());
  const part = layout.part(randomUUID());
  const writer = await driver.createSegment(part);
  try {
    for await (const chunk of stream) await writer.write(chunk);
    await writer.close();
    await driver.assemble([part], quarantine);
  } finally {
    await writer.abort();
  }
  return quarantine;
}
