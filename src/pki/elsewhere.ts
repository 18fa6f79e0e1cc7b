import type { KeyObject, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { OperatorError } from '../errors.js';
import { checkChain } from './check.js';
import {
  type CertificateFolder,
  changingOrMaking,
  exists,
  isIssuedBy,
  readFolder,
  signingAuthority,
} from './folder.js';
import { checkDates, checkUsable, parseCertificates, readPem } from './inspect.js';
import { certificatePem, certify, type IssueOptions, keyKindLike } from './issue.js';
import { parsePrivateKey } from './key-file.js';
import { describeKey, generateKey, type KeyKind, sameKey } from './keys.js';
import { LOOPBACK_NAMES, unique } from './names.js';
import { applyChanges, type Changes, keepCopies, pairFiles } from './pair-files.js';
import type { UpkeepOptions } from './renewal.js';
import { readRequest, signRequest } from './requests.js';
import { CROSS_FILE, ROTATION_FILE, rotationNotes } from './rotation-files.js';
import { certificateFields, notAfter } from './x509.js';

/**
 * An authority whose key is on another machine, or not ours at all: the server asks by a request, the authority signs it,
 * and the server takes in what comes back.
 */

export interface RequestReport {
  readonly request: string;
  readonly key: string;
  readonly keyAction: 'created' | 'reused';
  readonly keyKind: string;
  readonly names: readonly string[];
}

/**
 * Writes `domain.csr`, for the key that the server has; where there is none it makes one.
 * @param options.names canonical; those of the present certificate come after them
 * @param options.machineNames stand in where there are no others
 */
export async function makeRequest(options: {
  readonly dir: string;
  readonly names: readonly string[];
  readonly machineNames: readonly string[];
  readonly keyKind?: KeyKind | undefined;
}): Promise<RequestReport> {
  return changingOrMaking(options.dir, async () => {
    const { dir, machineNames } = options;
    const { certificate, key: keyPath } = pairFiles(dir, 'domain');
    const has = (await exists(certificate)) ? certificateFields((await readCertificates(certificate))[0]).names : [];
    const given = unique([...options.names, ...has]);
    const names = has.length > 0 ? given : unique([...given, ...(given.length > 0 ? LOOPBACK_NAMES : machineNames)]);
    const old = (await exists(keyPath)) ? parsePrivateKey(keyPath, await readPem(keyPath)) : undefined;
    if (old && options.keyKind && describeKey(old) !== options.keyKind)
      throw new OperatorError(`${keyPath} is there, and it is ${describeKey(old)}`, {
        fix: 'leave --key out to use it, or move it away once its certificate is no longer served',
      });
    const key = old ?? (await generateKey(keyKindLike(undefined, options.keyKind)));
    const changes = new Map([['domain.csr', { content: signRequest(key, names), mode: 0o644 }]] as [string, Change][]);
    if (!old)
      changes.set('domain.key', { content: key.export({ type: 'pkcs8', format: 'pem' }) as string, mode: 0o600 });
    await applyChanges(dir, changes);
    const request = join(dir, 'domain.csr');
    return { request, key: keyPath, keyAction: old ? 'reused' : 'created', keyKind: describeKey(key), names };
  });
}

type Change = NonNullable<ReturnType<Changes['get']>>;

const readCertificates = async (path: string) => parseCertificates(path, await readPem(path));

export interface SignedRequest {
  /** PEM: the certificate, the cross certificate during a rotation, then the authorities as clients install them. */
  readonly pem: string;
  readonly names: readonly string[];
  readonly notAfter: Date;
}

/** Signs a request with the authority in the folder. Nothing is written. @throws OperatorError */
export async function signRequestFile(options: UpkeepOptions & { readonly request: string }): Promise<SignedRequest> {
  const { publicKey, names } = readRequest(options.request, await readPem(options.request));
  const folder = await readFolder(options.dir);
  const authority = await signingAuthority(folder, options.passphrase);
  const certified = certify(folder, authority, publicKey, names, options);
  const [leaf] = parseCertificates(options.request, Buffer.from(certified));
  const retiring = folder.rotation?.retiring;
  return {
    pem: certified + certificatePem(authority.certificate) + (retiring ? certificatePem(retiring) : ''),
    names,
    notAfter: notAfter(leaf),
  };
}

export interface ImportReport {
  readonly certificate: string;
  readonly names: readonly string[];
  readonly notAfter: Date;
  /** Who signed, each by its subject, the server's own first. */
  readonly chain: readonly string[];
  /** What clients install from now on; undefined where the files held no root. */
  readonly anchor: { readonly path: string; readonly fingerprint: string } | undefined;
  readonly copies: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Puts a certificate that was made elsewhere, its chain and its root into their places: all of them or none, and only when
 * a server can serve them.
 * @param options.files PEM, in any order
 * @param options.key where its private key is; by default `domain.key` in the folder
 */
export async function importCertificate(
  options: IssueOptions & {
    readonly dir: string;
    readonly files: readonly string[];
    readonly key?: string | undefined;
  },
): Promise<ImportReport> {
  const now = options.now ?? new Date();
  const given = (await Promise.all(options.files.map(readCertificates))).flat();
  return changingOrMaking(options.dir, async () => {
    const { certificate, key: ownKey } = pairFiles(options.dir, 'domain');
    const keyPath = options.key ?? ownKey;
    const keyPem = await readPem(keyPath);
    const found = sortChain(given, parsePrivateKey(keyPath, keyPem));
    if (!found)
      throw new OperatorError(`none of the certificates in ${options.files.join(', ')} is for ${keyPath}`, {
        fix: 'give the one that was made from its request; for a certificate with another key: --key FILE',
      });
    const { chain, roots, rest } = found;
    const [leaf] = chain;
    const certificatePems = chain.map(certificatePem).join('');
    checkDates(options.files[0]!, leaf, now);
    checkUsable(
      { certificate: options.files[0]!, key: keyPath },
      { certificatePem: Buffer.from(certificatePems), keyPem },
    );
    checkClients(options.files[0]!, chain, roots, now);
    const changes = new Map<string, Change | undefined>();
    if (options.key !== undefined) changes.set('domain.key', { content: keyPem.toString('latin1'), mode: 0o600 });
    changes.set('domain.crt', { content: certificatePems, mode: 0o644 });
    for (const [file, change] of await authorityChanges(options.dir, chain, roots)) changes.set(file, change);
    for (const [file, change] of changes) if (await isSame(join(options.dir, file), change)) changes.delete(file);
    const copies = await keepCopies(
      [...changes.keys()].map(file => join(options.dir, file)),
      now,
    );
    await applyChanges(options.dir, changes);
    return {
      certificate,
      names: certificateFields(leaf).names,
      notAfter: notAfter(leaf),
      chain: chain.map(({ subject }) => subject.replaceAll('\n', ', ')),
      anchor: roots[0] && { path: join(options.dir, 'ca.crt'), fingerprint: roots[0].fingerprint256 },
      copies,
      warnings: rest.map(
        ({ subject }) => `${subject.replaceAll('\n', ', ')} has no part in the chain and was left out`,
      ),
    };
  });
}

/** Clients have one of the roots, or none of these where somebody else's is known to them. */
function checkClients(path: string, chain: SortedChain['chain'], roots: readonly X509Certificate[], now: Date): void {
  const worlds = roots.length > 0 ? roots.map(root => ({ now, anchors: [root] })) : [{ now }];
  const [wrong] = worlds.flatMap(world => checkChain(chain, world)).filter(({ severity }) => severity === 'error');
  if (wrong) throw new OperatorError(`${path}: ${wrong.message}`, { fix: wrong.fix });
}

async function isSame(path: string, change: Change | undefined): Promise<boolean> {
  return change !== undefined && (await exists(path)) && (await readPem(path)).toString('latin1') === change.content;
}

interface SortedChain {
  readonly chain: readonly [X509Certificate, ...X509Certificate[]];
  /** Those that sign themselves, who vouches for the server's own certificate first. */
  readonly roots: readonly X509Certificate[];
  readonly rest: readonly X509Certificate[];
}

/** The way from the certificate of the key up to its root, the longest there is: clients may know only the last of it. */
function sortChain(given: readonly X509Certificate[], key: KeyObject): SortedChain | undefined {
  const known = given.filter((one, at) => given.findIndex(other => other.raw.equals(one.raw)) === at);
  const leaf = known.find(({ publicKey }) => sameKey(publicKey, key));
  if (!leaf) return undefined;
  const chain: [X509Certificate, ...X509Certificate[]] = [leaf];
  const roots: X509Certificate[] = [];
  for (let end = leaf; ; ) {
    const issuers = known.filter(one => one !== end && !chain.includes(one) && isIssuedBy(end, one));
    roots.push(...issuers.filter(isRoot).filter(root => !roots.includes(root)));
    const next = issuers.find(one => !isRoot(one));
    if (!next) break;
    chain.push(next);
    end = next;
  }
  return { chain, roots, rest: known.filter(one => !chain.includes(one) && !roots.includes(one)) };
}

const isRoot = (certificate: X509Certificate): boolean => isIssuedBy(certificate, certificate);

/** A root that comes along becomes what clients install, with the rotation that it is part of. */
async function authorityChanges(
  dir: string,
  chain: SortedChain['chain'],
  roots: readonly X509Certificate[],
): Promise<Map<string, Change | undefined>> {
  const changes = new Map<string, Change | undefined>();
  const [root] = roots;
  if (!root) return changes;
  const folder = await readFolder(dir).catch(
    (): Pick<CertificateFolder, 'authority' | 'rotation'> => ({
      authority: undefined,
      rotation: undefined,
    }),
  );
  const ca = pairFiles(dir, 'ca');
  if (folder.authority && !sameKey(folder.authority.publicKey, root.publicKey) && (await exists(ca.key)))
    throw new OperatorError(`${ca.key} is of another authority than the one in these files`, {
      fix: 'leave its root out to keep ca.crt, or move ca.key and ca.crt away to take the new one',
    });
  changes.set('ca.crt', { content: roots.map(certificatePem).join(''), mode: 0o644 });
  const cross = chain.find(one => one.subject === root.subject && sameKey(one.publicKey, root.publicKey));
  if (cross) {
    changes.set(CROSS_FILE, { content: certificatePem(cross), mode: 0o644 });
    changes.set(ROTATION_FILE, { content: rotationNotes(notAfter(cross), []), mode: 0o644 });
  } else if (folder.rotation) for (const file of [CROSS_FILE, ROTATION_FILE]) changes.set(file, undefined);
  return changes;
}
