import { createHash } from 'node:crypto';
import { OperatorError } from '../errors.js';
import { type Digest, isDigest } from '../reference.js';
import { inBatches } from '../store/batches.js';
import { type Descriptor, readManifest } from '../store/manifest.js';
import { TarWriter } from '../tar.js';
import { LIST } from './docker-list.js';
import type { Engine } from './engine.js';
import { listOf, membersOf } from './files.js';
import { blobPath, INDEX, LayoutIndex, MARK, MARK_CONTENT } from './layout-index.js';
import { dockerName, parseImageName, Shelf } from './names.js';
import type { ImageSource, ImageTarget, OpenBlob, PlacedManifest } from './place.js';
import { HERE, type Platform } from './platform.js';
import { Spool } from './spool.js';
import { TarFiles } from './tar-files.js';
import { openArchive } from './tar-source.js';

/** For people. */
const NAME = 'the Docker Engine';

/** What an image was saved as, for as long as somebody reads it. */
interface Saved {
  readonly source: ImageSource;
  readonly digests: Set<Digest>;
  readers: number;
  isReleased: boolean;
}

/** The images of the Docker Engine of this machine, each saved to a file without a name when it is asked for. */
export class EngineSource implements ImageSource {
  readonly name = NAME;
  readonly #saved = new Map<string, Promise<Saved>>();
  /** Of these the ones that are there: what fails, or is not done, is no matter of the others. */
  readonly #ready = new Set<Saved>();

  private constructor(
    private readonly engine: Engine,
    private readonly host: string | undefined,
  ) {}

  /**
   * @param host that stands before the names there; undefined for none, or any
   * @throws OperatorError where no Engine answers: before anything is made of what it has
   */
  static async open(engine: Engine, host: string | undefined): Promise<EngineSource> {
    await engine.get('/version');
    return new EngineSource(engine, host);
  }

  async close(): Promise<void> {
    for (const key of [...this.#saved.keys()]) await this.#release(key);
  }

  async *repositories(): AsyncGenerator<string> {
    yield* (await this.#shelf()).repositories();
  }

  async *tags(repository: string): AsyncGenerator<string> {
    yield* (await this.#shelf()).tags(repository);
  }

  async about(repository: string, tag: string): Promise<{ digest: Digest; bytes: number } | undefined> {
    const local = await this.#localName(repository, tag);
    const { Id, Size } = membersOf(local !== undefined && (await this.engine.get(`/images/${local}/json`)));
    return typeof Id === 'string' && isDigest(Id) ? { digest: Id, bytes: Number(Size) } : undefined;
  }

  /** By the names that images have there. */
  async #shelf(): Promise<Shelf<string>> {
    const shelf = new Shelf<string>(NAME);
    for (const image of listOf(await this.engine.get('/images/json')))
      for (const written of listOf(membersOf(image).RepoTags).map(String)) {
        if (this.host !== undefined && !written.startsWith(`${this.host}/`)) continue;
        const name = parseImageName(written, '');
        if (name) shelf.add(name, String(membersOf(image).Id), written);
      }
    return shelf;
  }

  async manifest(repository: string, reference: string): Promise<PlacedManifest | undefined> {
    if (isDigest(reference)) {
      for (const saved of this.#ready) {
        const found = await saved.source.manifest(repository, reference);
        if (found) return noted(saved, found);
      }
      return undefined;
    }
    const key = `${repository}:${reference}`;
    const local = await this.#localName(repository, reference);
    if (local === undefined) return undefined;
    const saving = this.#saved.get(key) ?? this.#save(local);
    this.#saved.set(key, saving);
    const saved = await saving;
    const only = await saved.source.only!();
    const found = await saved.source.manifest(only.repository ?? '', only.reference);
    return found && noted(saved, found);
  }

  /** The very name is meant, and where there is none, the one with a host before it. */
  async #localName(repository: string, tag: string): Promise<string | undefined> {
    const exact = `${this.host === undefined ? '' : `${this.host}/`}${repository}:${tag}`;
    if (await this.engine.get(`/images/${exact}/json`)) return exact;
    return this.host === undefined ? (await this.#shelf()).find(repository, tag) : undefined;
  }

  async #save(local: string): Promise<Saved> {
    const answer = await this.engine.stream(`/images/${local}/get`);
    if (!answer) throw new OperatorError(`${NAME} has no ${local}`);
    const spool = await Spool.create();
    try {
      for await (const chunk of answer as AsyncIterable<Buffer>) await spool.append(chunk);
    } catch (cause) {
      await spool.close();
      if (cause instanceof OperatorError) throw cause;
      throw new OperatorError(`${NAME} has broken off in ${local}`, { cause });
    }
    const files = await TarFiles.of(`${local} of ${NAME}`, spool.file);
    const source = await openArchive(files, 'image');
    const saved = { source, digests: new Set<Digest>(), readers: 0, isReleased: false };
    this.#ready.add(saved);
    return saved;
  }

  async release(repository: string, reference: string): Promise<void> {
    await this.#release(`${repository}:${reference}`);
  }

  async #release(key: string): Promise<void> {
    const saving = this.#saved.get(key);
    this.#saved.delete(key);
    const saved = await saving?.catch(() => undefined);
    if (!saved) return;
    saved.isReleased = true;
    this.#ready.delete(saved);
    if (saved.readers === 0) await saved.source.close();
  }

  async referrers(): Promise<readonly Descriptor[]> {
    return [];
  }

  openBlob(repository: string, blob: Descriptor): OpenBlob {
    const place = this;
    return async function* (start) {
      const saved = [...place.#ready].find(({ digests }) => digests.has(blob.digest));
      if (!saved) throw new OperatorError(`${NAME} has no ${blob.digest}`);
      saved.readers++;
      try {
        yield* saved.source.openBlob(repository, blob)(start);
      } finally {
        saved.readers--;
        if (saved.isReleased && saved.readers === 0) await saved.source.close();
      }
    };
  }
}

function noted(saved: Saved, found: PlacedManifest): PlacedManifest {
  for (const { digest } of readManifest(found.data)?.blobs ?? []) saved.digests.add(digest);
  return found;
}

/** The same as a target: each image is loaded when all of it is known, straight from where it comes from. */
export class EngineTarget implements ImageTarget {
  readonly name = NAME;
  readonly #blobs = new Map<Digest, OpenBlob>();
  #chains: Promise<ReadonlySet<string>> | undefined;

  private constructor(
    private readonly engine: Engine,
    private readonly host: string | undefined,
    readonly platform: Platform,
  ) {}

  static async open(engine: Engine, host: string | undefined): Promise<EngineTarget> {
    const { Os, Arch } = membersOf(await engine.get('/version'));
    const platform = typeof Os === 'string' && typeof Arch === 'string' ? { os: Os, architecture: Arch } : HERE;
    return new EngineTarget(engine, host, platform);
  }

  async close(): Promise<void> {}

  async resolve(repository: string, tag: string, wanted: PlacedManifest): Promise<Digest | undefined> {
    const { Id } = membersOf(await this.engine.get(`/images/${this.#local(repository, tag)}/json`));
    // An image's ID is the digest of its configuration.
    if (Id === readManifest(wanted.data)?.config?.digest) return wanted.digest;
    return typeof Id === 'string' && isDigest(Id) ? Id : undefined;
  }

  #local(repository: string, tag: string): string {
    return `${this.host === undefined ? '' : `${this.host}/`}${repository}:${tag}`;
  }

  async hasManifest(): Promise<boolean> {
    return false;
  }

  async hasBlob(): Promise<boolean> {
    return false;
  }

  async mount(): Promise<boolean> {
    return false;
  }

  async putBlob(_repository: string, { digest }: Descriptor, open: OpenBlob): Promise<void> {
    this.#blobs.set(digest, open);
  }

  async putManifest(repository: string, placed: PlacedManifest, tag: string | undefined): Promise<void> {
    const { config, blobs } = readManifest(placed.data) ?? {};
    if (!config || !blobs) throw new OperatorError(`${repository} is no image that ${NAME} takes`);
    const local = tag === undefined ? [] : [this.#local(repository, tag)];
    const layers = blobs.filter(blob => blob !== config);
    const index = LayoutIndex.empty(NAME, '');
    const name = tag === undefined ? undefined : { repository, tag };
    index.put(placed, name, name && (this.host === undefined ? dockerName(name) : local[0]));
    const list = [
      { Config: blobPath(config.digest), RepoTags: local, Layers: layers.map(({ digest }) => blobPath(digest)) },
    ];
    const send = (left: ReadonlySet<Digest>) =>
      this.engine.load(async write => {
        const tar = new TarWriter(write, { fillUp: false });
        const add = (path: string, data: Buffer) => tar.add(path, data.length, new Date(0), once(data));
        for (const { digest, size } of new Map(blobs.map(blob => [blob.digest, blob])).values())
          if (!left.has(digest))
            await tar.add(
              blobPath(digest),
              size,
              new Date(0),
              this.#blobs.get(digest)!(0) as AsyncIterable<Uint8Array>,
            );
        await add(blobPath(placed.digest), placed.data);
        await add(MARK, MARK_CONTENT);
        await add(INDEX, index.toJson());
        await add(LIST, Buffer.from(JSON.stringify(list)));
        await tar.end();
      });
    const unpacked = await this.#unpacked(config, layers);
    await send(unpacked).catch(error => {
      // One of them may have been removed since.
      if (unpacked.size === 0) throw error;
      return send(new Set());
    });
  }

  /** The layers that the Engine need not be sent: it looks for none that it has (moby, image/tarexport/load.go). */
  async #unpacked(config: Descriptor, layers: readonly Descriptor[]): Promise<ReadonlySet<Digest>> {
    this.#chains ??= chainsOf(this.engine);
    const known = await this.#chains;
    if (known.size === 0) return new Set();
    const chunks: Buffer[] = [];
    for await (const chunk of this.#blobs.get(config.digest)!(0)) chunks.push(Buffer.from(chunk));
    const chain = chainsIn(membersOf(JSON.parse(Buffer.concat(chunks).toString('utf8'))).rootfs, 'diff_ids');
    if (chain.length !== layers.length) return new Set();
    const needed = new Set(layers.filter((_, at) => !known.has(chain[at]!)).map(({ digest }) => digest));
    return new Set(layers.map(({ digest }) => digest).filter(digest => !needed.has(digest)));
  }
}

/** The stacks of layers that an Engine has; none where it keeps them otherwise, as with containerd's image store. */
async function chainsOf(engine: Engine): Promise<ReadonlySet<string>> {
  const { DriverStatus } = membersOf(await engine.get('/info'));
  if (!Array.isArray(DriverStatus) || JSON.stringify(DriverStatus).includes('containerd.snapshotter')) return new Set();
  const ids = listOf(await engine.get('/images/json')).map(image => String(membersOf(image).Id));
  const chains = await inBatches(ids, async id =>
    chainsIn(membersOf(await engine.get(`/images/${id}/json`)).RootFS, 'Layers'),
  );
  return new Set(chains.flat());
}

/** For each layer of an image, what stands for it and all below it. */
function chainsIn(rootfs: unknown, key: 'diff_ids' | 'Layers'): string[] {
  const hash = createHash('sha256');
  return listOf(membersOf(rootfs)[key]).map(layer => hash.update(`${layer}\n`).copy().digest('base64'));
}

async function* once(data: Buffer): AsyncGenerator<Buffer> {
  yield data;
}
