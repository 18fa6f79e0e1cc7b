import { OperatorError } from '../errors.js';
import type { Bound } from './identity.js';
import { parsePattern, parseRight } from './policy-words.js';
import { RIGHTS } from './rights.js';

/** `RIGHT:PATTERN`, of the rights and patterns of a policy. @throws OperatorError */
export function parseAllow(text: string): Bound {
  const [, right, pattern] = /^([^:]*):(.*)$/s.exec(text) ?? [];
  if (right === undefined || pattern === undefined)
    throw new OperatorError(`${JSON.stringify(text)} is no right on repositories`, {
      fix: `write RIGHT:PATTERN, such as pull:team/**; the rights are ${Object.keys(RIGHTS).join(', ')}`,
    });
  return { actions: RIGHTS[parseRight(right)], on: [parsePattern(pattern)] };
}
