import type { X509Certificate } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { makeFolder } from '../folder.js';
import { withLock } from '../lock.js';
import type { Authority } from './authority.js';
import { type KeyPair, parseCertificates, readKeyPair, readPem } from './inspect.js';
import { isEncrypted } from './key-file.js';
import { finishPending, pairFiles } from './pair-files.js';
import { type Rotation, readRotation } from './rotation-files.js';

/** The folder `certs/` as it is found: who signs, what is served, and whether one authority is just following another. */
export interface CertificateFolder {
  readonly dir: string;
  /** Who signs now: the first certificate in ca.crt. */
  readonly authority: X509Certificate | undefined;
  /** While a new authority takes the place of an older one. */
  readonly rotation: Rotation | undefined;
  /** A pair that is broken counts as there, with its problem: nothing replaces it unasked. */
  readonly server: KeyPair | undefined;
  readonly serverProblem: OperatorError | undefined;
}

/** Opens an encrypted ca.key: how its passphrase is had, undefined where nobody can be asked for it. */
export type Passphrase = () => Promise<string | undefined>;

/** @throws OperatorError for an authority or a rotation that cannot be read. */
export async function readFolder(dir: string): Promise<CertificateFolder> {
  const [ca, domain] = [pairFiles(dir, 'ca'), pairFiles(dir, 'domain')];
  const [caCertificate, caKey, certificate, key] = await Promise.all(
    [ca.certificate, ca.key, domain.certificate, domain.key].map(exists),
  );
  if (caKey && !caCertificate)
    throw new OperatorError(`${ca.key} has no ca.crt beside it`, {
      fix: 'put its ca.crt back, or move ca.key away to start with a new authority',
    });
  const authorities = caCertificate ? parseCertificates(ca.certificate, await readPem(ca.certificate)) : [];
  const rotation = await readRotation(dir, authorities);
  const found = { dir, authority: authorities[0], rotation };
  if (!certificate && !key) return { ...found, server: undefined, serverProblem: undefined };
  if (!certificate || !key)
    return { ...found, server: undefined, serverProblem: await halfPair(dir, certificate === true) };
  try {
    return { ...found, server: await readKeyPair(domain), serverProblem: undefined };
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return { ...found, server: undefined, serverProblem: error };
  }
}

async function halfPair(dir: string, certificate: boolean): Promise<OperatorError> {
  const domain = pairFiles(dir, 'domain');
  const request = join(dir, 'domain.csr');
  if (!certificate && (await exists(request)))
    return new OperatorError(`${domain.key} waits for its certificate`, {
      fix: `have ${request} signed (registry-secure certs sign, where the authority is), then: registry-secure certs import FILE`,
    });
  const [there, missing] = certificate ? [domain.certificate, domain.key] : [domain.key, domain.certificate];
  return new OperatorError(`${there} is there without ${missing}`, {
    fix: 'put it back, or replace both with registry-secure init-certs --force (copies are kept)',
  });
}

export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
    throw new OperatorError(`${path} cannot be reached (${systemCode(error) ?? error})`, {
      fix: 'give this user access to the folder',
      cause: error,
    });
  }
}

/** Holds the folder's lock meanwhile; what an earlier run left half done is completed first. */
export async function changing<T>(dir: string, task: () => Promise<T>): Promise<T> {
  // Without a folder there is nothing to change, which the task finds out in its own words.
  if (!(await exists(dir))) return task();
  try {
    return await withLock(join(dir, '.lock'), async () => {
      await finishPending(dir);
      return task();
    });
  } catch (error) {
    if (error instanceof OperatorError || !systemCode(error)) throw error;
    throw unwritable(dir, error);
  }
}

/** The same for a task that may begin with nothing: the folder is made where it is missing. */
export async function changingOrMaking<T>(dir: string, task: () => Promise<T>): Promise<T> {
  await makeFolder(dir);
  return changing(dir, task);
}

function unwritable(dir: string, cause: unknown): OperatorError {
  const full = systemCode(cause) === 'ENOSPC' || systemCode(cause) === 'EDQUOT';
  return new OperatorError(`the folder ${dir} cannot be written (${(cause as Error).message})`, {
    fix: full
      ? 'free some space and run this again'
      : 'make it writable for this user, or put certificates there for it',
    cause,
  });
}

export async function isWritable(dir: string): Promise<boolean> {
  return access(dir, constants.W_OK).then(
    () => true,
    () => false,
  );
}

export function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

/** Whether the server certificate is of the authority beside it, and so ours to issue anew. */
export function isOurs({ server, authority }: CertificateFolder): boolean {
  return server !== undefined && authority !== undefined && isIssuedBy(server.chain[0], authority);
}

/** @returns undefined where there is no ca.key */
export async function isKeyEncrypted(dir: string): Promise<boolean | undefined> {
  const { key } = pairFiles(dir, 'ca');
  return (await exists(key)) ? isEncrypted(await readPem(key)) : undefined;
}

/** @throws OperatorError when the authority's key is missing, another one's, or does not open. */
export async function signingAuthority(
  { dir, authority }: CertificateFolder,
  passphrase: Passphrase | undefined,
): Promise<Authority & { readonly passphrase: string | undefined }> {
  const files = pairFiles(dir, 'ca');
  if (!authority)
    throw new OperatorError(`there is no certificate authority in ${dir}`, {
      fix: 'make one: registry-secure init-certs',
    });
  const encrypted = await isKeyEncrypted(dir);
  if (encrypted === undefined)
    throw new OperatorError(`${files.key} is missing, so that no server certificate can be issued`, {
      fix: 'run this where the key is, or put it back; a key that lives elsewhere signs like this: registry-secure certs csr here, certs sign there, certs import here',
    });
  const secret = encrypted ? await passphrase?.() : undefined;
  if (encrypted && secret === undefined)
    throw new OperatorError(`${files.key} is encrypted, and there is no passphrase for it`, {
      fix: 'give --passphrase-file FILE, or set REGISTRY_SECURE_CA_PASSPHRASE_FILE to the path of a file that holds it',
    });
  return { certificate: authority, key: (await readKeyPair(files, secret)).key, passphrase: secret };
}
