/** How many small reads of the storage run at once on behalf of one request. */
const WIDTH = 16;

/** Does something with each item, some at a time, and answers the results in the order of the items. */
export async function inBatches<T, R>(
  items: readonly T[],
  action: (item: T) => Promise<R>,
  width = WIDTH,
): Promise<R[]> {
  const results: R[] = [];
  for (let start = 0; start < items.length; start += width)
    results.push(...(await Promise.all(items.slice(start, start + width).map(action))));
  return results;
}
