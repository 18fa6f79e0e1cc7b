/** What is known at once, or will be: nearly every request that reads is answered without waiting for anything. */
export type MaybeLater<T> = T | Promise<T>;

/** Goes on with a value as soon as it is there. For one that is, a promise would cost more than what most steps do. */
export function andThen<T, R>(value: MaybeLater<T>, next: (value: T) => MaybeLater<R>): MaybeLater<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** As `Promise.all`, but waits for all of them: where one has failed, nothing is under way any more. */
export async function allDone(work: Iterable<Promise<unknown>>): Promise<void> {
  const failed = (await Promise.allSettled(work)).find(result => result.status === 'rejected');
  if (failed) throw failed.reason;
}
