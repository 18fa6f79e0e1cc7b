import { RegistryError } from '../errors.js';
import type { Exchange } from './exchange.js';

/**
 * GET /token: a token for who the request is from. What it is asked to be good for (`scope`) only says in which realm that
 * is to be known: rights are looked up where it is used.
 */
export async function issueToken(exchange: Exchange): Promise<void> {
  // A token must not beget another one: then it would never end.
  if (/^bearer /i.test(exchange.header('authorization') ?? '')) throw new RegistryError('UNAUTHORIZED');
  exchange.json(200, await exchange.issueToken(), { 'Cache-Control': 'no-store' });
}
