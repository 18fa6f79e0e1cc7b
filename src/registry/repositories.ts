import { RegistryError } from '../errors.js';
import type { Exchange } from './exchange.js';

/** GET /v2/_catalog: the repositories that the caller may pull from. */
export async function listRepositories(exchange: Exchange): Promise<void> {
  const { limit, after } = exchange.page(exchange.limits.catalogEntries);
  const visible = (name: string) => exchange.may('list', name);
  const { names, more } = await exchange.store.catalog.repositories(limit, after, visible);
  exchange.json(
    200,
    { repositories: names },
    exchange.nextPage(exchange.catalogPath, limit, more ? names.at(-1) : undefined),
  );
}

/** DELETE /api/v1/repositories/N: a whole repository, which the OCI API has no way to remove. */
export async function deleteRepository(exchange: Exchange): Promise<void> {
  if (!(await exchange.store.catalog.remove(exchange.repository)))
    throw new RegistryError('NAME_UNKNOWN', { detail: { name: exchange.repository } });
  await exchange.changed({ type: 'delete', kind: 'repository' });
  exchange.empty(204);
}
