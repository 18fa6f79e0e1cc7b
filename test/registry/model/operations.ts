import fc from 'fast-check';
import { OCI_CONFIG } from '../../support/registry-fixture.js';
import { ARTIFACT_TYPES, algorithm, REPOSITORIES, TAGS, USERS } from './universe.js';

/**
 * What a sequence is made of: plain data, so that a failure can be read and shrinks. Numbers of blobs, manifests and
 * uploads are taken modulo how many there are, so every operation can be done in every state.
 */
export type Operation = { readonly [Name in Kind]: Of<Name> }[Kind];

export type Of<Name extends Kind> = Asked & { readonly do: Name } & Values<(typeof FIELDS)[Name]>;

/** Each is done by somebody at one of two processes that share the storage. */
export type Asked = Values<typeof asked>;

type Kind = keyof typeof FIELDS;
type Values<T> = { readonly [Member in keyof T]: T[Member] extends fc.Arbitrary<infer Value> ? Value : never };

const asked = { at: fc.constantFrom(0, 1), by: fc.constantFrom(...USERS) };

function weighted<const T>(...values: ReadonlyArray<readonly [weight: number, value: T]>): fc.Arbitrary<T> {
  return fc.oneof(...values.map(([weight, value]) => ({ weight, arbitrary: fc.constant(value) })));
}

const sometimes = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { freq: 2, nil: undefined });

const repository = fc.constantFrom(...REPOSITORIES);
const number = fc.nat(20);
const tag = fc.constantFrom(...TAGS);

/** One of those that are open; or with something wrong about it. */
const upload = { upload: fc.nat(1), but: weighted([20, undefined], [1, 'ended'], [1, 'elsewhere'], [1, 'of another']) };
const chunk = {
  part: weighted([1, 'none'], [2, 'one'], [5, 'half'], [6, 'rest'], [1, 'junk']),
  range: weighted([8, 'none'], [8, 'right'], [1, 'early'], [1, 'late'], [1, 'long'], [1, 'bad']),
  chunked: fc.boolean(),
};
/** Which digest a client says a content has. */
const claim = weighted([8, 'sha256'], [2, 'sha512'], [1, 'wrong'], [1, 'bad']);

/** One that the repository has, where it has any; else any there is. */
const held = weighted([3, true], [1, false]);
/** A negative one is a manifest, which is no blob unless somebody has pushed it as one. */
const anyBlob = { blob: fc.integer({ min: -2, max: 20 }), algorithm, held };

const position = fc.constantFrom(0, 0, 1, 1, 2, 2, 499, 999, 1000, 65_535, 65_536, 69_999, 70_000, 10 ** 12);
const span = fc
  .record({ first: sometimes(position), last: sometimes(position) })
  .filter(({ first, last }) => first !== undefined || last !== undefined);
const inOrder = span.filter(({ first = 0, last = first }) => first <= last);

const byTag = fc.record({ tag });
const byDigest = fc.record({ algorithm, tags: fc.array(tag, { maxLength: 3 }) });
const reference = fc.oneof(
  { weight: 4, arbitrary: byTag },
  { weight: 4, arbitrary: fc.record({ manifest: number, algorithm, held }) },
  { weight: 1, arbitrary: fc.record({ bad: fc.constantFrom('-tag', 'sha256:abc', `t${'a'.repeat(128)}`) }) },
);

const page = {
  n: sometimes(fc.constantFrom('0', '1', '2', '3', '1000', '10000000000000', '-1', 'x')),
  last: sometimes(fc.constantFrom(...TAGS, ...REPOSITORIES, 'z', 'sha256:8', 'a"\r\n>')),
};

const FIELDS = {
  start: {
    repository,
    blob: number,
    announced: weighted([4, undefined], [1, 'sha256'], [1, 'sha512'], [1, 'md5']),
  },
  patch: { ...upload, ...chunk },
  status: upload,
  cancel: upload,
  finish: { ...upload, ...chunk, claim },
  post: { repository, blob: number, claim, chunked: fc.boolean() },
  mount: { repository, ...anyBlob, from: fc.constantFrom(...REPOSITORIES, ...REPOSITORIES, 'nowhere', undefined) },
  getBlob: {
    repository,
    ...anyBlob,
    method: weighted([3, 'GET'], [1, 'HEAD']),
    ranges: fc.oneof(
      fc.constant([]),
      { weight: 2, arbitrary: fc.tuple(span) },
      fc.array(inOrder, { minLength: 2, maxLength: 3 }),
    ),
    condition: weighted([6, undefined], [1, 'If-None-Match'], [1, 'If-Range']),
    matches: fc.boolean(),
  },
  deleteBlob: { repository, ...anyBlob },
  put: {
    repository,
    manifest: number,
    as: fc.oneof(
      { weight: 4, arbitrary: byTag },
      { weight: 4, arbitrary: byDigest },
      {
        weight: 1,
        arbitrary: fc.record({ bad: fc.constantFrom('-tag', 'sha256:abc', 'another digest', 'parameter') }),
      },
    ),
    type: weighted([8, 'right'], [2, 'none'], [1, 'wrong']),
    cut: weighted([9, false], [1, true]),
  },
  /** What docker does: what a manifest needs and the repository lacks, then the manifest. */
  push: { repository, manifest: number, as: fc.oneof(byTag, byDigest) },
  getManifest: {
    repository,
    reference,
    method: fc.constantFrom('GET', 'HEAD'),
    ifNoneMatch: weighted([4, undefined], [1, 'same'], [1, 'other']),
  },
  deleteManifest: { repository, reference },
  tags: { repository, ...page },
  referrers: {
    repository,
    manifest: number,
    algorithm,
    /** What a manifest of the repository has as its subject. */
    held,
    artifactType: sometimes(fc.constantFrom(...ARTIFACT_TYPES, OCI_CONFIG)),
    ...page,
  },
  catalog: page,
  search: {},
  deleteRepository: { repository },
  readOnly: { on: fc.boolean() },
  /** One of the processes ends, and another takes its place. */
  restart: {},
  collect: { grace: fc.constantFrom('none', 'day'), untagged: fc.boolean(), uploads: fc.boolean() },
};

const WEIGHTS: Readonly<Record<Kind, number>> = {
  start: 8,
  patch: 18,
  status: 3,
  cancel: 1,
  finish: 12,
  post: 10,
  mount: 8,
  getBlob: 16,
  deleteBlob: 5,
  put: 10,
  push: 14,
  getManifest: 10,
  deleteManifest: 7,
  tags: 4,
  referrers: 12,
  catalog: 2,
  search: 1,
  deleteRepository: 2,
  readOnly: 2,
  restart: 2,
  collect: 5,
};

/** @param instead arbitraries of members, in whichever operation has one of that name */
function weighed(
  weights: Partial<Record<Kind, number>>,
  instead: Readonly<Record<string, fc.Arbitrary<unknown>>> = {},
): fc.Arbitrary<Operation> {
  const operations = Object.entries(weights).map(([name, weight]) => {
    const members = Object.entries({ ...asked, ...FIELDS[name as Kind] });
    const arbitraries = Object.fromEntries(members.map(([member, usual]) => [member, instead[member] ?? usual]));
    return { weight, arbitrary: fc.record({ do: fc.constant(name), ...arbitraries }) };
  });
  return fc.oneof(...operations) as fc.Arbitrary<Operation>;
}

/** Of any length up to 100: short ones are rather what a failure shrinks to. */
export const operations = fc.noBias(fc.array(weighed(WEIGHTS), { maxLength: 100, size: 'max' }));

const CONTESTED: Partial<Record<Kind, number>> = {
  patch: 4,
  finish: 3,
  cancel: 1,
  post: 3,
  mount: 3,
  getBlob: 2,
  deleteBlob: 3,
  put: 9,
  getManifest: 3,
  deleteManifest: 5,
  tags: 1,
  referrers: 1,
  deleteRepository: 1,
  collect: 1,
};

/** Few things, and nothing about them that is refused in any case. */
const CALM = {
  by: fc.constant('insider'),
  repository: fc.constantFrom('app', 'app', 'hidden/app'),
  blob: fc.nat(3),
  manifest: fc.nat(1),
  claim: algorithm,
  part: fc.constantFrom('half', 'rest'),
  range: fc.constant('right'),
  as: fc.oneof(byTag, byDigest),
  reference: fc.oneof(byTag, fc.record({ manifest: fc.nat(1), algorithm, held: fc.constant(false) })),
  grace: fc.constant('day'),
  type: fc.constant('right'),
  ranges: fc.constant([]),
  ...Object.fromEntries(['held', 'cut', 'uploads'].map(member => [member, fc.constant(false)])),
  ...Object.fromEntries(
    ['but', 'condition', 'ifNoneMatch', 'n', 'last'].map(member => [member, fc.constant(undefined)]),
  ),
};

/** What is there before them: all blobs, an upload of a thousand bytes and one of seventy thousand, and some images. */
export const prologue = fc.array(weighed({ push: 1 }, CALM), { maxLength: 4 }).map((pushes): Operation[] => {
  const asked = { at: 0, by: 'insider' } as const;
  const posts = (['app', 'hidden/app'] as const).flatMap(repository =>
    [0, 1, 2, 3, 4, 5].map(
      blob => ({ do: 'post', ...asked, repository, blob, claim: 'sha512', chunked: false }) as const,
    ),
  );
  const starts = [4, 5].map(
    blob => ({ do: 'start', ...asked, repository: 'app', blob, announced: undefined }) as const,
  );
  return [...posts, ...starts, ...pushes];
});

/** What several clients do at once, each of them one thing after the other. */
export const clients = fc.noBias(
  fc.array(fc.array(weighed(CONTESTED, CALM), { minLength: 1, maxLength: 6, size: 'max' }), {
    minLength: 2,
    maxLength: 4,
    size: 'max',
  }),
);
