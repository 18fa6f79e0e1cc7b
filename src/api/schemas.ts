import { z } from 'zod';
import { newName, newPassword } from '../auth/htpasswd-edit.js';
import { REPOSITORY_ACTIONS } from '../auth/rights.js';
import { ERROR_CODES, OperatorError } from '../errors.js';
import { isRepositoryName } from '../reference.js';
import { MOST_ENTRIES, USUAL_ENTRIES } from './route.js';

/** What requests and answers of the API consist of. Types, checks and the document come from here. */

/** Text that a function of ours takes, or refuses in words for people. */
export function checked(schema: z.ZodString, check: (text: string) => unknown) {
  return schema.superRefine((text, context) => {
    try {
      check(text);
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      const message = error.fix === undefined ? error.message : `${error.message}; ${error.fix}`;
      context.addIssue({ code: 'custom', message });
    }
  });
}

export const userName = z.string().min(1).max(255).describe('Of a user, in Unicode NFC.');

export const newUserName = checked(z.string().min(1).max(255), name => newName(name))
  .transform(name => name.normalize('NFC'))
  .describe('No colon, no control character, no space at either end, no # at the beginning; at most 255 bytes.');

export const newUserPassword = checked(z.string().min(1).max(72), newPassword).describe('1 to 72 bytes of UTF-8.');

export const repositoryName = z
  .string()
  .max(255)
  .refine(isRepositoryName, { error: 'is no name of a repository' })
  .describe('Such as `team/app`.');

export const time = z.iso
  .datetime({ error: 'expects a time in UTC, such as 2027-01-31T18:00:00Z' })
  .describe('RFC 3339, in UTC.');

export const digest = z.string().regex(/^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$/);

export const bytes = z.int().min(0);

/** Parameters are text: a whole number is one of digits alone. */
const entries = z
  .string()
  .regex(/^[1-9]\d{0,8}$/, { error: 'expects a whole number from 1' })
  .transform(text => Math.min(Number(text), MOST_ENTRIES))
  .optional()
  .describe(`How many entries at most: ${USUAL_ENTRIES} unless told, ${MOST_ENTRIES} at most.`);

export const page = z.strictObject({
  n: entries,
  last: z.string().max(512).optional().describe('The last entry of the page before. Better follow the Link header.'),
});

export const repositoryAction = z.enum(REPOSITORY_ACTIONS);

/** As the distribution specification has it, with codes of our own. */
export const errorBody = z
  .strictObject({
    errors: z
      .array(z.strictObject({ code: z.enum(ERROR_CODES), message: z.string(), detail: z.unknown().optional() }))
      .length(1),
  })
  .meta({ id: 'Errors' });
