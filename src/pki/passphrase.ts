import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { OperatorError } from '../errors.js';
import { changing, type Passphrase, readFolder, signingAuthority } from './folder.js';
import { encodeKey } from './key-file.js';
import { applyChanges, pairFiles } from './pair-files.js';

/**
 * Encrypts `ca.key` by another passphrase, or with undefined leaves it in the clear.
 * @param open for the present passphrase
 * @returns the key, and older copies beside it, which stay as they are
 * @throws OperatorError when the key cannot be opened; nothing is changed then.
 */
export async function changePassphrase(
  dir: string,
  open: Passphrase,
  next: string | undefined,
): Promise<{ readonly key: string; readonly copies: readonly string[] }> {
  return changing(dir, async () => {
    const { key, passphrase } = await signingAuthority(await readFolder(dir), open);
    if (passphrase === undefined && next === undefined)
      throw new OperatorError(`${pairFiles(dir, 'ca').key} is not encrypted`, {
        fix: 'leave --remove out to encrypt it',
      });
    await applyChanges(dir, new Map([['ca.key', { content: await encodeKey(key, next), mode: 0o600 }]] as const));
    const copies = (await readdir(dir)).filter(file => file.startsWith('ca.key.')).sort();
    return { key: pairFiles(dir, 'ca').key, copies: copies.map(file => join(dir, file)) };
  });
}
