import type { Of } from './operations.js';
import { REPOSITORIES, TAGS, USERS } from './universe.js';
import type { World } from './world.js';

type Look = Of<'catalog'> | Of<'tags'> | Of<'getManifest'> | Of<'getBlob'> | Of<'referrers'>;

const WHOLE = { held: false, ranges: [], condition: undefined, matches: false } as const;

/**
 * Asks for all that a registry has, in each way in which it can be asked for, at one process and the other in turn; and
 * for all that it has not, each in some way.
 */
export function* everything(world: World): Generator<Look> {
  const { blobs, manifests } = world.universe;
  const subjects = manifests.map(({ subject }) => subject);
  let count = 0;
  const asked = () => ({ at: count++ % 2 === 0 ? 0 : 1, by: 'insider' }) as const;
  const some = <T>(isThere: boolean, ways: readonly T[]) => (isThere ? ways : [ways[count % ways.length]!]);
  const ways = (['sha256', 'sha512'] as const).flatMap(algorithm =>
    (['GET', 'HEAD'] as const).map(method => ({ algorithm, method })),
  );

  for (const by of USERS) {
    yield { do: 'catalog', ...asked(), by, n: undefined, last: undefined };
    for (const last of REPOSITORIES) yield { do: 'catalog', ...asked(), by, n: '1', last };
  }
  for (const repository of REPOSITORIES) {
    const known = world.repository(repository);
    for (const last of [undefined, ...TAGS]) yield { do: 'tags', ...asked(), repository, n: '2', last };
    for (const tag of TAGS)
      for (const method of some(known.tags.has(tag), ['GET', 'HEAD'] as const))
        yield { do: 'getManifest', ...asked(), repository, method, reference: { tag }, ifNoneMatch: undefined };
    for (const [blob, { sha256, sha512 }] of blobs.entries())
      for (const way of some(known.blobs.has(sha256) || known.blobs.has(sha512), ways))
        yield { do: 'getBlob', ...asked(), repository, blob, ...way, ...WHOLE };
    for (const [manifest, { sha256, sha512 }] of manifests.entries()) {
      for (const { algorithm, method } of some(known.manifests.has(sha256) || known.manifests.has(sha512), ways)) {
        const reference = { manifest, algorithm, held: false };
        yield { do: 'getManifest', ...asked(), repository, method, reference, ifNoneMatch: undefined };
      }
      for (const algorithm of ['sha256', 'sha512'] as const)
        if (subjects.includes(manifests[manifest]![algorithm]))
          yield { do: 'referrers', ...asked(), repository, manifest, algorithm, ...ALL };
    }
  }
}

const ALL = { held: false, artifactType: undefined, n: undefined, last: undefined } as const;
