import { RegistryError } from '../errors.js';
import type { Exchange } from './exchange.js';

/** Of Docker's search API: 25 unless told, at most 100. */
const RESULTS = { usual: 25, most: 100 };

/**
 * GET /v1/search?q&n&page: what `docker search HOST/term` asks. Only repositories that the caller may pull from; without
 * a query all of them.
 */
export async function searchRepositories(exchange: Exchange): Promise<void> {
  const query = exchange.query.get('q') ?? '';
  const size = Math.min(number(exchange, 'n') || RESULTS.usual, RESULTS.most);
  const page = number(exchange, 'page') || 1;
  const { results, total, whole } = await exchange.store.search.find(query, name => exchange.may('list', name), {
    skip: (page - 1) * size,
    limit: size,
  });
  exchange.json(200, {
    query,
    num_results: total,
    num_pages: Math.ceil(total / size),
    page,
    page_size: size,
    // So called by others too; docker does not look at it.
    ...(!whole && { incomplete_results: true }),
    results: results.map(({ name, description }) => ({
      name,
      description,
      star_count: 0,
      is_official: false,
      is_automated: false,
    })),
  });
}

function number({ query }: Exchange, name: string): number {
  const text = query.get(name) ?? '0';
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new RegistryError('UNSUPPORTED', { status: 400, message: `${name} is not a whole number below 10^9` });
}
