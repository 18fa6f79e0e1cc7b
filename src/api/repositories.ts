import { z } from 'zod';
import { RegistryError } from '../errors.js';
import { nextPage } from '../registry/exchange.js';
import { type Route, route, USUAL_ENTRIES } from './route.js';
import { bytes, digest, page, repositoryName, time, userName } from './schemas.js';

const tag = z
  .strictObject({
    tag: z.string(),
    digest,
    mediaType: z.string(),
    size: bytes.describe('Of the distinct blobs and manifests that it leads to, in bytes.'),
    pushedAt: time,
    pushedBy: userName.optional().describe('Shown to users, where it is known.'),
    platforms: z.array(z.string()).describe('Such as `linux/amd64`.'),
  })
  .meta({ id: 'Tag' });

export const REPOSITORIES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/repositories',
    id: 'listRepositories',
    about: 'The repositories that the caller may pull from, in the order of their names.',
    access: 'caller',
    query: page,
    status: 200,
    answer: z.strictObject({ repositories: z.array(z.strictObject({ name: repositoryName })) }),
    handler: async ({ identity, services, path, query: { n = USUAL_ENTRIES, last } }) => {
      const visible = (name: string) => services.authorise(identity, 'list', name);
      const { names, more } = await services.store.catalog.repositories(n, last, visible);
      return {
        value: { repositories: names.map(name => ({ name })) },
        headers: nextPage(path, n, more ? names.at(-1) : undefined),
      };
    },
  }),
  route({
    method: 'GET',
    path: '/repositories/{repository}',
    id: 'getRepository',
    about: 'What a repository comes to.',
    access: 'pull',
    status: 200,
    answer: z
      .strictObject({
        name: repositoryName,
        size: bytes.describe('Of its distinct blobs and manifests, in bytes. Others may have some of them, too.'),
        blobs: z.int().min(0),
        manifests: z.int().min(0),
        tags: z.int().min(0),
      })
      .meta({ id: 'Repository' }),
    errors: [404],
    handler: async ({ name, services }) => {
      const overview = await services.store.overview.of(name);
      if (!overview) throw unknown(name);
      return { value: { name, ...overview } };
    },
  }),
  route({
    method: 'DELETE',
    path: '/repositories/{repository}',
    id: 'deleteRepository',
    changes: 'delete',
    about:
      'Removes a repository with all that it holds, but none of those below its name. Where `storage.delete.enabled` is off it answers 405.',
    access: 'delete',
    stores: true,
    status: 204,
    errors: [404, 405],
    handler: async ({ name, services }) => {
      if (!(await services.store.catalog.remove(name))) throw unknown(name);
      return { what: { repository: name, kind: 'repository' } };
    },
  }),
  route({
    method: 'GET',
    path: '/tags/{repository}',
    id: 'listTags',
    about: 'The tags of a repository, in the order of their names, with what they point at.',
    access: 'pull',
    query: page,
    status: 200,
    answer: z.strictObject({ name: repositoryName, tags: z.array(tag) }),
    errors: [404],
    handler: async ({ name, identity, services, path, query: { n = USUAL_ENTRIES, last = '' } }) => {
      const found = await services.store.overview.tags(name, n, last);
      if (!found) throw unknown(name);
      const tags = found.tags.map(({ pushedBy, platforms, ...rest }) => ({
        ...rest,
        platforms: [...platforms],
        // Who works here is no business of the public.
        ...(pushedBy !== undefined && identity.kind === 'user' && { pushedBy }),
      }));
      return { value: { name, tags }, headers: nextPage(path, n, found.last) };
    },
  }),
];

function unknown(name: string): RegistryError {
  return new RegistryError('NAME_UNKNOWN', { detail: { name } });
}
