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
  const parts = pattern.match(/\*\*+|./g)!.map(part => (part.startsWith('**') ? ANY : part.charCodeAt(0)));
  return name => {
    // Every place of the pattern that the name can have come to so far; so no pattern is slow. Not as sets: people choose
    // patterns for their own tokens, a hundred each, and a request waits for all of them.
    let places = past(parts, new Uint8Array(parts.length + 1).fill(1, 0, 1));
    for (let at = 0; at < name.length; at++) {
      const character = name.charCodeAt(at);
      const next = new Uint8Array(parts.length + 1);
      for (let place = 0; place < parts.length; place++) {
        if (places[place] === 0) continue;
        const part = parts[place];
        if (part === ANY || (part === STAR && character !== SLASH)) next[place] = 1;
        else if (part === character) next[place + 1] = 1;
      }
      places = past(parts, next);
    }
    return places[parts.length] === 1;
  };
}

/** In the place of a character's code: `**`. */
const ANY = -1;
const STAR = 0x2a;
const SLASH = 0x2f;

/** The places, and those behind wildcards at them, which may stand for nothing. */
function past(parts: readonly number[], places: Uint8Array): Uint8Array {
  // One that is reached here is looked at next.
  for (let place = 0; place < parts.length; place++)
    if (places[place] === 1 && (parts[place] === ANY || parts[place] === STAR)) places[place + 1] = 1;
  return places;
}
