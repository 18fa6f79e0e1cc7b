import { OperatorError } from '../errors.js';
import { parseGlob } from '../glob.js';
import { isRepositoryName } from '../reference.js';
import { USER } from './policy.js';
import { RIGHTS, type Right } from './rights.js';

/** The words of a policy that stand elsewhere too, for tokens of machines. */

/** @throws OperatorError */
export function parseRight(text: string): Right {
  if (Object.hasOwn(RIGHTS, text)) return text as Right;
  throw new OperatorError(`${JSON.stringify(text)} is no right`, { fix: `write ${Object.keys(RIGHTS).join(', ')}` });
}

/** A pattern that some repository may match. @throws OperatorError */
export function parsePattern(text: string): string {
  parseGlob(text.replaceAll(USER, 'user'));
  if (matchesSomeName(text)) return text;
  throw new OperatorError(`${JSON.stringify(text)} matches no repository: names are of lower case, as in team/app`, {
    fix: 'check the spelling; * stands for any characters but the slash, ** for any, {user} for the name of the user',
  });
}

/** A letter in the place of each wildcard makes a name of every pattern that any name matches. */
function matchesSomeName(pattern: string): boolean {
  return isRepositoryName(pattern.replaceAll(USER, 'x').replaceAll(/\*+/g, 'x'));
}
