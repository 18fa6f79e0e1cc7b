import { createHash } from 'node:crypto';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { OperatorError } from '../errors.js';
import { algorithmOf, type Digest, hexOf, isDigest, isRepositoryName, isTag } from '../reference.js';
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
    const found: Pick<Descriptor, 'digest'>[] = [];
    try {
      for await (const page of this.#pages(`/v2/${repository}/referrers/${subject}`, pull(repository)))
        found.push(...descriptorsIn(page));
    } catch (error) {
      // What does not know the API does not always say so with 404.
      if (!(error instanceof Unanswered) || error.isPassing) throw error;
    }
    if (found.length > 0) return found;
    // Where there is none, clients keep a list by themselves (distribution-spec, "Referrers Tag Schema").
    const kept = await this.manifest(repository, `${algorithmOf(subject)}-${hexOf(subject).slice(0, 64)}`);
    return kept ? descriptorsIn((parsed(kept.data) ?? {}) as Record<string, unknown>) : [];
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
      for await (const chunk of unbroken(answer, `${client.host} has broken off in ${digest}`)) {
        const wanted = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - wanted.length;
        if (wanted.length > 0) yield wanted;
      }
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
    try {
      const { status, headers } = await this.client.read('POST', path, [201, 202], asking);
      if (status === 201) return true;
      await this.#cancel(repository, headers.location);
    } catch (error) {
      // Not every registry can, or lets whoever may push here read there: then the bytes are sent.
      if (!(error instanceof Unanswered) || error.isPassing) throw error;
    }
    return false;
  }

  async putBlob(repository: string, blob: Descriptor, open: OpenBlob): Promise<void> {
    const how = { resumed: false };
    try {
      await this.#upload(repository, blob, open, how);
    } catch (error) {
      // Some registries have been told where the rest belongs, and put it elsewhere.
      if (!how.resumed || !(error instanceof Unanswered) || error.status !== 400) throw error;
      await this.#upload(repository, blob, open, how);
    }
  }

  async #upload(repository: string, blob: Descriptor, open: OpenBlob, how: { resumed: boolean }): Promise<void> {
    const asking = { scope: push(repository), headers: { 'Content-Length': 0 } };
    const started = await this.client.read('POST', `/v2/${repository}/blobs/uploads/`, [202], asking);
    let location = this.#located(started.headers.location);
    let offset = 0;
    let begun = false;
    for (let failures = 0; offset < blob.size; )
      try {
        const start = offset;
        const headers = {
          'Content-Type': 'application/octet-stream',
          'Content-Length': blob.size - start,
          // Not for the first bytes at first: a whole body says all by its length, and some registries take no range then. Later
          // the registry may have kept more, by the time that this arrives, than it has just said.
          ...(begun && { 'Content-Range': `${start}-${blob.size - 1}` }),
        };
        const sent = { scope: push(repository), headers, send: (asked: ClientRequest) => sendAll(asked, open(start)) };
        const answer = await this.client.ask('PATCH', location, [202], sent, { once: true });
        answer.resume();
        location = this.#located(answer.headers.location);
        offset = blob.size;
      } catch (error) {
        if (!(error instanceof Unanswered) || !(error.isPassing || error.status === 416)) throw error;
        begun = true;
        how.resumed = true;
        // The registry says how far it has come; where it has forgotten, that fails as well.
        const status = await this.client.read('GET', location, [204], { scope: push(repository) });
        const last = Number(/^(?:bytes=)?0-(\d+)$/.exec(String(status.headers.range ?? ''))?.[1] ?? 0);
        // `0-0` is what registries say of nothing as well as of one byte.
        const arrived = last === 0 ? 0 : last + 1;
        location = status.headers.location === undefined ? location : this.#located(status.headers.location);
        failures = arrived > offset ? 0 : failures + 1;
        if (failures === TRIES || arrived > blob.size) throw error;
        offset = arrived;
        if (failures > 0) await this.client.pauseAfter(failures, error);
      }
    if (!URL.canParse(location, `https://${this.name}`))
      throw new OperatorError(`${this.name} takes a blob to what is no URL`);
    const target = new URL(location, `https://${this.name}`);
    target.searchParams.set('digest', blob.digest);
    const finish = location.startsWith('/') ? `${target.pathname}${target.search}` : target.href;
    try {
      await this.client.read('PUT', finish, [201], asking);
    } catch (error) {
      // Its answer may have been lost, and the next one is that the upload is over.
      if (!(error instanceof Unanswered) || !(await this.hasBlob(repository, blob))) throw error;
    }
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

/** A body that ends before its end is told of as what the registry did. */
async function* unbroken(answer: IncomingMessage, what: string): AsyncGenerator<Buffer> {
  try {
    yield* answer as AsyncIterable<Buffer>;
  } catch {
    throw new Unanswered(undefined, what);
  }
  if (!answer.complete) throw new Unanswered(undefined, what);
}

/** Ends when all of it has left: then none of the chunks is needed any more. */
async function sendAll(asked: ClientRequest, body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
  let left: () => void = () => {};
  asked.once('close', () => left());
  try {
    for await (const chunk of body) {
      if (asked.destroyed) return;
      // The source may use the chunk again: so not only until there is room for the next.
      await new Promise<void>(done => {
        left = done;
        asked.write(chunk, () => done());
      });
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

function descriptorsIn({ manifests }: Record<string, unknown>): Array<Pick<Descriptor, 'digest'>> {
  return (Array.isArray(manifests) ? manifests : []).flatMap(one =>
    typeof one?.digest === 'string' && isDigest(one.digest) ? [{ digest: one.digest as Digest }] : [],
  );
}

function parsed(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return undefined;
  }
}
