import type { Digest } from '../../src/reference.js';
import type { Random } from '../support/random.js';
import { Lost, type RegistryClient } from '../support/registry-client.js';
import { digestOf, indexOf, manifestOf, OCI_INDEX, OCI_MANIFEST } from '../support/registry-fixture.js';
import { now, type RepositoryLedger, Upload } from './ledger.js';

/** One of the ways in which clients send a blob: in one request, in two, as docker does, as others do. */
type Style = 'whole' | 'put' | 'streamed' | 'chunked';
export const STYLES: readonly Style[] = ['whole', 'put', 'streamed', 'chunked'];

/** Where `DELETE` answers for a whole repository. */
const REPOSITORIES = '/api/v1/repositories';

/** Pushes one blob, and notes what was begun and what was acknowledged. */
export async function pushBlob(
  client: RegistryClient,
  repository: RepositoryLedger,
  content: Buffer,
  style: Style,
): Promise<Digest> {
  const digest = digestOf(content);
  if (style === 'whole') {
    const acknowledge = repository.blob(digest).begin(true);
    const path = `/v2/${repository.name}/blobs/uploads/?digest=${digest}`;
    await client.must(201, 'POST', path, { body: content });
    acknowledge();
    return digest;
  }
  const upload = await startUpload(client, repository, content);
  if (style === 'streamed') await sendChunk(client, upload, 0, content.length, true);
  // The last chunk comes with the PUT.
  const cuts = { put: [], streamed: [], chunked: [0.2, 0.7] }[style].map(part => Math.floor(content.length * part));
  for (const [index, end] of cuts.entries()) await sendChunk(client, upload, cuts[index - 1] ?? 0, end, false);
  await finish(client, repository, upload, style === 'streamed' ? content.length : (cuts.at(-1) ?? 0));
  return digest;
}

async function startUpload(client: RegistryClient, repository: RepositoryLedger, content: Buffer): Promise<Upload> {
  const { headers } = await client.must(202, 'POST', `/v2/${repository.name}/blobs/uploads/`);
  const upload = new Upload(headers.location!, content, digestOf(content));
  repository.uploads.add(upload);
  return upload;
}

async function sendChunk(
  client: RegistryClient,
  upload: Upload,
  start: number,
  end: number,
  streamed: boolean,
): Promise<void> {
  const acknowledge = upload.offset.begin(end);
  const headers = streamed ? { 'transfer-encoding': 'chunked' } : { 'content-range': `${start}-${end - 1}` };
  await client.must(202, 'PATCH', upload.path, { headers, body: upload.content.subarray(start, end) });
  acknowledge();
}

/** Sends what is missing and ends the upload. */
export async function finish(
  client: RegistryClient,
  repository: RepositoryLedger,
  upload: Upload,
  offset: number,
): Promise<void> {
  upload.offset.begin(upload.content.length);
  upload.ending = Math.min(upload.ending, now());
  const acknowledge = repository.blob(upload.digest).begin(true);
  await client.must(201, 'PUT', `${upload.path}?digest=${upload.digest}`, { body: upload.content.subarray(offset) });
  acknowledge();
  upload.ended = now();
}

/** Pushes a manifest whose references are there. */
export async function pushManifest(
  client: RegistryClient,
  repository: RepositoryLedger,
  tag: string,
  manifest: Buffer,
  references: readonly Digest[],
  type: string = OCI_MANIFEST,
): Promise<Digest> {
  const digest = digestOf(manifest);
  repository.references.set(digest, references);
  const done = [repository.tag(tag).begin(digest), repository.manifest(digest).begin(true)];
  await client.must(201, 'PUT', `/v2/${repository.name}/manifests/${tag}`, {
    headers: { 'content-type': type },
    body: manifest,
  });
  for (const acknowledge of done) acknowledge();
  return digest;
}

/** Layers and config, unlike all others. */
export interface Image {
  readonly layers: readonly Buffer[];
  readonly config: Buffer;
}

export function newImage(random: Random, sizes: readonly number[]): Image {
  return {
    layers: sizes.map(size => random.bytes(size)),
    config: Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', id: random.bytes(8).toString('hex') })),
  };
}

/** Pushes blobs and manifest of an image, each layer in a style of its own, some at a time as clients do. */
export async function pushImage(
  client: RegistryClient,
  repository: RepositoryLedger,
  tag: string,
  { layers, config }: Image,
  styles: readonly Style[],
): Promise<Digest> {
  const blobs = [...layers, config];
  const pushes = blobs.map((blob, index) => pushBlob(client, repository, blob, styles[index % styles.length]!));
  // Where one is lost, the others are yet to find out.
  await Promise.allSettled(pushes);
  return pushManifest(client, repository, tag, manifestOf(config, layers), await Promise.all(pushes));
}

/** Mounts a blob of one repository in another. */
export async function mountBlob(
  client: RegistryClient,
  repository: RepositoryLedger,
  digest: Digest,
  from: RepositoryLedger,
): Promise<void> {
  const acknowledge = repository.blob(digest).begin(true);
  await client.must(201, 'POST', `/v2/${repository.name}/blobs/uploads/?mount=${digest}&from=${from.name}`);
  acknowledge();
}

/** An image that its client alone changes, in a repository of its own. */
interface OwnImage {
  readonly repository: RepositoryLedger;
  readonly image: Image;
  readonly digest: Digest;
}

const TAG = '1';

/** What a worker does, and how often. */
const SHARES = {
  'push an image': 35,
  'push an index': 6,
  'push a blob': 6,
  'leave an upload': 6,
  'mount an image': 7,
  'overwrite a tag': 25,
  'delete a shared tag': 5,
  'delete an image': 10,
};
type Action = keyof typeof SHARES;
export const ACTIONS = Object.keys(SHARES) as Action[];

/**
 * A client that pushes, overwrites and deletes, one thing after the other, all of it chosen at random. What it makes is
 * small, for what breaks in a crash is the order of things, not their size.
 */
export class Worker {
  readonly #own: OwnImage[] = [];
  #count = 0;
  /** How many things it has done to their end. */
  done = 0;

  constructor(
    readonly name: string,
    private readonly random: Random,
    /** Gives the ledger of a repository. */
    private readonly repository: (name: string) => RepositoryLedger,
    /** Repositories whose tag every worker overwrites and deletes. */
    private readonly shared: readonly string[],
    /** How large, at least and at most, the layers are that do not fit into the buffers of a connection. */
    private readonly large: readonly [number, number] = [200_000, 1_500_000],
  ) {}

  /** Does one thing after the other until it is told to stop. @returns how it lost the server, if it did */
  async work(client: RegistryClient, more: () => boolean = () => true): Promise<Lost | undefined> {
    try {
      while (more()) await this.act(client);
      return undefined;
    } catch (error) {
      if (error instanceof Lost) return error;
      throw error;
    }
  }

  /** Does one thing. @throws Lost where it cannot know what came of it */
  async act(client: RegistryClient): Promise<void> {
    const total = Object.values(SHARES).reduce((sum, share) => sum + share);
    let at = this.random.between(1, total);
    const action = ACTIONS.find(name => {
      at -= SHARES[name];
      return at <= 0;
    })!;
    await this.does(action, client);
    this.done += 1;
  }

  async does(action: Action, client: RegistryClient): Promise<void> {
    switch (action) {
      case 'push an image':
        return this.#pushNew(client);
      case 'push an index':
        return this.#pushIndex(client);
      case 'push a blob':
        return this.#pushBlob(client);
      case 'leave an upload':
        return this.#leaveUpload(client);
      case 'mount an image':
        return this.#mount(client);
      case 'overwrite a tag':
        return this.#overwrite(client);
      case 'delete a shared tag':
        return this.#deleteShared(client);
      case 'delete an image':
        return this.#delete(client);
    }
  }

  async #pushNew(client: RegistryClient): Promise<void> {
    const repository = this.#newRepository();
    const image = this.#image();
    const digest = await pushImage(client, repository, TAG, image, this.#styles());
    this.#own.push({ repository, image, digest });
  }

  async #pushBlob(client: RegistryClient): Promise<void> {
    const content = this.random.bytes(this.random.between(100, 50_000));
    await pushBlob(client, this.#newRepository(), content, this.random.pick(STYLES));
  }

  async #leaveUpload(client: RegistryClient): Promise<void> {
    const content = this.random.bytes(this.random.between(1000, 50_000));
    const end = this.random.between(100, content.length);
    const upload = await startUpload(client, this.#newRepository(), content);
    await sendChunk(client, upload, 0, Math.floor(end / 2), false);
    await sendChunk(client, upload, Math.floor(end / 2), end, false);
  }

  async #overwrite(client: RegistryClient): Promise<void> {
    const repository = this.repository(this.random.pick(this.shared));
    await pushImage(client, repository, TAG, this.#image(), this.#styles());
  }

  async #deleteShared(client: RegistryClient): Promise<void> {
    const repository = this.repository(this.random.pick(this.shared));
    const acknowledge = repository.tag(TAG).begin(undefined);
    // Another worker may have been first, and one before the first push finds no repository.
    await client.must([202, 404], 'DELETE', `/v2/${repository.name}/manifests/${TAG}`);
    acknowledge();
  }

  /** Deletes an image of its own in one of four ways. */
  async #delete(client: RegistryClient): Promise<void> {
    const at = this.random.between(0, this.#own.length - 1);
    const [own] = this.#own.splice(at, 1);
    if (own === undefined) return this.#pushNew(client);
    const { repository, image, digest } = own;
    const manifests = `/v2/${repository.name}/manifests`;
    const way = this.random.between(0, 3);
    if (way === 0) {
      const acknowledge = repository.beginRemoval();
      await client.must(204, 'DELETE', `${REPOSITORIES}/${repository.name}`);
      return acknowledge();
    }
    if (way === 1) {
      const acknowledge = repository.tag(TAG).begin(undefined);
      await client.must(202, 'DELETE', `${manifests}/${TAG}`);
      return acknowledge();
    }
    const done = [repository.tag(TAG).begin(undefined), repository.manifest(digest).begin(false)];
    await client.must(202, 'DELETE', `${manifests}/${digest}`);
    for (const acknowledge of done) acknowledge();
    if (way === 2) return;
    const layer = digestOf(image.layers[0]!);
    const acknowledge = repository.blob(layer).begin(false);
    await client.must(202, 'DELETE', `/v2/${repository.name}/blobs/${layer}`);
    acknowledge();
  }

  /** The same image in another repository, without sending its blobs. */
  async #mount(client: RegistryClient): Promise<void> {
    if (this.#own.length === 0) return this.#pushNew(client);
    const { repository: from, image } = this.random.pick(this.#own);
    const repository = this.#newRepository();
    const digests = [...image.layers, image.config].map(blob => digestOf(blob));
    for (const digest of digests) await mountBlob(client, repository, digest, from);
    const digest = await pushManifest(client, repository, TAG, manifestOf(image.config, image.layers), digests);
    this.#own.push({ repository, image, digest });
  }

  /** Two images and, last, the index that the tag is for. */
  async #pushIndex(client: RegistryClient): Promise<void> {
    const repository = this.#newRepository();
    const manifests: Buffer[] = [];
    for (const architecture of ['amd64', 'arm64']) {
      const image = this.#image();
      await pushImage(client, repository, architecture, image, this.#styles());
      manifests.push(manifestOf(image.config, image.layers));
    }
    await pushManifest(
      client,
      repository,
      TAG,
      indexOf(manifests),
      manifests.map(data => digestOf(data)),
      OCI_INDEX,
    );
  }

  #newRepository(): RepositoryLedger {
    return this.repository(`${this.name}/app-${++this.#count}`);
  }

  #image(): Image {
    const sizes = Array.from({ length: this.random.between(1, 3) }, () => this.random.between(100, 50_000));
    if (this.random.chance(0.2)) sizes[0] = this.random.between(...this.large);
    return newImage(this.random, sizes);
  }

  #styles(): Style[] {
    return Array.from({ length: 4 }, () => this.random.pick(STYLES));
  }
}
