import assert from 'node:assert/strict';
import type { Answer } from '../../support/registry-fixture.js';
import { OCI_INDEX } from '../../support/registry-fixture.js';
import { type Call, closed, type Expected, orElse, refusal } from './call.js';
import type { Of } from './operations.js';
import type { World } from './world.js';

/** distribution-spec, "Content Discovery"; the catalog of the Docker registry; docker's search. */

interface Paging {
  readonly n?: string | undefined;
  readonly last?: string | undefined;
}

export function tags(world: World, operation: Of<'tags'>): Call {
  const { repository } = operation;
  const { exists, tags } = world.repository(repository);
  const path = `/v2/${repository}/tags/list`;
  const { names, link } = pageOf([...tags.keys()].sort(), operation);
  return {
    method: 'GET',
    path: path + query(operation),
    expected: orElse(closed(world, operation, { pull: repository }), malformed(operation), [
      ...(exists ? [] : [refusal(404, 'NAME_UNKNOWN')]),
    ])(list({ name: repository, tags: names }, path, link)),
  };
}

export function catalog(world: World, operation: Of<'catalog'>): Call {
  const { names, link } = pageOf(world.visible(operation.by), operation);
  const path = '/v2/_catalog';
  return {
    method: 'GET',
    path: path + query(operation),
    expected: orElse(malformed(operation))(list({ repositories: names }, path, link)),
  };
}

export function referrers(world: World, operation: Of<'referrers'>): Call {
  const { repository, artifactType } = operation;
  const subject = world.subjectDigest(repository, operation);
  const { manifests } = world.repository(repository);
  const descriptors = [...manifests]
    .filter(([, content]) => content.subject === subject)
    // Each once: by the other digest where a client has pushed it by that.
    .filter(([digest, { sha512 }]) => digest === sha512 || !manifests.has(sha512))
    .filter(([, content]) => artifactType === undefined || content.artifactType === artifactType)
    .map(([digest, { mediaType, data, artifactType, annotations }]) => ({
      mediaType,
      digest,
      size: data.length,
      ...(artifactType && { artifactType }),
      ...(annotations && { annotations }),
    }));
  const { names, link } = pageOf(descriptors.map(({ digest }) => digest).sort(), operation);
  const listed = names.map(name => descriptors.find(({ digest }) => digest === name));
  const path = `/v2/${repository}/referrers/${subject}`;
  const filter = artifactType === undefined ? {} : { artifactType };
  const page = list(
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: listed },
    path,
    link && { ...filter, ...link },
  );
  return {
    method: 'GET',
    path: path + query({ ...filter, n: operation.n, last: operation.last }),
    expected: orElse(
      closed(world, operation, { pull: repository }),
      malformed(operation),
    )({
      ...page,
      headers: {
        'content-type': OCI_INDEX,
        'oci-filters-applied': artifactType === undefined ? undefined : 'artifactType',
      },
    }),
  };
}

/** Without a word to look for: all that can be seen. */
export function search(world: World, { by }: Of<'search'>): Call {
  return {
    method: 'GET',
    path: '/v1/search',
    expected: [
      {
        status: 200,
        check: answer => {
          const { results } = answer.json() as { results: Array<{ name: string }> };
          assert.deepEqual(
            results.map(({ name }) => name),
            world.visible(by),
          );
        },
      },
    ],
  };
}

/** Of our own API. */
export function deleteRepository(world: World, operation: Of<'deleteRepository'>): Call {
  const { repository } = operation;
  const unknown = world.repository(repository).exists ? [] : [refusal(404, 'NAME_UNKNOWN')];
  return {
    method: 'DELETE',
    path: `/api/v1/repositories/${repository}`,
    expected: orElse(
      closed(world, operation, 'change'),
      unknown,
    )({
      status: 204,
      effect: () => world.removeRepository(repository),
    }),
  };
}

function malformed({ n }: Paging): Expected[] {
  return n !== undefined && !/^\d+$/.test(n) ? [refusal(400, 'any')] : [];
}

/** What of all the names a page has, and the parameters of the next page where there is one. */
function pageOf<T extends string>(all: readonly T[], { n, last }: Paging): { names: T[]; link: Paging | undefined } {
  const rest = all.filter(name => last === undefined || name > last);
  const names = rest.slice(0, n === undefined ? all.length : Number(n));
  return { names, link: names.length > 0 && names.length < rest.length ? { n, last: names.at(-1)! } : undefined };
}

function list(body: object, path: string, link: object | undefined): Expected {
  return {
    status: 200,
    headers: { 'content-type': 'application/json' },
    check: answer => {
      assert.deepEqual(answer.json(), body);
      assert.deepEqual(nextOf(answer), link && { path, parameters: link });
    },
  };
}

/** RFC 8288. */
function nextOf({ headers }: Answer): { path: string; parameters: object } | undefined {
  if (headers.link === undefined) return undefined;
  const [path, parameters] = /^<([^>]+)>; rel="next"$/.exec(String(headers.link))![1]!.split('?');
  return { path: path!, parameters: Object.fromEntries(new URLSearchParams(parameters)) };
}

function query(parameters: object): string {
  const { n, last, artifactType } = parameters as Record<string, string | undefined>;
  const given = Object.entries({ artifactType, n, last }).filter(([, value]) => value !== undefined);
  return given.length > 0 ? `?${new URLSearchParams(given as Array<[string, string]>)}` : '';
}
