/** What a run of a load generator has done; only the requests are timed, not the making of their content. */
export interface Work {
  /** Requests, images, pages or GiB. */
  readonly amount: number;
  readonly seconds: number;
  /** Its own CPU seconds meanwhile, to see whether it was the limit. */
  readonly cpu: number;
  /** How long each request took (ms), where that is what is asked. */
  readonly times?: readonly number[];
  /** The digest of one of the blobs, where blobs were pushed. */
  readonly pushed?: string;
}

/** Times what the function does, in seconds of the clock and of the CPU. */
export async function timed(does: () => Promise<number>, times?: readonly number[]): Promise<Work> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  const amount = await does();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { amount, seconds, cpu: (user + system) / 1e6, ...(times && { times }) };
}

/** The same at once by so many clients; the sum of what they did. */
export async function byEach(clients: number, does: (client: number) => Promise<number>): Promise<number> {
  const done = await Promise.all(Array.from({ length: clients }, (_, client) => does(client)));
  return done.reduce((sum, one) => sum + one, 0);
}

/** Calls for the given time and then until what has begun is done; hands back how often. */
export async function during(seconds: number, does: (index: number) => Promise<void>): Promise<number> {
  const end = performance.now() + seconds * 1000;
  let done = 0;
  while (performance.now() < end) await does(done++);
  return done;
}
