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
  const body = bodies.get(page) ?? Buffer.from(JSON.stringify({ name: exchange.repository, tags: page.names }));
  bodies.set(page, body);
  exchange.bytes(200, body, { 'Content-Type': 'application/json', ...link });
}

/** Of pages that the catalog hands out again, each of which is one repository's. */
const bodies = new WeakMap<Page, Buffer>();
