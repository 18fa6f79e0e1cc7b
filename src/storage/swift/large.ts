import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { PAGE_SIZE, WRITE } from '../object/store.js';
import { checkTold, rowsIn, type SwiftClient, TYPE, WIDTH } from './client.js';

/** As many as a manifest may name where nobody has said otherwise. */
const MOST_PARTS = 1000;

/** A part of a large object, by its name in the container. */
export interface Segment {
  readonly name: string;
  readonly size: number;
  readonly hash: string;
}

/** Large objects, and what they are made of, by their names in the container. */
export class LargeObjects {
  constructor(
    private readonly client: SwiftClient,
    private readonly container: string,
    private readonly root: string,
  ) {}

  /** The name of a segment. @param id of the write that makes it */
  segmentName(id: string, number: number): string {
    return `${this.root}segments/${id.slice(0, 3)}/${id.slice(3)}/${String(number).padStart(16, '0')}`;
  }

  /** Copies segments for an object of its own. What was made is removed where one cannot be copied. */
  async copySegments(sources: readonly Segment[], id: string): Promise<Segment[]> {
    const made: Segment[] = sources.map(({ size, hash }, index) => ({
      name: this.segmentName(id, index + 1),
      size,
      hash,
    }));
    const waiting = sources.entries();
    const lane = async () => {
      for (const [index, { name }] of waiting) await this.client.copy(name, made[index]!.name, id);
    };
    const lanes = await Promise.allSettled(Array.from({ length: Math.min(WIDTH, sources.length) }, lane));
    const failed = lanes.find(result => result.status === 'rejected');
    if (!failed) return made;
    await this.client.remove(made.map(({ name }) => name)).catch(() => undefined);
    throw failed.reason;
  }

  /** The bytes of an object in their order: those of any other are itself. */
  async segmentsOf(name: string, size: number): Promise<Segment[]> {
    const segments = await this.madeOf(name);
    if (segments.length > 0) return segments.filter(part => !part.name.endsWith('/manifest'));
    const answer = await this.client.requests.attempt(`look at ${name}`, 'HEAD', signal =>
      this.client.ask('HEAD', signal, name),
    );
    return [{ name, size, hash: hashOf(answer) }];
  }

  /** What a large object is made of, with the manifests between; nothing for any other, and none. */
  async madeOf(name: string): Promise<Segment[]> {
    const head = await this.client.unlessAbsent(`look at ${name}`, 'HEAD', signal =>
      this.client.ask('HEAD', signal, name),
    );
    if (!head) return [];
    checkTold(head);
    if (head.headers['x-static-large-object']) return this.#manifest(name);
    // Such as Distribution has made: whatever is below a name.
    const dynamic = head.headers['x-object-manifest'];
    if (typeof dynamic !== 'string') return [];
    const path = decodeURIComponent(dynamic);
    return this.#listAll(path.slice(path.indexOf('/') + 1));
  }

  async #manifest(name: string): Promise<Segment[]> {
    const query = { 'multipart-manifest': 'get' };
    const listed = await this.client.requests.attempt(`read the manifest of ${name}`, 'GET', async signal => {
      const answer = await this.client.send('GET', signal, name, { query });
      return rowsIn<{ name: string; bytes: number; hash: string; sub_slo?: boolean }>(await text(answer));
    });
    const segments: Segment[] = [];
    for (const { name: path, bytes, hash, sub_slo: isManifest } of listed) {
      const part = path.slice(this.container.length + 2);
      if (isManifest) segments.push(...(await this.#manifest(part)));
      segments.push({ name: part, size: bytes, hash });
    }
    return segments;
  }

  /** One that names no more parts than it may: manifests between name the rest. */
  async writeManifest(name: string, id: string, segments: readonly Segment[]): Promise<void> {
    let named = segments;
    if (segments.length > MOST_PARTS) {
      const between: Segment[] = [];
      for (let at = 0; at < segments.length; at += MOST_PARTS) {
        const group = segments.slice(at, at + MOST_PARTS);
        const one = `${this.segmentName(id, at + 1)}/manifest`;
        await this.writeManifest(one, id, group);
        const answer = await this.client.requests.attempt(`look at ${one}`, 'HEAD', signal =>
          this.client.ask('HEAD', signal, one),
        );
        between.push({ name: one, size: group.reduce((sum, { size }) => sum + size, 0), hash: hashOf(answer) });
      }
      named = between;
    }
    const body = [
      JSON.stringify(
        named.map(({ name, size, hash }) => ({ path: `/${this.container}/${name}`, size_bytes: size, etag: hash })),
      ),
    ];
    const headers = { ...TYPE, [`x-object-meta-${WRITE}`]: id };
    const query = { 'multipart-manifest': 'put' };
    await this.client.requests.attempt(`complete ${name}`, 'PUT manifest', signal =>
      this.client.ask('PUT', signal, name, { body, headers, query }),
    );
  }

  async #listAll(prefix: string): Promise<Segment[]> {
    const segments: Segment[] = [];
    for (let marker: string | undefined; ; ) {
      const listed = await this.client.list({ prefix, marker, limit: String(PAGE_SIZE) });
      for (const { name, bytes, hash } of listed) segments.push({ name: name!, size: bytes!, hash: hash! });
      if (listed.length < PAGE_SIZE) return segments;
      marker = listed.at(-1)!.name;
    }
  }
}

function hashOf(head: IncomingMessage): string {
  checkTold(head);
  return String(head.headers.etag).replaceAll('"', '');
}
