/** What is under way for each object, of all drivers of this process: they may be for the same container. */
const TURNS = new Map<string, Promise<unknown>>();

/** How many there were, for any object. */
let begun = 0;

/** Does one thing after the other. @param object its URL */
export async function inTurn<T>(object: string, action: () => Promise<T>): Promise<T> {
  begun += 1;
  const turn = (TURNS.get(object) ?? Promise.resolve()).then(action, action);
  TURNS.set(object, turn);
  try {
    return await turn;
  } finally {
    if (TURNS.get(object) === turn) TURNS.delete(object);
  }
}

/**
 * Reads what may be changed meanwhile. Swift looks for the newest file of an object, and then opens it: where another has come
 * in between, that file is gone, and it says that there is no such object. So it is asked again in turn.
 * @param object its URL
 * @param read undefined where there is none
 */
export async function beside<T>(object: string, read: () => Promise<T | undefined>): Promise<T | undefined> {
  const isChanging = TURNS.has(object);
  const before = begun;
  const found = await read();
  return found === undefined && (isChanging || begun !== before) ? inTurn(object, read) : found;
}
