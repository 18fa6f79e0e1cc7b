import { type KeyObject, randomBytes, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { OperatorError } from '../errors.js';
import { makeFolder } from '../folder.js';
import {
  type Authority,
  clientAuthorityCertificate,
  clientCertificate,
  DEFAULT_CA_DAYS,
  DEFAULT_DAYS,
} from './authority.js';
import { type NewFile, putFiles } from './client-files.js';
import {
  parseRevocationLists,
  REVOCATION_REASONS,
  type Revocation,
  type RevocationList,
  type RevocationReason,
  signRevocationList,
} from './crl.js';
import { changingOrMaking, exists, isKeyEncrypted, type Passphrase } from './folder.js';
import { exposedKey, readKeyPair, readPem } from './inspect.js';
import { encodeKey } from './key-file.js';
import { describeKey, generateKey, type KeyKind } from './keys.js';
import { applyChanges, type Changes, pairChanges, pairFiles } from './pair-files.js';
import { encodePkcs12, type Pkcs12Kind } from './pkcs12.js';
import { notAfter, notBefore, serialOf } from './x509.js';

/**
 * The folder `certs/clients/`: an authority of its own for client certificates, apart from the server's, so that neither's
 * rotation or name constraints touch the other.
 *
 *     ca.crt  ca.key      the authority, made at first use
 *     index.json          every certificate that it has signed: what `revoke` and `list` go by
 *     crl.pem             those of them that were revoked, signed: what servers go by
 *     NAME.crt .key .p12  what a client gets
 *
 * A certificate is in the index before it exists, so that a crash never leaves one that nobody could revoke.
 */

const DAY = 24 * 3_600_000;
const HOUR = 3_600_000;

/** How long a list is good for (days). */
export const DEFAULT_LIST_DAYS = 30;
/** A list is issued anew after this share of its life. */
const RENEW_AT = 1 / 3;

const CA = 'ca';
const INDEX = 'index.json';
const LIST = 'crl.pem';

/** Where `serve` finds what it needs of the folder. */
export function clientFolderFiles(dir: string): { authority: string; key: string; list: string; index: string } {
  const { certificate, key } = pairFiles(dir, CA);
  return { authority: certificate, key, list: join(dir, LIST), index: join(dir, INDEX) };
}

/** One certificate that the authority has signed. */
export interface ClientEntry {
  readonly name: string;
  readonly serial: string;
  /** SHA-256, as `AB:CD:…`. */
  readonly fingerprint: string;
  readonly keyKind: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly revoked?: { readonly at: string; readonly reason: RevocationReason };
}

export interface ClientStatus extends ClientEntry {
  readonly state: 'valid' | 'expired' | 'revoked';
}

export interface FolderOptions {
  /** `certs/clients`. */
  readonly dir: string;
  /** Opens the authority's key where that is encrypted. */
  readonly passphrase?: Passphrase | undefined;
  /** With one, the key of an authority that is made now is encrypted. */
  readonly newPassphrase?: Passphrase | undefined;
  readonly now?: Date;
}

/** Makes the folder's authority where there is none. What is there is not written to: it may be mounted read-only. */
export async function ensureClientAuthority(options: FolderOptions): Promise<void> {
  if (!(await readFolder(resolve(options.dir)))) await withFolder(options, async () => undefined);
}

export interface AddOptions extends FolderOptions {
  /** Becomes the common name and the name of the files. */
  readonly name: string;
  readonly days?: number | undefined;
  readonly keyKind?: KeyKind | undefined;
  /** Where the files go; the folder itself unless told. Made when missing. */
  readonly out?: string | undefined;
  /** Beside a certificate of the name that is still valid. */
  readonly renew?: boolean | undefined;
  /** Without one no PKCS#12 file is made. */
  readonly pkcs12?: { readonly password: string; readonly kind: Pkcs12Kind } | undefined;
}

export interface AddedClient {
  readonly entry: ClientEntry;
  readonly certificate: string;
  readonly key: string;
  readonly pkcs12: string | undefined;
  /** The authority was made for it. */
  readonly firstOfFolder: boolean;
}

/**
 * Issues a client certificate, with a new key.
 * @throws OperatorError for a name that cannot be one of a file, one that has a valid certificate already, a life that is
 * too long; when the authority's key is missing.
 */
export async function addClient(options: AddOptions): Promise<AddedClient> {
  const { name, now = new Date() } = options;
  checkFileName(name);
  return withFolder(options, async (folder, firstOfFolder) => {
    const holder = folder.entries.find(entry => sameName(entry.name, name) && stateOf(entry, now) === 'valid');
    if (holder && !options.renew)
      throw new OperatorError(`${quote(holder.name)} has a certificate already, until ${holder.notAfter}`, {
        fix: `add --renew for another one beside it, or revoke it first: registry-secure certs client revoke ${holder.serial}`,
      });
    const other = folder.entries.find(entry => sameName(entry.name, name) && entry.name !== name);
    if (other)
      throw new OperatorError(`${quote(name)} is ${quote(other.name)} to file systems that know no case`, {
        fix: `write it as ${quote(other.name)}, or choose another name`,
      });
    const authority = await signer(options);
    const key = await generateKey(options.keyKind ?? 'ec-p256');
    const days = options.days ?? DEFAULT_DAYS;
    const pem = clientCertificate({ authority, publicKey: key, name, days, now });
    const certificate = new X509Certificate(pem);
    const entry = entryOf(name, certificate, key);
    const files: NewFile[] = [
      { name: `${name}.key`, content: key.export({ type: 'pkcs8', format: 'pem' }) as string, mode: 0o600 },
      { name: `${name}.crt`, content: pem, mode: 0o644 },
    ];
    if (options.pkcs12) {
      const chain = [certificate, authority.certificate];
      files.push({
        name: `${name}.p12`,
        content: await encodePkcs12({ name, key, chain, ...options.pkcs12 }),
        mode: 0o600,
      });
    }
    const out = resolve(options.out ?? folder.dir);
    if (options.out !== undefined) await makeFolder(out);
    const content = indexText([...folder.entries, entry]);
    await applyChanges(folder.dir, new Map([[INDEX, { content, mode: 0o644 }]]));
    await putFiles(out, files);
    return {
      entry,
      ...pairFiles(out, name),
      pkcs12: options.pkcs12 ? join(out, `${name}.p12`) : undefined,
      firstOfFolder,
    };
  });
}

/** What the authority has signed, in that order. @throws OperatorError when there is no authority. */
export async function listClients({ dir, now = new Date() }: FolderOptions): Promise<ClientStatus[]> {
  const folder = await readFolder(resolve(dir));
  if (!folder) throw noAuthority(dir);
  return folder.entries.map(entry => ({ ...entry, state: stateOf(entry, now) }));
}

/**
 * Revokes all valid certificates of a name, or the one with a serial number, for good, and signs the list anew.
 * @throws OperatorError when there is none.
 */
export async function revokeClient(
  options: FolderOptions & { readonly which: string; readonly reason?: RevocationReason | undefined },
): Promise<ClientEntry[]> {
  const { which, reason = 'unspecified', now = new Date() } = options;
  if (!(await readFolder(resolve(options.dir)))) throw noAuthority(options.dir);
  return withFolder(options, async folder => {
    const serial = which.replaceAll(':', '').toUpperCase().replace(/^0+/, '');
    const named = folder.entries.filter(entry => sameName(entry.name, which));
    const found = named.length > 0 ? named : folder.entries.filter(entry => entry.serial === serial);
    const chosen = found.filter(entry => stateOf(entry, now) === 'valid');
    if (chosen.length === 0) {
      const [last] = found.slice(-1);
      throw new OperatorError(
        last
          ? `the certificate of ${quote(last.name)} is ${stateOf(last, now)} already`
          : `there is no client certificate ${quote(which)}`,
        { fix: 'see registry-secure certs client list' },
      );
    }
    const authority = await signer(options);
    const revoked = chosen.map(entry => ({ ...entry, revoked: { at: now.toISOString(), reason } }));
    const entries = folder.entries.map(entry => revoked.find(other => other.serial === entry.serial) ?? entry);
    await applyChanges(folder.dir, changesOf({ ...folder, entries }, authority, now));
    return revoked;
  });
}

/** Signs the list anew, whatever is left of it. @throws OperatorError when there is no authority, or no key of it. */
export async function reissueList(
  options: FolderOptions & { readonly days?: number | undefined },
): Promise<RevocationList> {
  if (!(await readFolder(resolve(options.dir)))) throw noAuthority(options.dir);
  return withFolder(options, async folder => {
    await applyChanges(folder.dir, changesOf(folder, await signer(options), options.now ?? new Date(), options.days));
    return readList(join(folder.dir, LIST));
  });
}

/**
 * Signs the list anew where it is due: a third of its life is over, or it is gone, or lacks a revocation. Safe to be called by several processes at once: one of them does it.
 * @returns whether this call has done it.
 * @throws OperatorError when it is due and cannot be done.
 */
export async function reissueListIfDue(options: FolderOptions): Promise<boolean> {
  const { now = new Date() } = options;
  const current = await readFolder(resolve(options.dir));
  if (!current || !isDue(current, now)) return false;
  return withFolder(options, async folder => {
    if (!isDue(folder, now)) return false;
    await applyChanges(folder.dir, changesOf(folder, await signer(options), now));
    return true;
  });
}

function isDue({ entries, list }: Folder, now: Date): boolean {
  if (!list?.nextUpdate) return true;
  const life = list.nextUpdate.getTime() - list.thisUpdate.getTime();
  if (now.getTime() > list.thisUpdate.getTime() + HOUR + (life - HOUR) * RENEW_AT) return true;
  return entries.some(entry => stateOf(entry, now) === 'revoked' && !list.revoked.has(entry.serial));
}

/** A certificate for one question to the registry of this machine, kept nowhere. @throws OperatorError as `addClient` */
export async function passingClient(
  options: FolderOptions & { readonly name: string },
): Promise<{ cert: string; key: string }> {
  const authority = await signer(options);
  const key = await generateKey('ec-p256');
  // The first hour is already over, for clocks that are slow.
  const whole = clientCertificate({ authority, publicKey: key, name: options.name, days: 65 / (24 * 60) });
  return { cert: whole, key: key.export({ type: 'pkcs8', format: 'pem' }) as string };
}

/** What the folder says. */
interface Folder {
  readonly dir: string;
  readonly entries: readonly ClientEntry[];
  /** Missing where somebody has removed it: then the next one is made from the index. */
  readonly list: RevocationList | undefined;
}

/** Runs a task under the folder's lock, with an authority in it. The task hears whether that was made just now. */
async function withFolder<T>(options: FolderOptions, task: (folder: Folder, made: boolean) => Promise<T>): Promise<T> {
  const dir = resolve(options.dir);
  return changingOrMaking(dir, async () => {
    const folder = await readFolder(dir);
    if (folder) return task(folder, false);
    await makeAuthority(options);
    return task((await readFolder(dir))!, true);
  });
}

/** Undefined where there is no authority yet. @throws OperatorError for an index that is gone or damaged. */
async function readFolder(dir: string): Promise<Folder | undefined> {
  const files = clientFolderFiles(dir);
  if (!(await exists(files.authority))) {
    if (!(await exists(files.key))) return undefined;
    throw new OperatorError(`${files.key} has no ca.crt beside it`, {
      fix: 'put its ca.crt back, or move ca.key away to start with a new client authority',
    });
  }
  return {
    dir,
    entries: await readIndex(files.index),
    list: (await exists(files.list)) ? await readList(files.list) : undefined,
  };
}

async function readList(path: string): Promise<RevocationList> {
  return parseRevocationLists(path, await readPem(path))[0]!;
}

async function readIndex(path: string): Promise<readonly ClientEntry[]> {
  try {
    const { certificates } = JSON.parse(await readFile(path, 'utf8')) as { certificates: ClientEntry[] };
    if (certificates.every(isEntry)) return certificates;
    throw new Error('an entry lacks a field');
  } catch (cause) {
    throw new OperatorError(`${path} cannot be read: ${(cause as Error).message}`, {
      fix: 'put it back from a backup; without it nobody knows which client certificates there are',
      cause,
    });
  }
}

function isEntry({ name, serial, notAfter, revoked }: ClientEntry): boolean {
  const dated = [notAfter, revoked?.at ?? notAfter].every(date => !Number.isNaN(Date.parse(date)));
  const reason = revoked === undefined || Object.hasOwn(REVOCATION_REASONS, revoked.reason);
  return typeof name === 'string' && /^[0-9A-F]+$/.test(serial) && dated && reason;
}

function indexText(certificates: readonly ClientEntry[]): string {
  return `${JSON.stringify({ version: 1, certificates }, null, 2)}\n`;
}

/** What the index says from now on, and with it the list: both or neither. */
function changesOf(next: Folder, authority: Authority, now: Date, days?: number): Changes {
  return new Map([
    [INDEX, { content: indexText(next.entries), mode: 0o644 }],
    [LIST, { content: nextList(next, authority, now, days), mode: 0o644 }],
  ] as const);
}

async function makeAuthority({ dir, newPassphrase, now = new Date() }: FolderOptions): Promise<void> {
  const key = await generateKey('ec-p256');
  const commonName = `registry-secure client CA ${hostname().slice(0, 24)} ${randomBytes(4).toString('hex')}`;
  const certificate = clientAuthorityCertificate({ key, commonName, days: DEFAULT_CA_DAYS, now });
  const authority = { certificate: new X509Certificate(certificate), key };
  const empty = { dir, entries: [], list: undefined };
  const pair = pairChanges(CA, { certificate, key: await encodeKey(key, await newPassphrase?.()) });
  await applyChanges(resolve(dir), new Map([...changesOf(empty, authority, now), ...pair]));
}

/** The authority with its key. @throws OperatorError when that is missing, exposed, another one's, or does not open. */
async function signer({ dir, passphrase }: FolderOptions): Promise<Authority> {
  const files = pairFiles(resolve(dir), CA);
  const encrypted = await isKeyEncrypted(resolve(dir));
  if (encrypted === undefined)
    throw new OperatorError(`${files.key} is missing, so that nothing can be signed for clients`, {
      fix: 'run this where the key is, or put it back',
    });
  const exposed = await exposedKey(files.key);
  if (exposed) throw exposed;
  const secret = encrypted ? await passphrase?.() : undefined;
  if (encrypted && secret === undefined)
    throw new OperatorError(`${files.key} is encrypted, and there is no passphrase for it`, {
      fix: 'give --passphrase-file FILE, or set REGISTRY_SECURE_CA_PASSPHRASE_FILE to the path of a file that holds it',
    });
  const { chain, key } = await readKeyPair(files, secret);
  return { certificate: chain[0], key };
}

/** The next list: what the index says, and what the last one said beyond that, until it is of no use any more. */
function nextList({ entries, list }: Folder, authority: Authority, now: Date, days = DEFAULT_LIST_DAYS): string {
  const revocations = new Map<string, Revocation>(list?.revoked);
  for (const { serial, revoked, notAfter } of entries) {
    // Section 3.3: an entry stays until a list was issued after the certificate's end.
    if (now.getTime() > Date.parse(notAfter) + 2 * DEFAULT_LIST_DAYS * DAY) revocations.delete(serial);
    else if (revoked) revocations.set(serial, { serial, at: new Date(revoked.at), reason: revoked.reason });
  }
  const seconds = Math.floor(now.getTime() / 1000) * 1000;
  return signRevocationList({
    authority,
    // It must grow even where the list before was lost, or an older one was put in its place.
    number: greater(list?.number ?? 0n, BigInt(seconds / 1000)) + 1n,
    thisUpdate: new Date(seconds - HOUR),
    nextUpdate: new Date(seconds + days * DAY),
    revocations: [...revocations.values()],
  });
}

const greater = (one: bigint, other: bigint): bigint => (one > other ? one : other);

function entryOf(name: string, certificate: X509Certificate, key: KeyObject): ClientEntry {
  return {
    name,
    serial: serialOf(certificate),
    fingerprint: certificate.fingerprint256,
    keyKind: describeKey(key),
    notBefore: notBefore(certificate).toISOString(),
    notAfter: notAfter(certificate).toISOString(),
  };
}

function stateOf({ revoked, notAfter }: ClientEntry, now: Date): ClientStatus['state'] {
  return revoked ? 'revoked' : Date.parse(notAfter) < now.getTime() ? 'expired' : 'valid';
}

/** A common name has at most 64 characters (RFC 5280, ub-common-name); the rest is for files, on any system. */
function checkFileName(name: string): void {
  const rules: ReadonlyArray<readonly [boolean, string]> = [
    [[...name].length > 64, 'is longer than 64 characters'],
    [/[/\\:*?"<>|\x00-\x1f]/.test(name), 'holds a character that a file name cannot have'],
    [name.startsWith('.') || name.endsWith('.'), 'begins or ends with a dot'],
    [name.startsWith('-'), 'begins with a dash, as options do'],
    [sameName(name, CA), 'is that of the authority itself'],
    [/^[0-9a-f]{16,}$/i.test(name), 'looks like a serial number'],
    [/^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(name), 'is one that Windows keeps for a device'],
  ];
  const broken = rules.find(([applies]) => applies);
  if (broken) throw new OperatorError(`the name of a client certificate ${broken[1]}`, { fix: 'choose another name' });
}

/** As file systems that ignore case see them. */
function sameName(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase();
}

function noAuthority(dir: string): OperatorError {
  return new OperatorError(`there are no client certificates in ${resolve(dir)}`, {
    fix: 'make the first: registry-secure certs client add NAME',
  });
}

const quote = (name: string): string => JSON.stringify(name);
