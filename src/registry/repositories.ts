import { type Exchange, nextPage } from './exchange.js';

/** GET /v2/_catalog: the repositories that the caller may pull from. */
export async function listRepositories(exchange: Exchange): Promise<void> {
  const { limit, after } = exchange.page(exchange.limits.catalogEntries);
  const visible = (name: string) => exchange.may('list', name);
  const { names, more } = await exchange.store.catalog.repositories(limit, after, visible);
  exchange.json(200, { repositories: names }, nextPage(exchange.catalogPath, limit, more ? names.at(-1) : undefined));
}
