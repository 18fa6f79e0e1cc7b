import { ObjectTurns } from '../turns.js';

/** Of all drivers of this process: they may be for the same container. */
const TURNS = new ObjectTurns();

/** Who reads each object meanwhile. */
const READS = new Map<string, Set<Read>>();

interface Read {
  /** Whether the object was being changed in that time. */
  met: boolean;
}

/** Changes an object, one after the other. @param object its URL */
export function inTurn<T>(object: string, change: () => Promise<T>): Promise<T> {
  for (const read of READS.get(object) ?? []) read.met = true;
  return TURNS.take(object, change);
}

/**
 * Reads what may be changed meanwhile. Swift looks for the newest file of an object, and then opens it: where another has come
 * in between, that file is gone, and it says that there is no such object. So it is asked again after the change.
 * @param object its URL
 * @param look undefined where there is none
 */
export async function beside<T>(object: string, look: () => Promise<T | undefined>): Promise<T | undefined> {
  for (;;) {
    const read: Read = { met: TURNS.underWay(object) !== undefined };
    const found = await noted(object, read, look);
    if (found !== undefined || !read.met) return found;
    await TURNS.underWay(object);
  }
}

async function noted<T>(object: string, read: Read, look: () => Promise<T>): Promise<T> {
  const reads = READS.get(object) ?? new Set();
  READS.set(object, reads.add(read));
  try {
    return await look();
  } finally {
    reads.delete(read);
    if (reads.size === 0 && READS.get(object) === reads) READS.delete(object);
  }
}
