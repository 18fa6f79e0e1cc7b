import type { X509Certificate } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import { OperatorError } from '../errors.js';
import {
  type CertificateFolder,
  changing,
  isOurs,
  isWritable,
  type Passphrase,
  readFolder,
  signingAuthority,
} from './folder.js';
import type { PemFiles } from './inspect.js';
import { AUTHORITY_NAME, certificatePem, type IssueOptions, issueServer } from './issue.js';
import { describeKey } from './keys.js';
import { unique } from './names.js';
import { applyChanges, type Changes, pairChanges, pairFiles } from './pair-files.js';
import { CROSS_FILE, ROTATION_FILE } from './rotation-files.js';
import { certificateFields, notAfter, notBefore, readPemCertificates } from './x509.js';

/** What becomes due by time alone: a server certificate's renewal, and the end of a rotation. */

/** When a server certificate is to be renewed: at two thirds of its life. */
export function renewalTime(certificate: X509Certificate): Date {
  const [first, last] = [notBefore(certificate).getTime(), notAfter(certificate).getTime()];
  return new Date(first + ((last - first) * 2) / 3);
}

/** The days that a certificate is valid for, from its first second to its last. */
export function daysOf(certificate: X509Certificate): number {
  return Math.round((notAfter(certificate).getTime() - notBefore(certificate).getTime()) / 86_400_000);
}

export type Upkeep = 'renew' | 'finish';

/** What is due in a folder, and what will be next. Only what is of our authority is ours to renew. */
export function upkeepOf(folder: CertificateFolder): { readonly work: Upkeep; readonly due: Date } | undefined {
  const renewal = isOurs(folder) ? renewalTime(folder.server!.chain[0]) : undefined;
  const end = folder.rotation?.until;
  if (end && (!renewal || end <= renewal)) return { work: 'finish', due: end };
  return renewal && { work: 'renew', due: renewal };
}

export interface UpkeepOptions extends IssueOptions {
  /** An absolute path. */
  readonly dir: string;
  readonly passphrase?: Passphrase | undefined;
}

/**
 * Does what is due, if anything: renews the server certificate with the names and the kind of key that it has, or ends a
 * rotation. Of several processes one does it; the others find it done.
 * @returns what was done
 * @throws OperatorError when it is due and cannot be done.
 */
export async function doUpkeep(
  options: UpkeepOptions,
  works: readonly Upkeep[] = ['renew', 'finish'],
): Promise<Upkeep | undefined> {
  const now = options.now ?? new Date();
  const isDue = async () => {
    const folder = await readFolder(options.dir);
    const upkeep = upkeepOf(folder);
    return upkeep && upkeep.due <= now && works.includes(upkeep.work) ? { folder, work: upkeep.work } : undefined;
  };
  // The usual case takes no lock, so that it works in a folder mounted read-only. What cannot be read may be half written
  // just now; it is no certificate to renew.
  const found = await isDue().catch(error => {
    if (error instanceof OperatorError) return undefined;
    throw error;
  });
  if (!found) return undefined;
  return changing(options.dir, async () => {
    const due = await isDue();
    if (!due) return undefined;
    const { folder, work } = due;
    await applyChanges(
      options.dir,
      work === 'finish' ? await finishing(folder, options) : await renewing(folder, options),
    );
    return work;
  });
}

async function renewing(folder: CertificateFolder, options: UpkeepOptions): Promise<Changes> {
  const authority = await signingAuthority(folder, options.passphrase);
  const { names } = certificateFields(folder.server!.chain[0]);
  return pairChanges('domain', await issueServer(folder, authority, names, { days: sameDays(folder), ...options }));
}

/** The life that somebody chose for the present certificate; not the one that the end of its authority cut short. */
function sameDays({ server, authority }: CertificateFolder): number | undefined {
  const [leaf] = server!.chain;
  if (notAfter(leaf).getTime() === notAfter(authority!).getTime()) return undefined;
  return Math.max(1, daysOf(leaf));
}

/**
 * What ends a rotation: the older authority leaves ca.crt, the cross certificate leaves the server's, and names that
 * waited for this come in. Where no name waits, it needs no key.
 */
export async function finishing(folder: CertificateFolder, options: UpkeepOptions): Promise<Changes> {
  const changes = new Map(await withoutCross(folder, options));
  changes.set('ca.crt', { content: certificatePem(folder.authority!), mode: 0o644 });
  for (const file of [CROSS_FILE, ROTATION_FILE]) changes.set(file, undefined);
  return changes;
}

async function withoutCross(folder: CertificateFolder, options: UpkeepOptions): Promise<Changes> {
  const { server, rotation } = folder;
  if (!server || !isOurs(folder)) return new Map();
  const [leaf] = server.chain;
  const names = unique([...certificateFields(leaf).names, ...(rotation?.waiting ?? [])]);
  try {
    const authority = await signingAuthority(folder, options.passphrase);
    return pairChanges('domain', await issueServer({ server, rotation: undefined }, authority, names, options));
  } catch (error) {
    if (!(error instanceof OperatorError) || rotation?.waiting.length) throw error;
    return new Map([['domain.crt', { content: certificatePem(leaf), mode: 0o644 }]] as const);
  }
}

/** What a renewal by hand has done, or would do. */
export interface Renewal {
  /** A rotation whose time was over was ended by the way. */
  readonly finished: boolean;
  readonly names: readonly string[];
  readonly notAfter: Date;
  readonly fingerprint: string;
  readonly keyKind: string;
}

/**
 * Renews the server certificate whatever its age, with more names where some are given.
 * @throws OperatorError where it is not of our authority, or cannot be issued.
 */
export async function renewNow(
  options: UpkeepOptions & { readonly names: readonly string[]; readonly dryRun?: boolean | undefined },
): Promise<Renewal> {
  const renew = async (): Promise<Renewal> => {
    let folder = await readFolder(options.dir);
    if (folder.serverProblem) throw folder.serverProblem;
    if (!isOurs(folder)) throw notOurs(folder);
    const finished = folder.rotation !== undefined && folder.rotation.until <= (options.now ?? new Date());
    if (finished && !options.dryRun) {
      await applyChanges(options.dir, await finishing(folder, options));
      folder = await readFolder(options.dir);
    }
    const waiting = finished ? (folder.rotation?.waiting ?? []) : [];
    // Names that the operator gives come first: the first one is what clients are told to use.
    const names = unique([...options.names, ...certificateFields(folder.server!.chain[0]).names, ...waiting]);
    const authority = await signingAuthority(folder, options.passphrase);
    const overlapping = finished ? { server: folder.server, rotation: undefined } : folder;
    const pair = await issueServer(overlapping, authority, names, options);
    if (!options.dryRun) await applyChanges(options.dir, pairChanges('domain', pair));
    const [leaf] = readPemCertificates(pair.certificate);
    return {
      finished,
      names,
      notAfter: notAfter(leaf!),
      fingerprint: leaf!.fingerprint256,
      keyKind: describeKey(leaf!.publicKey),
    };
  };
  return options.dryRun ? renew() : changing(options.dir, renew);
}

function notOurs({ dir, server }: CertificateFolder): OperatorError {
  const { certificate } = pairFiles(dir, 'domain');
  if (!server)
    return new OperatorError(`there is no certificate in ${dir}`, { fix: 'make one: registry-secure init-certs' });
  return new OperatorError(`${certificate} is not of an authority beside it`, {
    fix: 'renew it where it came from, then: registry-secure certs import FILE; or replace it by one of our own: registry-secure init-certs --force (copies are kept)',
  });
}

/**
 * The folder of a pair that this program made, also where a configuration names its files: then it is ours to renew.
 * Undefined for what an operator brought, an authority of his own beside it or not.
 */
export async function folderOf(files: PemFiles): Promise<string | undefined> {
  const dir = dirname(resolve(files.certificate));
  const own = pairFiles(dir, 'domain');
  if (resolve(files.certificate) !== own.certificate || resolve(files.key) !== own.key) return undefined;
  const folder = await readFolder(dir).catch(() => undefined);
  return folder && isOurs(folder) && folder.authority!.subject.startsWith(`CN=${AUTHORITY_NAME} `) ? dir : undefined;
}

/** Why a server certificate will not be renewed by this process when its time comes; undefined when it will be. */
export async function renewalObstacle(options: UpkeepOptions): Promise<OperatorError | undefined> {
  const folder = await readFolder(options.dir);
  if (!isOurs(folder)) return notOurs(folder);
  if (!(await isWritable(options.dir)))
    return new OperatorError(`${options.dir} may not be written by this process`, {
      fix: 'renew it from outside: registry-secure certs renew; or make the folder writable for it',
    });
  try {
    await signingAuthority(folder, options.passphrase);
    return undefined;
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
}
