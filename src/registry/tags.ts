import { RegistryError } from '../errors.js';
import { type Exchange, nextPage } from './exchange.js';

/** GET tags/list (distribution-spec, "Listing Tags"). */
export async function listTags(exchange: Exchange): Promise<void> {
  const { limit, after } = exchange.page(exchange.limits.tagEntries);
  const page = await exchange.store.catalog.tags(exchange.repository, limit, after);
  if (!page) throw new RegistryError('NAME_UNKNOWN', { detail: { name: exchange.repository } });
  const link = nextPage(exchange.path('tags/list'), limit, page.more ? page.names.at(-1) : undefined);
  exchange.json(200, { name: exchange.repository, tags: page.names }, link);
}
