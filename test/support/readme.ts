import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHECKOUT } from './checkout.js';

/** The shell blocks of a document, each whole, by the heading above them. */
export function shellBlocks(document = 'README.md'): Map<string, string[]> {
  const blocks = new Map<string, string[]>();
  let heading = '';
  for (const [, title, shell] of readFileSync(join(CHECKOUT, document), 'utf8').matchAll(
    /^#+ (.+)$|^ *```sh\n([\s\S]*?)^ *```$/gm,
  )) {
    if (title !== undefined) heading = title;
    else blocks.set(heading, [...(blocks.get(heading) ?? []), shell!.replace(/^ {3}/gm, '')]);
  }
  return blocks;
}
