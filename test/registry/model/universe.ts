import fc from 'fast-check';
import type { Digest } from '../../../src/reference.js';
import { digestOf, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST } from '../../support/registry-fixture.js';

/** All that the operations of one sequence are about: little of everything, so that they often meet. */
export interface Universe {
  /** The last one has the bytes of the first manifest. */
  readonly blobs: readonly Content[];
  readonly manifests: readonly ManifestContent[];
}

export const REPOSITORIES = ['app', 'app/web', 'hidden/app'] as const;
/** In the order of their bytes. */
export const TAGS = ['V1', '_2', 'latest', 'v1'] as const;
export const USERS = ['tester', 'insider'] as const;
export const ARTIFACT_TYPES = ['a/b', 'c/d+e'] as const;

export type User = (typeof USERS)[number];

/** A repository below `hidden/` can be read by one user only. */
export function mayPull(user: User, repository: string): boolean {
  return user === 'insider' || !repository.startsWith('hidden/');
}

export type Algorithm = 'sha256' | 'sha512';

export interface Content extends Readonly<Record<Algorithm, Digest>> {
  readonly data: Buffer;
}

export interface ManifestContent extends Content {
  readonly mediaType: string;
  /** What has to be in the repository before the manifest. */
  readonly needs: readonly Need[];
  /** What it names all the same: layers that clients have from elsewhere. */
  readonly foreign: readonly Digest[];
  readonly subject: Digest | undefined;
  /** As the referrers API says it. */
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

/** A descriptor in a manifest: of a blob, or in an index of either. */
interface Need {
  readonly digest: Digest;
  readonly kind: 'blob' | 'manifest';
  /** Where it is in the universe. */
  readonly index: number;
  readonly algorithm: Algorithm;
  /** Whether an index lists it: then a blob will do for a manifest, and the other way round. */
  readonly listed: boolean;
}

export const algorithm: fc.Arbitrary<Algorithm> = fc.oneof(
  { weight: 4, arbitrary: fc.constant('sha256' as const) },
  { weight: 1, arbitrary: fc.constant('sha512' as const) },
);

function content(data: Buffer): Content {
  return { data, sha256: digestOf(data), sha512: digestOf(data, 'sha512') };
}

const BLOBS: readonly Content[] = [
  Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64' })),
  Buffer.from('{}'),
  Buffer.alloc(0),
  Buffer.from('x'),
  Buffer.alloc(1000, 'thousand'),
  // More than the storage reads and the network sends at a time.
  Buffer.alloc(70_000, 'seventy thousand'),
].map(content);

/** Of nothing there is. */
const ABSENT = content(Buffer.from('never pushed'));

const reference = fc.record({ index: fc.nat(20), algorithm });
const rarely = (chance: number) => fc.nat(chance - 1).map(number => number === 1);
const shared = {
  /** Index -1 is a manifest that will never come. */
  subject: fc.option(fc.record({ index: fc.integer({ min: -1, max: 20 }), algorithm }), { freq: 2 }),
  artifactType: fc.option(fc.constantFrom(...ARTIFACT_TYPES), { freq: 2 }),
  annotated: fc.boolean(),
};
const image = fc.record({
  kind: fc.constant('image' as const),
  docker: rarely(5),
  config: reference,
  layers: fc.array(reference, { maxLength: 3 }),
  foreign: rarely(5),
  ...shared,
});
const index = fc.record({
  kind: fc.constant('index' as const),
  manifests: fc.array(reference, { maxLength: 3 }),
  /** As in BuildKit's caches. */
  blobs: fc.array(reference, { maxLength: 1 }),
  ...shared,
});
const manifest = fc.oneof({ weight: 3, arbitrary: image }, { weight: 2, arbitrary: index });

type ImageSpec = typeof image extends fc.Arbitrary<infer T> ? T : never;
type IndexSpec = typeof index extends fc.Arbitrary<infer T> ? T : never;

/** What the manifests of a universe are to be like, in short: each refers to blobs and to those before it. */
export const recipe = fc.noBias(fc.array(manifest, { minLength: 5, maxLength: 8, size: 'max' }));

export function makeUniverse(recipe: ReadonlyArray<ImageSpec | IndexSpec>): Universe {
  const manifests: ManifestContent[] = [];
  for (const spec of recipe)
    manifests.push(spec.kind === 'image' ? makeImage(spec, manifests) : makeIndex(spec, manifests));
  return { blobs: [...BLOBS, content(manifests[0]!.data)], manifests };
}

function makeImage(spec: ImageSpec, earlier: readonly ManifestContent[]): ManifestContent {
  const [config, ...layers] = [spec.config, ...spec.layers].map(reference => blob(reference, false));
  const foreign = {
    mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
    digest: ABSENT.sha256,
    size: 12,
  };
  return make(spec, earlier, {
    mediaType: spec.docker ? 'application/vnd.docker.distribution.manifest.v2+json' : OCI_MANIFEST,
    needs: [config!, ...layers],
    foreign: spec.foreign ? [ABSENT.sha256] : [],
    artifactType: spec.artifactType ?? OCI_CONFIG,
    members: {
      config: { mediaType: OCI_CONFIG, digest: config!.digest, size: BLOBS[config!.index]!.data.length },
      layers: [
        ...layers.map(({ digest, index }) => ({ mediaType: OCI_LAYER, digest, size: BLOBS[index]!.data.length })),
        ...(spec.foreign ? [foreign] : []),
      ],
    },
  });
}

function makeIndex(spec: IndexSpec, earlier: readonly ManifestContent[]): ManifestContent {
  const manifests = spec.manifests.flatMap(({ index, algorithm }): Need[] => {
    const at = index % (earlier.length + 1);
    const child = earlier[at];
    return child ? [{ digest: child[algorithm], kind: 'manifest', index: at, algorithm, listed: true }] : [];
  });
  const blobs = spec.blobs.map(reference => blob(reference, true));
  return make(spec, earlier, {
    mediaType: OCI_INDEX,
    needs: [...manifests, ...blobs],
    foreign: [],
    artifactType: spec.artifactType ?? undefined,
    members: {
      manifests: [
        ...manifests.map(({ digest, index }) => {
          const { mediaType, data } = earlier[index]!;
          return { mediaType, digest, size: data.length };
        }),
        ...blobs.map(({ digest, index }) => ({ mediaType: OCI_LAYER, digest, size: BLOBS[index]!.data.length })),
      ],
    },
  });
}

function blob({ index, algorithm }: { index: number; algorithm: Algorithm }, listed: boolean): Need {
  const at = index % BLOBS.length;
  return { digest: BLOBS[at]![algorithm], kind: 'blob', index: at, algorithm, listed };
}

function make(
  spec: ImageSpec | IndexSpec,
  earlier: readonly ManifestContent[],
  made: Pick<ManifestContent, 'mediaType' | 'needs' | 'foreign' | 'artifactType'> & { members: object },
): ManifestContent {
  const { members, ...facts } = made;
  const of = spec.subject && (earlier[spec.subject.index % (earlier.length + 1)] ?? ABSENT);
  const subject = of && spec.subject ? of[spec.subject.algorithm] : undefined;
  const annotations = spec.annotated ? { name: 'wörd' } : undefined;
  const data = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: made.mediaType,
      ...members,
      ...(subject && { subject: { mediaType: OCI_MANIFEST, digest: subject, size: of!.data.length } }),
      ...(spec.artifactType && { artifactType: spec.artifactType }),
      ...(annotations && { annotations }),
      // No two are the same.
      number: earlier.length,
    }),
  );
  return { ...content(data), ...facts, subject, annotations };
}
