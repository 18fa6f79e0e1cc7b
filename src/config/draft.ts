import type { Raw, RawMap } from '../yaml.js';

/** Configuration as it is gathered: text, lists and names, each value with where it comes from. */
export class Draft {
  readonly tree: RawMap = Object.create(null) as RawMap;
  /** Dotted path of each value → where it was set last. */
  readonly sources = new Map<string, string>();

  get(path: readonly string[]): Raw | undefined {
    let value: Raw | undefined = this.tree;
    for (const name of path) {
      if (value === undefined || typeof value === 'string' || !Object.hasOwn(value, name)) return undefined;
      value = (value as RawMap)[name];
    }
    return value;
  }

  /** Puts a value in place, with the sections, or list items, above it. It replaces all that was there. */
  set(path: readonly string[], value: Raw, source: string): void {
    let parent: Raw[] | RawMap = this.tree;
    path.slice(0, -1).forEach((name, depth) => {
      const there = Object.hasOwn(parent, name) ? (parent as RawMap)[name] : undefined;
      if (there !== undefined && typeof there === 'object') {
        // An empty section had a source of its own.
        if (!Array.isArray(there)) this.sources.delete(path.slice(0, depth + 1).join('.'));
        parent = there;
        return;
      }
      this.forget(path.slice(0, depth + 1));
      const made: Raw[] | RawMap = /^\d+$/.test(path[depth + 1]!) ? [] : (Object.create(null) as RawMap);
      (parent as RawMap)[name] = made;
      parent = made;
    });
    this.forget(path);
    (parent as RawMap)[path.at(-1)!] = value;
    this.record(path, value, source);
  }

  remove(path: readonly string[]): void {
    const parent = this.get(path.slice(0, -1));
    if (parent !== undefined && typeof parent === 'object') delete (parent as RawMap)[path.at(-1)!];
    this.forget(path);
  }

  /** Where the value at a path, or what lies below it, or the whole that it lies in, was set. */
  sourceOf(path: string): string | undefined {
    const own = this.sources.get(path);
    if (own !== undefined) return own;
    for (const [key, source] of this.sources) if (key.startsWith(`${path}.`)) return source;
    const dot = path.lastIndexOf('.');
    return dot < 0 ? undefined : this.sources.get(path.slice(0, dot));
  }

  private record(path: readonly string[], value: Raw, source: string): void {
    const below = typeof value === 'string' || Array.isArray(value) ? [] : Object.entries(value);
    if (below.length === 0) this.sources.set(path.join('.'), source);
    for (const [name, child] of below) this.record([...path, name], child, source);
  }

  private forget(path: readonly string[]): void {
    const key = path.join('.');
    for (const known of this.sources.keys())
      if (known === key || known.startsWith(`${key}.`)) this.sources.delete(known);
  }
}
