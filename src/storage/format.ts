import { OperatorError } from '../errors.js';

/** What this program keeps for itself in a place, beside the tree of `registry:2`. */
export const PRIVATE = 'registry-secure';

const FORMAT = 1;

/** Names the version of what is in that folder; this is its content in a fresh place. */
export const FORMAT_FILE = { key: `${PRIVATE}/format`, content: Buffer.from(`${FORMAT}\n`) };

/** @param path where the content was found, for the message. @throws OperatorError where this version cannot read it */
export function checkFormat(content: string, path: string): void {
  const version = /^(\d{1,6})\n?$/.exec(content)?.[1];
  if (version === undefined)
    throw new OperatorError(`${path} is damaged: it should hold a format version such as ${FORMAT}`, {
      fix: 'restore it from a backup of the volume, or write the version that last ran here into it',
    });
  if (Number(version) > FORMAT)
    throw new OperatorError(`${path} says format ${version}, and this version knows ${FORMAT} only`, {
      fix: 'start the newer version of registry-secure that wrote this volume, or a later one',
    });
}
