/** What is under way for each object, of all drivers of this process: they may be for the same container. */
const TURNS = new Map<string, Promise<unknown>>();

/** Does one thing after the other. @param object its URL */
export async function inTurn<T>(object: string, action: () => Promise<T>): Promise<T> {
  const turn = (TURNS.get(object) ?? Promise.resolve()).then(action, action);
  TURNS.set(object, turn);
  try {
    return await turn;
  } finally {
    if (TURNS.get(object) === turn) TURNS.delete(object);
  }
}
