import type { Command } from 'commander';
import { DEEPEST } from '../copy/copy.js';
import type { ImageSource } from '../copy/place.js';
import type { Digest } from '../reference.js';
import { roughSize } from '../size.js';
import { inBatches } from '../store/batches.js';
import { type Descriptor, isManifest, readManifest } from '../store/manifest.js';
import { type Named, openSource, parseLocal, parseNamed } from './copy-place.js';
import { type CopyRunOptions, type End, openingOf, runCopy, tagsOfOne, type Unlisted } from './copy-run.js';
import { dirOption, usage } from './options.js';

interface Options {
  readonly dir: string;
  readonly ca?: string;
  readonly as?: string;
  readonly passwordFile?: string;
  readonly plainHttp?: true;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** Layers of one image that are on their way at a time. */
const JOBS = 4;

/** `registry-secure image`: between the Docker Engine of this machine and wherever images are kept, without a registry. */
export function image(program: Command): void {
  const group = program
    .command('image')
    .summary('images straight between Docker and a bucket, a folder or an archive, with no registry running')
    .description(
      'Moves images between the Docker Engine of this machine and a place: a bucket, s3://BUCKET/ROOT?region=REGION (also azure://, gs:// and swift://), a folder, ./FOLDER, an archive that docker load reads, ./FILE.tar, an OCI image layout, oci:FOLDER, or a registry, HOST[:PORT]. What is in a bucket or folder is what a registry serves that is given it.',
    );
  const push = addOptions(group.command('push'))
    .description('copy an image of the Docker Engine to a place: only the layers that are not there')
    .argument('<image>', 'as docker images has it')
    .argument('<place>', 'where to; the image keeps its name, unless another one is added')
    .option('--dry-run', 'copy nothing, and say what would be copied')
    .action((image: string, place: string) => {
      const [from, to] = [localEnd(image), endOf(place)];
      return runCopy(copyOptions(push.opts<Options>(), 'dst'), from, to);
    });
  const pull = addOptions(group.command('pull'))
    .description('load an image from a place into the Docker Engine: only the layers that it does not have')
    .argument('<image>', 'what it is to be called here; there it has the same name without a host, unless told')
    .argument('<place>', 'where from')
    .option('--dry-run', 'load nothing, and say what would be loaded')
    .action((image: string, place: string) => {
      const [from, to] = [endOf(place), localEnd(image)];
      const { repository = to.named.repository!, reference = to.named.reference! } = from.named;
      const named: Named = { ...from.named, repository, reference };
      return runCopy(copyOptions(pull.opts<Options>(), 'src'), { text: from.text, named }, to);
    });
  const list = addOptions(group.command('list'))
    .description('list the images of a place, with their digests and sizes')
    .argument('<place>', 'where to look')
    .action((place: string) => runList(list.opts<Options>(), endOf(place)));
}

function addOptions(command: Command): Command {
  return command
    .addOption(dirOption())
    .option('--ca <file>', 'authorities of a registry, beside those of this machine and of docker')
    .option('--as <user>', 'who to log in as at a registry')
    .option('--password-file <file>', 'read the password from a file')
    .option('--plain-http', 'the registry has no TLS: whoever is in between reads and changes what is copied')
    .option('--json', 'print one JSON document');
}

function endOf(text: string): End {
  return { text, named: parseNamed(text) };
}

function localEnd(image: string): End {
  const named = parseLocal(image);
  if (named.repository === undefined) throw usage(`${JSON.stringify(image)} is no name of an image`);
  return { text: `docker-daemon:${image}`, named };
}

/** The same options as `copy` has them for one end. */
function copyOptions(options: Options, end: 'src' | 'dst'): CopyRunOptions {
  const { as, passwordFile, plainHttp, ...rest } = options;
  return {
    ...rest,
    jobs: JOBS,
    ...(as !== undefined && { [`${end}As`]: as }),
    ...(passwordFile !== undefined && { [`${end}PasswordFile`]: passwordFile }),
    ...(plainHttp && { [`${end}PlainHttp`]: plainHttp }),
  };
}

/** One line of a list. */
interface Listed {
  readonly name: string;
  /** Of the manifest; where the place has none, the ID of the image. */
  readonly digest: Digest | undefined;
  /** Of all that it needs. */
  readonly bytes: number;
}

async function runList(options: Options, { text, named }: End): Promise<void> {
  if (named.reference !== undefined && named.kind !== 'engine')
    throw usage(`${JSON.stringify(text)} names one image`, 'name the place, or a repository of it');
  const source = await openSource(named, await openingOf(copyOptions(options, 'src'), 'src', { text, named }));
  try {
    const images: Listed[] = [];
    const unlisted: Unlisted[] = [];
    const repositories = named.repository === undefined ? source.repositories() : [named.repository];
    for await (const repository of repositories) {
      const tags: string[] = [];
      const found =
        named.repository === undefined
          ? tagsOfOne(source, repository, one => unlisted.push(one))
          : source.tags(repository);
      for await (const tag of found) tags.push(tag);
      images.push(...(await inBatches(tags, tag => listed(source, repository, tag))));
    }
    images.sort((one, other) => (one.name < other.name ? -1 : 1));
    if (options.json)
      process.stdout.write(`${JSON.stringify({ place: source.name, images, unlisted }, undefined, 2)}\n`);
    else {
      process.stdout.write(table(images));
      for (const { repository, problem } of unlisted)
        process.stderr.write(`registry-secure: ${repository} is not listed: ${problem}\n`);
      if (images.length + unlisted.length === 0)
        process.stderr.write(`registry-secure: there are no images in ${text}\n`);
    }
    if (unlisted.length > 0) process.exitCode = 1;
  } finally {
    await source.close();
  }
}

async function listed(source: ImageSource, repository: string, tag: string): Promise<Listed> {
  const name = `${repository}:${tag}`;
  const known = await source.about?.(repository, tag);
  if (known) return { name, ...known };
  const found = await source.manifest(repository, tag);
  // Deleted meanwhile.
  if (!found) return { name, digest: undefined, bytes: 0 };
  const blobs = await blobsOf(source, repository, found.data);
  const bytes = [...new Map(blobs.map(blob => [blob.digest, blob.size])).values()].reduce((sum, size) => sum + size, 0);
  return { name, digest: found.digest, bytes };
}

/** All platforms of it. Nobody has checked yet what lists what: an index may list itself. */
async function blobsOf(
  source: ImageSource,
  repository: string,
  data: Buffer,
  seen = new Set<Digest>(),
  depth = 0,
): Promise<readonly Descriptor[]> {
  const manifest = readManifest(data);
  const children = await inBatches(manifest?.manifests ?? [], async child => {
    if (!isManifest(child.mediaType)) return [child];
    if (depth === DEEPEST || seen.has(child.digest)) return [];
    seen.add(child.digest);
    const found = await source.manifest(repository, child.digest);
    return found ? blobsOf(source, repository, found.data, seen, depth + 1) : [];
  });
  return [...(manifest?.blobs ?? []), ...children.flat()];
}

function table(images: readonly Listed[]): string {
  const width = Math.max(0, ...images.map(({ name }) => name.length));
  return images
    .map(({ name, digest, bytes }) => `${name.padEnd(width)}  ${(digest ?? '').slice(0, 19)}  ${roughSize(bytes)}\n`)
    .join('');
}
