import { andThen, type MaybeLater } from '../at-once.js';
import { RegistryError } from '../errors.js';
import type { Page } from '../store/catalog.js';
import { type Exchange, nextPage } from './exchange.js';

/** GET tags/list (distribution-spec, "Listing Tags"). */
export function listTags(exchange: Exchange): MaybeLater<void> {
  const { limit, after } = exchange.page(exchange.limits.tagEntries);
  const { repository, store } = exchange;
  const found = store.catalog.recallTags(repository, limit, after) ?? store.catalog.tags(repository, limit, after);
  return andThen(found, page => send(exchange, page, limit));
}

function send(exchange: Exchange, page: Page | undefined, limit: number): void {
  if (!page) throw new RegistryError('NAME_UNKNOWN', { detail: { name: exchange.repository } });
  const link = nextPage(exchange.path('tags/list'), limit, page.more ? page.names.at(-1) : undefined);
  exchange.json(200, { name: exchange.repository, tags: page.names }, link);
}
