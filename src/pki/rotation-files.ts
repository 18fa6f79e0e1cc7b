import type { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { parseCertificates, readPem } from './inspect.js';
import { sameKey } from './keys.js';
import { parseName } from './names.js';
import { notAfter } from './x509.js';

/** What stands in the folder while a new authority takes the place of an older one, besides a ca.crt of both. */

export const CROSS_FILE = 'ca.cross.crt';
export const ROTATION_FILE = 'rotation.json';

export interface Rotation {
  /** The new authority's certificate, signed by the older one: it follows the server's own in what is served. */
  readonly cross: X509Certificate;
  /** The older authority; undefined where somebody took it out of ca.crt. */
  readonly retiring: X509Certificate | undefined;
  /** The end of the overlap: from then on the new authority stands alone. */
  readonly until: Date;
  /** Names that the older authority does not permit: in the certificate once the overlap is over. */
  readonly waiting: readonly string[];
}

/** @throws OperatorError for files that cannot be read or do not belong to this authority. */
export async function readRotation(
  dir: string,
  [authority, retiring]: readonly X509Certificate[],
): Promise<Rotation | undefined> {
  const [path, notes] = [join(dir, CROSS_FILE), join(dir, ROTATION_FILE)];
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  const [cross] = parseCertificates(path, text);
  if (!authority || !sameKey(cross.publicKey, authority.publicKey))
    throw new OperatorError(`${path} is not of the authority in ca.crt`, {
      fix: `put the right ca.crt back, or remove ${CROSS_FILE} and ${ROTATION_FILE} to end the rotation`,
    });
  return { cross, retiring, until: notAfter(cross), waiting: await readWaiting(notes) };
}

async function readWaiting(path: string): Promise<string[]> {
  const text = await readIfThere(path);
  if (text === undefined) return [];
  try {
    const { names } = JSON.parse(text.toString()) as { names?: unknown };
    if (Array.isArray(names) && names.every(name => typeof name === 'string')) return names.map(parseName);
  } catch {
    // Told below.
  }
  throw new OperatorError(`${path} is not what a rotation writes`, {
    fix: 'restore it, or write {"names": []} into it; names can be added again after the rotation',
  });
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  return readPem(path).catch(error => {
    const code = systemCode((error as Error).cause);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  });
}

/** Text of `rotation.json`. */
export function rotationNotes(until: Date, names: readonly string[]): string {
  return `${JSON.stringify({ until: until.toISOString(), names }, null, 2)}\n`;
}
