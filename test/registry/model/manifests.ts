import assert from 'node:assert/strict';
import type { Digest } from '../../../src/reference.js';
import { digestOf, OCI_INDEX, OCI_MANIFEST } from '../../support/registry-fixture.js';
import { type Call, closed, type Expected, orElse, refusal } from './call.js';
import type { Of, Operation } from './operations.js';
import type { ManifestContent } from './universe.js';
import type { World } from './world.js';

/** distribution-spec, "Pushing Manifests", "Pulling manifests" and "Deleting Manifests". */

export function put(world: World, operation: Of<'put'>): Call {
  const { repository, as, type, cut } = operation;
  const content = world.manifest(operation.manifest);
  const { reference, digest, tags, query, malformed } = target(content, as);
  const invalid = [
    ...malformed,
    ...(cut || type === 'wrong' ? [refusal(400, 'MANIFEST_INVALID')] : []),
    ...(cut && 'algorithm' in as ? [refusal(400, 'DIGEST_INVALID')] : []),
  ];
  const missing = content.needs.filter(need => !world.has(repository, need)).map(need => need.digest);
  const lacking: Expected = refusal(400, 'MANIFEST_BLOB_UNKNOWN', {
    check: answer => {
      const { errors } = answer.json() as { errors: [{ detail: Array<{ digest: Digest }> }] };
      const told = errors[0].detail.map(({ digest }) => digest);
      assert.deepEqual(told.sort(), [...new Set(missing)].sort(), 'what is missing');
    },
  });
  const types = { right: content.mediaType, wrong: content.mediaType === OCI_INDEX ? OCI_MANIFEST : OCI_INDEX };
  return {
    method: 'PUT',
    path: `/v2/${repository}/manifests/${reference}${query}`,
    options: {
      body: cut ? content.data.subarray(0, -1) : content.data,
      headers: type === 'none' ? {} : { 'content-type': types[type] },
    },
    expected: orElse(
      closed(world, operation, 'change'),
      invalid,
      missing.length > 0 ? [lacking] : [],
    )({
      status: 201,
      headers: {
        location: `/v2/${repository}/manifests/${reference}`,
        'docker-content-digest': digest,
        'oci-subject': content.subject,
        'oci-tag': 'tag' in as || tags.length === 0 ? undefined : tags.join(', '),
        'content-length': '0',
      },
      effect: () => world.addManifest(repository, content, digest, tags),
    }),
  };
}

function target(content: ManifestContent, as: Of<'put'>['as']) {
  const none = { digest: content.sha256, tags: [] as string[], query: '', malformed: [] as Expected[] };
  if ('tag' in as) return { ...none, reference: as.tag, tags: [as.tag] };
  if ('algorithm' in as) {
    const digest = content[as.algorithm];
    const query = as.tags.length > 0 ? `?${as.tags.map(tag => `tag=${tag}`).join('&')}` : '';
    return { ...none, reference: digest, digest, tags: [...new Set(as.tags)], query };
  }
  const invalid = { ...none, malformed: [refusal(400, 'MANIFEST_INVALID')] };
  const wrong = { ...none, malformed: [refusal(400, 'DIGEST_INVALID')] };
  switch (as.bad) {
    case 'parameter':
      return { ...invalid, reference: content.sha256, query: '?tag=latest&tag=-bad' };
    case 'another digest':
      return { ...wrong, reference: digestOf(Buffer.from('another')) };
    case 'sha256:abc':
      return { ...wrong, reference: as.bad };
    default:
      return { ...invalid, reference: as.bad };
  }
}

/** What has to be done one after the other for a whole image; each step is to be made when the one before is done. */
export function* push(world: World, operation: Of<'push'>): Generator<Operation> {
  const { at, by, repository, as } = operation;
  for (const need of world.manifest(operation.manifest).needs) {
    if (world.has(repository, need)) continue;
    const { index, algorithm } = need;
    if (need.kind === 'blob') yield { do: 'post', at, by, repository, blob: index, claim: algorithm, chunked: false };
    else yield* push(world, { do: 'push', at, by, repository, manifest: index, as: { algorithm, tags: [] } });
  }
  yield { do: 'put', at, by, repository, manifest: operation.manifest, as, type: 'right', cut: false };
}

export function getManifest(world: World, operation: Of<'getManifest'>): Call {
  const { repository, method, ifNoneMatch } = operation;
  const { reference, digest, unknown } = find(world, operation);
  const content = digest && world.repository(repository).manifests.get(digest);
  const etag = `"${digest}"`;
  const there: Expected = {
    status: 200,
    headers: { 'content-type': content?.mediaType, 'docker-content-digest': digest, etag },
    ...(content && { body: content.data }),
  };
  return {
    method,
    path: `/v2/${repository}/manifests/${reference}`,
    options: { headers: ifNoneMatch ? { 'if-none-match': ifNoneMatch === 'same' ? `W/${etag}` : '"other"' } : {} },
    expected: orElse(
      closed(world, operation, { pull: repository }),
      unknown,
    )(ifNoneMatch === 'same' ? { status: 304, headers: { etag } } : there),
  };
}

export function deleteManifest(world: World, operation: Of<'deleteManifest'>): Call {
  const { repository } = operation;
  const { reference, digest, unknown } = find(world, operation);
  const { manifests, tags } = world.repository(repository);
  return {
    method: 'DELETE',
    path: `/v2/${repository}/manifests/${reference}`,
    expected: orElse(
      closed(world, operation, 'change'),
      unknown,
    )({
      status: 202,
      effect: () => {
        if ('tag' in operation.reference) tags.delete(reference);
        else world.removeManifest(repository, manifests.get(digest!)!);
      },
    }),
  };
}

function find(
  world: World,
  { repository, reference }: Pick<Of<'deleteManifest'>, 'repository' | 'reference'>,
): { reference: string; digest?: Digest | undefined; unknown: Expected[] } {
  const { exists, tags, manifests } = world.repository(repository);
  const absent = refusal(404, exists ? 'MANIFEST_UNKNOWN' : 'NAME_UNKNOWN');
  if ('bad' in reference)
    return {
      reference: reference.bad,
      // What is no tag is the tag of nothing, whether the repository is there or not.
      unknown: reference.bad.includes(':') ? [refusal(400, 'DIGEST_INVALID')] : [refusal(404, 'MANIFEST_UNKNOWN')],
    };
  if ('tag' in reference) {
    const digest = tags.get(reference.tag);
    return { reference: reference.tag, digest, unknown: digest ? [] : [absent] };
  }
  const digest = world.manifestDigest(repository, reference);
  return { reference: digest, digest, unknown: manifests.has(digest) ? [] : [absent] };
}
