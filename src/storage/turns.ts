/** Has what changes one object be done one after the other, and that of different ones at once. */
export class ObjectTurns {
  readonly #last = new Map<string, Promise<unknown>>();

  async take<T>(object: string, change: () => Promise<T>): Promise<T> {
    const turn = (this.#last.get(object) ?? Promise.resolve()).then(change, change);
    this.#last.set(object, turn);
    try {
      return await turn;
    } finally {
      if (this.#last.get(object) === turn) this.#last.delete(object);
    }
  }

  /** The last change that is under way or waits, well or not; undefined where there is none. */
  underWay(object: string): Promise<unknown> | undefined {
    return this.#last.get(object)?.catch(() => undefined);
  }
}
