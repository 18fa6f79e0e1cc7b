import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { normalize } from 'node:path/posix';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { OperatorError, systemCode } from '../errors.js';
import { type Digest, isDigest } from '../reference.js';
import type { Descriptor } from '../store/manifest.js';
import { type DockerItem, LIST } from './docker-list.js';
import { type Files, listOf, membersOf, readJson, readSmall } from './files.js';
import { Gate } from './gate.js';
import { onlyOf } from './layout-source.js';
import { parseImageName, Shelf } from './names.js';
import type { ImageSource, OnlyImage, OpenBlob, PlacedManifest } from './place.js';
import { readFrom, Spool } from './spool.js';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** Of one archive. */
const MOST_IMAGES = 10_000;
/** Of a configuration, in bytes: as many as Distribution takes of a manifest. */
const LARGEST_CONFIG = 4 * 1024 * 1024;
/** Of one image: what Docker itself refuses (moby, layer/layer.go, maxLayerDepth). */
const MOST_LAYERS = 125;

interface Item extends DockerItem {
  /** Of the configuration: what Docker calls the image's ID. */
  readonly id: Digest;
}

/** A layer as it is pushed. */
interface Layer {
  readonly descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  readonly open: OpenBlob;
}

/**
 * What `docker save` wrote: images without manifests, their layers unpacked. They get a manifest, as `docker push` would
 * make one, and layers that are compressed. An image keeps its ID.
 */
export class DockerSource implements ImageSource {
  readonly name: string;
  readonly #built = new Map<Item, Promise<PlacedManifest>>();
  readonly #layers = new Map<string, Promise<Layer>>();
  readonly #blobs = new Map<Digest, OpenBlob>();
  readonly #spools: Spool[] = [];
  readonly #compressing = new Gate(availableParallelism());

  private constructor(
    private readonly files: Files,
    private readonly items: readonly Item[],
    private readonly shelf: Shelf<Item>,
  ) {
    this.name = files.name;
  }

  /** @returns undefined where there is no list of images @throws OperatorError where it is damaged, or lacks what it lists */
  static async open(files: Files): Promise<DockerSource | undefined> {
    const list = await readJson(files, LIST);
    if (list === undefined) return undefined;
    if (!Array.isArray(list)) throw broken(files, `${LIST} is no list of images`);
    if (list.length > MOST_IMAGES)
      throw broken(files, `${LIST} lists ${list.length} images, and ${MOST_IMAGES} is the most`);
    const shelf = new Shelf<Item>(files.name);
    const items: Item[] = [];
    const ids = new Map<string, Digest>();
    for (const [at, one] of list.entries()) {
      const item = await readItem(files, ids, one, `${LIST}: image ${at + 1}`);
      items.push(item);
      for (const written of item.RepoTags ?? []) {
        const name = parseImageName(written, '');
        if (name) shelf.add(name, item, written);
      }
    }
    return new DockerSource(files, items, shelf);
  }

  async close(): Promise<void> {
    await Promise.all(this.#spools.splice(0).map(spool => spool.close()));
    await this.files.close();
  }

  async *repositories(): AsyncGenerator<string> {
    yield* this.shelf.repositories();
  }

  async *tags(repository: string): AsyncGenerator<string> {
    yield* this.shelf.tags(repository);
  }

  async about(repository: string, tag: string): Promise<{ digest: Digest; bytes: number } | undefined> {
    const item = this.shelf.find(repository, tag);
    if (!item) return undefined;
    const sizes = await Promise.all(
      [item.Config, ...new Set(item.Layers)].map(path => this.files.sizeOf(normalize(path))),
    );
    return { digest: item.id, bytes: sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0) };
  }

  async only(): Promise<OnlyImage> {
    return onlyOf(
      this.name,
      this.items.flatMap(({ id, RepoTags }) => {
        const names = (RepoTags ?? []).flatMap(written => parseImageName(written, '') ?? []);
        const nameless = { repository: undefined, tag: undefined };
        return [...names, ...(names.length === 0 ? [nameless] : [])].map(name => ({ ...name, digest: id }));
      }),
    );
  }

  /** @param reference a tag, or the ID of an image, or the digest of a manifest that has been made */
  async manifest(repository: string, reference: string): Promise<PlacedManifest | undefined> {
    if (!isDigest(reference)) {
      const item = this.shelf.find(repository, reference);
      return item && this.#build(item);
    }
    const item = this.items.find(({ id }) => id === reference);
    if (item) return this.#build(item);
    const built = await Promise.all(this.#built.values());
    return built.find(({ digest }) => digest === reference);
  }

  async referrers(): Promise<readonly Descriptor[]> {
    return [];
  }

  openBlob(_repository: string, { digest }: Descriptor): OpenBlob {
    const open = this.#blobs.get(digest);
    if (!open) throw new OperatorError(`${this.name} has no ${digest}`);
    return open;
  }

  #build(item: Item): Promise<PlacedManifest> {
    const built = this.#built.get(item) ?? this.#buildImage(item);
    this.#built.set(item, built);
    return built;
  }

  async #buildImage(item: Item): Promise<PlacedManifest> {
    const { Config, id, Layers } = item;
    const config = await readSmall(this.files, Config, LARGEST_CONFIG);
    if (!config) throw broken(this.files, `its configuration ${JSON.stringify(Config)} is not there`);
    const diffs = listOf(membersOf(membersOf(JSON.parse(config.toString('utf8'))).rootfs).diff_ids);
    if (diffs.length !== Layers.length)
      throw broken(
        this.files,
        `the image ${id} has ${Layers.length} layers, and its configuration names ${diffs.length}`,
      );
    const packed = await Promise.allSettled(Layers.map((path, at) => this.#layer(path, String(diffs[at]))));
    const layers = packed.map(one => {
      if (one.status === 'rejected') throw one.reason;
      return one.value;
    });
    for (const { descriptor, open } of layers) this.#blobs.set(descriptor.digest, open);
    this.#blobs.set(id, start => this.files.open(Config, start));
    const data = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MANIFEST,
        config: { mediaType: CONFIG, size: config.length, digest: id },
        layers: layers.map(({ descriptor }) => descriptor),
      }),
    );
    return { digest: `sha256:${createHash('sha256').update(data).digest('hex')}`, mediaType: MANIFEST, data };
  }

  /** Images share layers, under one name or several. */
  #layer(path: string, diff: string): Promise<Layer> {
    const layer = this.#layers.get(diff) ?? this.#compressing.pass(() => this.#pack(path, diff));
    this.#layers.set(diff, layer);
    return layer;
  }

  async #pack(path: string, diff: string): Promise<Layer> {
    const { files } = this;
    const how = await compressionOf(files, path);
    const plain = createHash('sha256');
    const packed = createHash('sha256');
    const told = async function* (chunks: AsyncIterable<Buffer>, hash: typeof plain): AsyncGenerator<Buffer> {
      for await (const chunk of chunks) {
        hash.update(chunk);
        yield chunk;
      }
    };
    const right = (unpacked: typeof plain) => {
      if (`sha256:${unpacked.digest('hex')}` !== diff)
        throw broken(files, `the layer ${path} is not ${diff}, as the image's configuration has it`);
    };
    if (how === 'none') {
      const spool = await Spool.create();
      this.#spools.push(spool);
      await pipeline(told(files.open(path, 0), plain), createGzip(), async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of told(chunks, packed)) await spool.append(chunk);
      });
      right(plain);
      const digest: Digest = `sha256:${packed.digest('hex')}`;
      return {
        descriptor: { mediaType: `${LAYER}+gzip`, size: spool.size, digest },
        open: start => readFrom(spool.file, start, spool.size),
      };
    }
    const compressed = told(files.open(path, 0), packed);
    // What unpacks it checks what zstd has packed: Node cannot yet everywhere.
    if (how === 'zstd') for await (const _ of compressed);
    else {
      await pipeline(compressed, createGunzip(), async (chunks: AsyncIterable<Buffer>) => {
        for await (const _ of told(chunks, plain));
      }).catch(error => {
        if (!systemCode(error)?.startsWith('Z_')) throw error;
        throw broken(files, `the layer ${path} is damaged: ${error.message}`);
      });
      right(plain);
    }
    const size = (await files.sizeOf(path))!;
    return {
      descriptor: { mediaType: `${LAYER}+${how}`, size, digest: `sha256:${packed.digest('hex')}` },
      open: start => files.open(path, start),
    };
  }
}

/** @param ids of the configurations that were read, by their paths: many images may have the same */
async function readItem(files: Files, ids: Map<string, Digest>, value: unknown, where: string): Promise<Item> {
  const { Config, Layers, RepoTags } = membersOf(value);
  const isText = (text: unknown) => typeof text === 'string';
  if (typeof Config !== 'string' || !Array.isArray(Layers) || !Layers.every(isText))
    throw broken(files, `${where} has no configuration, or no layers`);
  if (Layers.length > MOST_LAYERS)
    throw broken(files, `${where} has ${Layers.length} layers, and ${MOST_LAYERS} is the most`);
  const path = normalize(Config);
  const id = ids.get(path) ?? (await readId(files, path, where));
  ids.set(path, id);
  for (const layer of Layers)
    if ((await files.sizeOf(normalize(layer))) === undefined)
      throw broken(files, `${where}: its layer ${JSON.stringify(layer)} is not there`);
  const tags = listOf(RepoTags).filter(isText) as string[];
  return { id, Config: path, Layers: Layers.map(layer => normalize(layer)), RepoTags: tags };
}

async function readId(files: Files, path: string, where: string): Promise<Digest> {
  const config = await readSmall(files, path, LARGEST_CONFIG);
  if (!config) throw broken(files, `${where}: its configuration ${JSON.stringify(path)} is not there`);
  const id: Digest = `sha256:${createHash('sha256').update(config).digest('hex')}`;
  // By their names Docker and others tell what they are.
  const named = /(?:^|\/|:)([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
  if (named !== undefined && `sha256:${named}` !== id)
    throw broken(files, `${where}: its configuration ${path} is not what its name says`);
  try {
    membersOf(JSON.parse(config.toString('utf8')));
  } catch {
    throw broken(files, `${where}: its configuration ${path} is no JSON`);
  }
  return id;
}

async function compressionOf(files: Files, path: string): Promise<'none' | 'gzip' | 'zstd'> {
  for await (const first of files.open(path, 0)) {
    if (first.length > 2 && first.readUInt16BE() === 0x1f8b) return 'gzip';
    return first.length > 4 && first.readUInt32BE() === 0x28b52ffd ? 'zstd' : 'none';
  }
  return 'none';
}

function broken(files: Files, what: string): OperatorError {
  return new OperatorError(`${files.name}: ${what}`, { fix: 'save the image again' });
}
