import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { ClientRequest } from 'node:http';
import { OperatorError } from '../errors.js';
import { type Digest, isDigest, isRepositoryName, isTag } from '../reference.js';
import type { Descriptor } from '../store/manifest.js';
import type { ImageSource, ImageTarget, OpenBlob, PlacedManifest } from './place.js';
import { type RegistryClient, Unanswered } from './registry-client.js';

/** Every kind that there is, or registries make another one of what they have. */
const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.artifact.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

/** Entries of one page of a list. */
const PAGE = 500;
/** How often a blob is tried to be pushed in all, while none of its bytes arrive. */
const TRIES = 5;

/** A registry that is reached by the distribution API. */
export class RegistryPlace implements ImageSource, ImageTarget {
  readonly name: string;
  /** Whether the referrers API is there; undefined until it was asked for. */
  #tellsReferrers: boolean | undefined;

  constructor(private readonly client: RegistryClient) {
    this.name = client.host;
  }

  async close(): Promise<void> {
    this.client.close();
  }

  async *repositories(): AsyncGenerator<string> {
    for await (const page of this.#pages(`/v2/_catalog?n=${PAGE}`, 'registry:catalog:*'))
      yield* names(page.repositories, isRepositoryName);
  }

  async *tags(repository: string): AsyncGenerator<string> {
    for await (const page of this.#pages(`/v2/${repository}/tags/list?n=${PAGE}`, pull(repository)))
      yield* names(page.tags, isTag);
  }

  async *#pages(first: string, scope: string): AsyncGenerator<Record<string, unknown>> {
    const seen = new Set<string>();
    for (let next: string | undefined = first; next !== undefined; ) {
      // A list without an end would be one that leads back to itself.
      if (seen.has(next)) throw new OperatorError(`${this.name} has a list whose pages lead round in a circle`);
      seen.add(next);
      const { status, headers, data } = await this.client.read('GET', next, [200, 404], { scope });
      if (status === 404) return;
      yield (parsed(data) ?? {}) as Record<string, unknown>;
      const link = /<([^>]*)>\s*;\s*rel="?next"?/i.exec(String(headers.link ?? ''))?.[1];
      if (link === undefined) return;
      const url: URL = new URL(link, `https://${this.name}${next}`);
      next = `${url.pathname}${url.search}`;
    }
  }

  async manifest(repository: string, reference: string): Promise<PlacedManifest | undefined> {
    const { status, headers, data } = await this.client.read(
      'GET',
      `/v2/${repository}/manifests/${reference}`,
      [200, 404],
      { scope: pull(repository), headers: { Accept: ACCEPT } },
    );
    if (status === 404) return undefined;
    const said = headers['docker-content-digest'];
    const digest: Digest = isDigest(reference)
      ? reference
      : typeof said === 'string' && isDigest(said)
        ? said
        : `sha256:${createHash('sha256').update(data).digest('hex')}`;
    return { digest, mediaType: String(headers['content-type'] ?? '').replace(/;.*/s, ''), data };
  }

  async referrers(repository: string, subject: Digest): Promise<readonly Pick<Descriptor, 'digest'>[]> {
    if (this.#tellsReferrers === false) return [];
    const found: Pick<Descriptor, 'digest'>[] = [];
    try {
      const path = `/v2/${repository}/referrers/${subject}`;
      for await (const page of this.#pages(path, pull(repository))) {
        this.#tellsReferrers = true;
        const { manifests } = page as { manifests?: unknown };
        for (const one of Array.isArray(manifests) ? manifests : [])
          if (typeof one?.digest === 'string' && isDigest(one.digest)) found.push({ digest: one.digest });
      }
    } catch (error) {
      // What does not know the API does not always say so with 404.
      if (!(error instanceof Unanswered) || error.isPassing || this.#tellsReferrers) throw error;
    }
    this.#tellsReferrers ??= false;
    return found;
  }

  openBlob(repository: string, { digest }: Descriptor): OpenBlob {
    const { client } = this;
    const path = `/v2/${repository}/blobs/${digest}`;
    return async function* (start) {
      const headers = start > 0 ? { Range: `bytes=${start}-` } : {};
      const answer = await client.ask('GET', path, start > 0 ? [206, 200] : [200], {
        scope: pull(repository),
        headers,
      });
      // Who does not know ranges sends all of it again.
      let skip = answer.statusCode === 200 ? start : 0;
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        const wanted = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - wanted.length;
        if (wanted.length > 0) yield wanted;
      }
      if (!answer.complete) throw new Unanswered(undefined, `${client.host} has broken off in ${digest}`);
    };
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return this.#digestOf(repository, tag);
  }

  async hasManifest(repository: string, digest: Digest): Promise<boolean> {
    return (await this.#digestOf(repository, digest)) !== undefined;
  }

  async #digestOf(repository: string, reference: string): Promise<Digest | undefined> {
    const { status, headers } = await this.client.read('HEAD', `/v2/${repository}/manifests/${reference}`, [200, 404], {
      scope: push(repository),
      headers: { Accept: ACCEPT },
    });
    if (status === 404) return undefined;
    const said = headers['docker-content-digest'];
    if (typeof said === 'string' && isDigest(said)) return said;
    return (await this.manifest(repository, reference))?.digest;
  }

  async hasBlob(repository: string, { digest }: Descriptor): Promise<boolean> {
    const path = `/v2/${repository}/blobs/${digest}`;
    return (await this.client.read('HEAD', path, [200, 404], { scope: push(repository) })).status === 200;
  }

  async mount(repository: string, { digest }: Descriptor, from: string): Promise<boolean> {
    const path = `/v2/${repository}/blobs/uploads/?${new URLSearchParams({ mount: digest, from })}`;
    // Mounting takes the right to read where it comes from.
    const asking = { scope: `${push(repository)} ${pull(from)}`, headers: { 'Content-Length': 0 } };
    const { status, headers } = await this.client.read('POST', path, [201, 202], asking);
    if (status === 201) return true;
    await this.#cancel(repository, headers.location);
    return false;
  }

  async putBlob(repository: string, blob: Descriptor, open: OpenBlob): Promise<void> {
    const asking = { scope: push(repository), headers: { 'Content-Length': 0 } };
    const started = await this.client.read('POST', `/v2/${repository}/blobs/uploads/`, [202], asking);
    let location = this.#located(started.headers.location);
    let offset = 0;
    for (let failures = 0; offset < blob.size; )
      try {
        const start = offset;
        const headers = {
          'Content-Type': 'application/octet-stream',
          'Content-Length': blob.size - start,
          // Not for the first bytes: a whole body says all by its length, and some registries take no range then.
          ...(start > 0 && { 'Content-Range': `${start}-${blob.size - 1}` }),
        };
        const sent = { scope: push(repository), headers, send: (asked: ClientRequest) => sendAll(asked, open(start)) };
        const answer = await this.client.ask('PATCH', location, [202], sent, { once: true });
        answer.resume();
        location = this.#located(answer.headers.location);
        offset = blob.size;
      } catch (error) {
        if (!(error instanceof Unanswered) || !(error.isPassing || error.status === 416)) throw error;
        // The registry says how far it has come; where it has forgotten, that fails as well.
        const status = await this.client.read('GET', location, [204], { scope: push(repository) });
        const arrived = Number(/^(?:bytes=)?0-(\d+)$/.exec(String(status.headers.range ?? ''))?.[1] ?? -1) + 1;
        location = status.headers.location === undefined ? location : this.#located(status.headers.location);
        failures = arrived > offset ? 0 : failures + 1;
        if (failures === TRIES || arrived > blob.size) throw error;
        offset = arrived;
      }
    const target = new URL(location, `https://${this.name}`);
    target.searchParams.set('digest', blob.digest);
    const finish = location.startsWith('/') ? `${target.pathname}${target.search}` : target.href;
    await this.client.read('PUT', finish, [201], asking);
  }

  async #cancel(repository: string, location: string | undefined): Promise<void> {
    if (location === undefined) return;
    // It would be forgotten anyway, one day.
    await this.client
      .read('DELETE', this.#located(location), [204, 202], { scope: push(repository) })
      .catch(() => undefined);
  }

  #located(location: string | undefined): string {
    if (location === undefined) throw new OperatorError(`${this.name} takes a blob without saying where`);
    return location;
  }

  async putManifest(
    repository: string,
    { digest, mediaType, data }: PlacedManifest,
    tag: string | undefined,
  ): Promise<void> {
    const path = `/v2/${repository}/manifests/${tag ?? digest}`;
    const headers = { 'Content-Type': mediaType, 'Content-Length': data.length };
    const send = (asked: ClientRequest) => sendAll(asked, [data]);
    // A manifest can be sent as often as one likes: it is the same each time.
    const answer = await this.client.ask('PUT', path, [201], { scope: push(repository), headers, send });
    answer.resume();
  }
}

/** Ends when all of it has left: then none of the chunks is needed any more. */
async function sendAll(asked: ClientRequest, body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
  const closed = once(asked, 'close').then(
    () => undefined,
    () => undefined,
  );
  try {
    for await (const chunk of body) {
      if (asked.destroyed) return;
      // The source may use the chunk again: so not only until there is room for the next.
      await Promise.race([new Promise<void>(done => asked.write(chunk, () => done())), closed]);
    }
  } catch (error) {
    // The source has tried again what can be, and this registry need not.
    if (!(error instanceof Unanswered)) throw error;
    throw new OperatorError(error.message, { ...(error.fix !== undefined && { fix: error.fix }), cause: error });
  }
}

function pull(repository: string): string {
  return `repository:${repository}:pull`;
}

function push(repository: string): string {
  return `repository:${repository}:pull,push`;
}

/** What a registry says it has, as far as it can be a name at all. */
function names(list: unknown, isName: (text: string) => boolean): string[] {
  return (Array.isArray(list) ? list : []).filter((name): name is string => typeof name === 'string' && isName(name));
}

function parsed(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return undefined;
  }
}
