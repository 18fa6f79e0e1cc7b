import { LRUCache } from 'lru-cache';

/**
 * A cache that forgets what nobody has used for longest. It takes memory for what it holds: with `max`, LRUCache takes what
 * the most would need as soon as it is made, which for all caches of an idle process was 7 MiB.
 * @param most entries
 * @param ttl how long each is believed (ms)
 */
export function growingCache<K extends {}, V extends {}>(most: number, ttl?: number): LRUCache<K, V> {
  return new LRUCache({ maxSize: most, sizeCalculation: () => 1, ...(ttl !== undefined && { ttl }) });
}
