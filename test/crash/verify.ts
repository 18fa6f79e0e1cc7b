import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../../src/reference.js';
import type { StorageDriver } from '../../src/storage/driver.js';
import { layout } from '../../src/store/layout.js';
import type { RegistryClient } from '../support/registry-client.js';
import { digestOf } from '../support/registry-fixture.js';
import type { Moment, Register, RepositoryLedger, Upload } from './ledger.js';
import { finish } from './workload.js';

/** What was found, for the figures. */
export interface Findings {
  tags: number;
  blobs: number;
  /** Uploads that went on from where they were. */
  resumed: number;
  /** Registers of which something unacknowledged was found, and of which it was not. */
  kept: number;
  dropped: number;
}

export function noFindings(): Findings {
  return { tags: 0, blobs: 0, resumed: 0, kept: 0, dropped: 0 };
}

/**
 * Looks at everything that was done in the repositories: what was acknowledged is there, whole and byte for byte, what
 * was deleted is not, and of the rest there is all or nothing.
 * @param cut after a power cut at that moment, on a copy of the disk. Otherwise the ledger goes on with what is found, and
 *   uploads must have survived.
 */
export async function verify(
  client: RegistryClient,
  repositories: Iterable<RepositoryLedger>,
  findings: Findings,
  cut?: Moment,
): Promise<void> {
  const queue = [...repositories];
  const next = async (): Promise<void> => {
    for (let one = queue.pop(); one !== undefined; one = queue.pop())
      await new Verification(client, one, findings, cut).run();
  };
  await Promise.all(Array.from({ length: 4 }, next));
}

class Verification {
  constructor(
    private readonly client: RegistryClient,
    private readonly repository: RepositoryLedger,
    private readonly findings: Findings,
    private readonly cut: Moment | undefined,
  ) {}

  async run(): Promise<void> {
    const { repository } = this;
    const blobs = await this.#objects('blobs', repository.blobs);
    const manifests = await this.#objects('manifests', repository.manifests);
    this.findings.blobs += blobs.size;
    for (const digest of manifests)
      for (const reference of repository.references.get(digest)!)
        assert.ok(
          blobs.has(reference) || manifests.has(reference),
          `${repository.name}: ${digest} is there without ${reference}`,
        );
    const tags = new Set<string>();
    for (const [tag, register] of repository.tags) {
      const found = await this.#digest('manifests', tag);
      this.#expect(tag, register, found);
      if (found === undefined) continue;
      assert.ok(manifests.has(found), `${repository.name}:${tag} points at ${found}, which is not there`);
      tags.add(tag);
    }
    this.findings.tags += tags.size;
    const { status, body } = await this.client.must([200, 404], 'GET', `/v2/${repository.name}/tags/list`);
    const listed = status === 200 ? (JSON.parse(body.toString()) as { tags: string[] }).tags : [];
    assert.deepEqual(new Set(listed), tags, `the tags of ${repository.name}`);
    // Last, for those that go on become blobs.
    for (const upload of repository.uploads) await this.#upload(upload);
  }

  async #objects(kind: 'blobs' | 'manifests', registers: Map<Digest, Register<boolean>>): Promise<Set<Digest>> {
    const present = new Set<Digest>();
    for (const [digest, register] of registers) {
      const found = await this.#digest(kind, digest);
      this.#expect(digest, register, found !== undefined);
      if (found !== undefined) present.add(digest);
    }
    return present;
  }

  /** Pulls it: its digest if it is byte for byte what it says, undefined where there is no such thing. */
  async #digest(kind: 'blobs' | 'manifests', reference: string): Promise<Digest | undefined> {
    const path = `/v2/${this.repository.name}/${kind}/${reference}`;
    const { status, headers, body } = await this.client.must([200, 404], 'GET', path);
    if (status === 404) return undefined;
    const digest = digestOf(body);
    assert.equal(headers['docker-content-digest'], digest, path);
    if (reference.includes(':')) assert.equal(digest, reference, path);
    return digest;
  }

  #expect<T>(name: string, register: Register<T>, found: T): void {
    const candidates = register.candidates(this.cut);
    assert.ok(
      candidates.has(found),
      `${this.repository.name} ${name}: ${found} instead of ${[...candidates].join(' or ')}`,
    );
    if (candidates.size > 1) this.findings[found ? 'kept' : 'dropped']++;
    if (!this.cut) register.settle(found);
  }

  async #upload(upload: Upload): Promise<void> {
    const { until, reach } = this.cut ?? { until: Number.POSITIVE_INFINITY, reach: Number.POSITIVE_INFINITY };
    const { path, content, digest } = upload;
    const { status, headers } = await this.client.must([204, 404], 'GET', path);
    const name = `${path} of ${content.length} bytes`;
    if (upload.ended < until) assert.equal(status, 404, `${name} has ended`);
    if (status === 204) {
      const offset = headers.range === '0-0' ? 0 : Number(/^0-(\d+)$/.exec(headers.range!)![1]) + 1;
      const candidates = upload.offset.candidates(this.cut);
      assert.ok(candidates.has(offset), `${name} stands at ${offset} instead of ${[...candidates].join(' or ')}`);
      if (this.cut) await this.client.must(201, 'PUT', `${path}?digest=${digest}`, { body: content.subarray(offset) });
      else await finish(this.client, this.repository, upload, offset);
      assert.equal(await this.#digest('blobs', digest), digest);
      this.findings.resumed++;
    } else if (!this.cut) assert.ok(upload.ending < reach, `${name} is lost`);
    if (!this.cut) this.repository.uploads.delete(upload);
  }
}

/** The blobs of a place, whoever they belong to. @param driver open */
export async function blobsOf(driver: StorageDriver): Promise<Digest[]> {
  const blobs: Digest[] = [];
  for (const { name: prefix } of await driver.list(layout.blobs))
    for (const { name } of await driver.list(`${layout.blobs}/${prefix}`))
      if (await driver.stat(layout.blob(`sha256:${name}`))) blobs.push(`sha256:${name}`);
  return blobs;
}

/** Reads every one of them: its name is the digest of its content. @returns how many there are */
export async function verifyBlobs(driver: StorageDriver): Promise<number> {
  const blobs = await blobsOf(driver);
  for (const digest of blobs) {
    const hash = createHash('sha256');
    for await (const chunk of (await driver.read(layout.blob(digest)))!) hash.update(chunk);
    assert.equal(`sha256:${hash.digest('hex')}`, digest);
  }
  return blobs.length;
}

/** Reads every blob below the root from the disk, whoever it belongs to: its name is the digest of its content. */
export async function verifyFiles(root: string): Promise<number> {
  const blobs = join(root, 'docker/registry/v2/blobs/sha256');
  // Nothing at all may have been pushed.
  const names = existsSync(blobs) ? await readdir(blobs, { recursive: true }) : [];
  const files = names.filter(name => name.endsWith('/data'));
  for (const file of files) {
    const hex = createHash('sha256')
      .update(await readFile(join(blobs, file)))
      .digest('hex');
    assert.equal(hex, file.split('/')[1], join(blobs, file));
  }
  return files.length;
}
