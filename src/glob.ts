import { OperatorError } from './errors.js';

/** Whether a name of a repository or a tag matches. */
export type Glob = (name: string) => boolean;

/**
 * A pattern for names of repositories and tags: `*` stands for any characters but the slash, `**` for any at all.
 * @throws OperatorError for a pattern that can match no name
 */
export function parseGlob(pattern: string): Glob {
  if (pattern.length > 255 || !/^[\w.*/-]+$/.test(pattern))
    throw new OperatorError(`${JSON.stringify(pattern.slice(0, 100))} is no pattern for names`, {
      fix: 'write a name, with * for any characters but the slash and ** for any, such as team/* or v1.*',
    });
  // Most patterns are a name, or all below one.
  if (!pattern.includes('*')) return name => name === pattern;
  const [, before] = /^([^*]*)\*\*$/.exec(pattern) ?? [];
  if (before !== undefined) return name => name.startsWith(before);
  const parts = pattern.match(/\*\*+|./g)!;
  return name => {
    // Every place of the pattern that the name can have come to so far; so no pattern is slow.
    let places = past(parts, new Set([0]));
    for (const character of name) {
      const next = new Set<number>();
      for (const place of places) {
        const part = parts[place];
        if (part === character) next.add(place + 1);
        else if (part?.startsWith('**') || (part === '*' && character !== '/')) next.add(place);
      }
      places = past(parts, next);
    }
    return places.has(parts.length);
  };
}

/** The places, and those behind wildcards at them, which may stand for nothing. */
function past(parts: readonly string[], places: Set<number>): Set<number> {
  // A set that grows while it is walked is walked to its end.
  for (const place of places) if (parts[place]?.startsWith('*')) places.add(place + 1);
  return places;
}
