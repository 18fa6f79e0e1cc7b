import { randomBytes, type X509Certificate } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { makeFolder } from '../folder.js';
import { withLock } from '../lock.js';
import {
  type Authority,
  authorityCertificate,
  checkDays,
  checkNames,
  constraintsFor,
  DEFAULT_CA_DAYS,
  DEFAULT_DAYS,
  permits,
  serverCertificate,
} from './authority.js';
import { certificateWarnings, exposedKey, type KeyPair, parseCertificates, readKeyPair, readPem } from './inspect.js';
import { describeKey, generateKey, KEY_KINDS, type KeyKind } from './keys.js';
import { covers, unique } from './names.js';
import { finishPending, hasPending, keepCopies, pairFiles, writePair } from './pair-files.js';
import { certificateFields, type NameConstraints, notAfter, notBefore } from './x509.js';

/** What the folder `certs/` shall hold. Names are canonical (`parseIp`, `parseDns`). */
export interface CertificateOptions {
  /** The folder; made when missing. */
  readonly dir: string;
  /** Names that the operator gave: a name that the authority may not sign for is an error. */
  readonly names: readonly string[];
  /** Names that the machine has by itself: one that the authority may not sign for is left out with a warning. */
  readonly machineNames?: readonly string[];
  /** For keys that are made now; by default the kind that the server has, else `ec-p256`. */
  readonly keyKind?: KeyKind | undefined;
  /** Life of a server certificate that is issued now, at most 825. */
  readonly days?: number | undefined;
  /** Life of an authority that is made now. */
  readonly caDays?: number | undefined;
  /** False: an authority that is made now may sign for any name. */
  readonly nameConstraints?: boolean | undefined;
  /** Issue the server certificate anew from the same authority, with the names that it has. */
  readonly reissue?: boolean;
  /** Issue it anew whatever is there, for the given names alone if there are any; what was there is kept as a copy. */
  readonly force?: boolean;
  readonly now?: Date;
}

/** What the folder holds now, and how it came there. Paths are absolute. */
export interface Certificates {
  readonly dir: string;
  readonly authority: AuthorityState | undefined;
  readonly server: ServerState;
  /** What clients install to trust the server; undefined when a third party signed its certificate. */
  readonly anchor: { readonly path: string; readonly fingerprint: string; readonly notAfter: Date } | undefined;
  /** Names asked for that the certificate has not, because the folder's certificate is not ours to replace. */
  readonly missing: readonly string[];
  readonly warnings: readonly string[];
}

interface AuthorityState {
  readonly certificate: string;
  readonly key: string;
  readonly action: 'created' | 'reused';
  readonly keyKind: string;
  readonly notAfter: Date;
  /** SHA-256, as `AB:CD:…`. */
  readonly fingerprint: string;
  readonly nameConstraints: NameConstraints | undefined;
}

interface ServerState {
  readonly certificate: string;
  readonly key: string;
  readonly action: 'created' | 'reused' | 'reissued';
  readonly keyKind: string;
  readonly names: readonly string[];
  readonly notAfter: Date;
  /** Where the replaced files went, with `force`. */
  readonly copies: readonly string[];
}

/**
 * Makes what is missing in the folder: an authority (`ca.crt`, `ca.key`), and a server certificate of it (`domain.crt`,
 * `domain.key`) for these names, issued anew when it lacks one of them. What is there is reused. A certificate that is
 * not of our authority, such as a self-signed one alone in the folder, is left as it is. Safe to call from several
 * processes at once, and after a crash.
 * @throws OperatorError when the folder or its files are not usable, or a name cannot be certified.
 */
export async function ensureCertificates(options: CertificateOptions): Promise<Certificates> {
  const wish = { ...options, dir: resolve(options.dir) };
  if (wish.days !== undefined) checkDays(wish.days);
  try {
    return await ensure(wish);
  } catch (error) {
    if (!(error instanceof OperatorError) && !systemCode(error)) throw error;
    const problem = error instanceof OperatorError ? error : unwritable(wish.dir, error);
    const { machineNames = [], force, reissue } = wish;
    if (force || reissue || machineNames.length === 0) throw problem;
    // A name that only the machine gave is no reason to refuse what is there, where no certificate can be issued.
    const without = await ensure({ ...wish, machineNames: [] }).catch(() => {
      throw problem;
    });
    const lacking = machineNames.filter(name => !covers(without.server.names, name));
    const warning = `${without.server.certificate} does not cover ${lacking.join(', ')}: ${problem.message}`;
    return { ...without, warnings: [...without.warnings, warning] };
  }
}

async function ensure(wish: CertificateOptions): Promise<Certificates> {
  try {
    // The usual case writes nothing, so that it works in a folder mounted read-only.
    const { folder, plan } = await look(wish);
    if (plan.server === 'reuse' && !(await hasPending(wish.dir))) return report(wish, folder, plan);
  } catch (error) {
    // Another process may be between two files just now: only what is wrong under the lock as well is wrong.
    if (!(await isWritable(wish.dir))) throw error;
  }
  await makeFolder(wish.dir);
  return withLock(join(wish.dir, '.lock'), async () => {
    for (const name of ['ca', 'domain']) await finishPending(wish.dir, name);
    const { folder, plan } = await look(wish);
    if (plan.server === 'reuse') return report(wish, folder, plan);
    const authority = folder.authority ? await signingAuthority(folder.authority, wish.dir) : await makeAuthority(wish);
    return issue(wish, folder, plan, authority);
  });
}

async function look(wish: CertificateOptions): Promise<{ folder: Folder; plan: Plan }> {
  const folder = await readFolder(wish.dir);
  return { folder, plan: planFor(folder, wish) };
}

/** What was found. A server pair that is broken counts as there: only force replaces it. */
interface Folder {
  readonly authority: X509Certificate | undefined;
  readonly server: KeyPair | undefined;
  readonly serverProblem: OperatorError | undefined;
}

async function readFolder(dir: string): Promise<Folder> {
  const [ca, domain] = [pairFiles(dir, 'ca'), pairFiles(dir, 'domain')];
  const [caCertificate, caKey, certificate, key] = await Promise.all(
    [ca.certificate, ca.key, domain.certificate, domain.key].map(exists),
  );
  if (caKey && !caCertificate)
    throw new OperatorError(`${ca.key} has no ca.crt beside it`, {
      fix: 'put its ca.crt back, or move ca.key away to start with a new authority',
    });
  const authority = caCertificate ? parseCertificates(ca.certificate, await readPem(ca.certificate))[0] : undefined;
  const force = 'put it back, or replace both with registry-secure init-certs --force (copies are kept)';
  if (!certificate && !key) return { authority, server: undefined, serverProblem: undefined };
  if (!certificate || !key) {
    const [there, missing] = certificate ? [domain.certificate, domain.key] : [domain.key, domain.certificate];
    const serverProblem = new OperatorError(`${there} is there without ${missing}`, { fix: force });
    return { authority, server: undefined, serverProblem };
  }
  try {
    return { authority, server: await readKeyPair(domain), serverProblem: undefined };
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return { authority, server: undefined, serverProblem: error };
  }
}

async function exists(path: string): Promise<boolean> {
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

interface Plan {
  readonly server: 'reuse' | 'issue';
  /** Of the certificate to be issued. */
  readonly names: readonly string[];
  /** Asked for, and not in a certificate that is reused. */
  readonly missing: readonly string[];
  /** Of the machine, and not allowed to the authority. */
  readonly outside: readonly string[];
}

function planFor(folder: Folder, wish: CertificateOptions): Plan {
  const { authority, server, serverProblem } = folder;
  if (serverProblem && !wish.force) throw serverProblem;
  const constraints = authority && certificateFields(authority).nameConstraints;
  const machine = wish.machineNames ?? [];
  const outside = machine.filter(name => constraints && !permits(constraints, name));
  const asked = unique([...wish.names, ...machine.filter(name => !outside.includes(name))]);
  const has = server ? certificateFields(server.chain[0]).names : [];
  const missing = asked.filter(name => !covers(has, name));
  const issue = (names: readonly string[]): Plan => {
    checkNames(names);
    return { server: 'issue', names, missing: [], outside };
  };
  const ours = server !== undefined && authority !== undefined && isIssuedBy(server.chain[0], authority);
  if (wish.force && wish.names.length > 0) return issue(asked);
  const keep = server && (!ours || (missing.length === 0 && !wish.reissue));
  if (keep && !wish.force)
    return { server: 'reuse', names: has, missing: missing.filter(name => wish.names.includes(name)), outside };
  // Names that the operator gives come first: the first one is what clients are told to use.
  return issue(unique([...wish.names, ...has, ...asked]));
}

function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

async function makeAuthority(wish: CertificateOptions): Promise<Authority> {
  const key = await generateKey(wish.keyKind ?? 'ec-p256');
  const names = [...wish.names, ...(wish.machineNames ?? [])];
  // The random part tells authorities apart that were made on one machine: clients look an issuer up by its name.
  const commonName = `registry-secure CA ${hostname().slice(0, 32)} ${randomBytes(4).toString('hex')}`;
  const certificate = authorityCertificate({
    key,
    commonName,
    days: wish.caDays ?? DEFAULT_CA_DAYS,
    constraints: wish.nameConstraints === false ? undefined : constraintsFor(names),
    ...(wish.now ? { now: wish.now } : {}),
  });
  await writePair(wish.dir, 'ca', { certificate, key: pkcs8(key) });
  return { certificate: parseCertificates('ca.crt', Buffer.from(certificate))[0], key };
}

/** The authority with its key. @throws OperatorError when the key is missing or another one's. */
async function signingAuthority(certificate: X509Certificate, dir: string): Promise<Authority> {
  const files = pairFiles(dir, 'ca');
  if (!(await exists(files.key)))
    throw new OperatorError(`${files.key} is missing, so that no server certificate can be issued`, {
      fix: 'run this where the key is, or put it back',
    });
  return { certificate, key: (await readKeyPair(files)).key };
}

async function issue(
  wish: CertificateOptions,
  folder: Folder,
  plan: Plan,
  authority: Authority,
): Promise<Certificates> {
  const now = wish.now ?? new Date();
  const before = folder.server && describeKey(folder.server.key);
  const kind = wish.keyKind ?? KEY_KINDS.find(known => known === before) ?? 'ec-p256';
  const key = await generateKey(kind);
  const certificate = serverCertificate({ authority, key, names: plan.names, days: wish.days ?? DEFAULT_DAYS, now });
  const copies = wish.force ? await keepCopies(pairFiles(wish.dir, 'domain'), now) : [];
  await writePair(wish.dir, 'domain', { certificate, key: pkcs8(key) });
  const server = await readKeyPair(pairFiles(wish.dir, 'domain'));
  return report(wish, { ...folder, authority: authority.certificate, server }, plan, {
    authority: folder.authority ? 'reused' : 'created',
    server: folder.server || folder.serverProblem ? 'reissued' : 'created',
    copies,
  });
}

const pkcs8 = (key: Authority['key']): string => key.export({ type: 'pkcs8', format: 'pem' }) as string;

interface Done {
  readonly authority: AuthorityState['action'];
  readonly server: ServerState['action'];
  readonly copies: readonly string[];
}

const NOTHING_DONE: Done = { authority: 'reused', server: 'reused', copies: [] };

async function report(
  wish: CertificateOptions,
  folder: Folder,
  plan: Plan,
  done = NOTHING_DONE,
): Promise<Certificates> {
  const [ca, domain] = [pairFiles(wish.dir, 'ca'), pairFiles(wish.dir, 'domain')];
  const { authority } = folder;
  const server = folder.server!;
  const [leaf] = server.chain;
  const anchor = anchorOf(leaf, domain.certificate, authority);
  return {
    dir: wish.dir,
    authority: authority && {
      ...ca,
      action: done.authority,
      keyKind: describeKey(authority.publicKey),
      notAfter: notAfter(authority),
      fingerprint: authority.fingerprint256,
      nameConstraints: certificateFields(authority).nameConstraints,
    },
    server: {
      ...domain,
      action: done.server,
      keyKind: describeKey(server.key),
      names: certificateFields(leaf).names,
      notAfter: notAfter(leaf),
      copies: done.copies,
    },
    anchor,
    missing: plan.missing,
    warnings: [
      ...(await warnings(wish, folder, plan, done)),
      ...(!authority || anchor?.path === ca.certificate
        ? []
        : [`${domain.certificate} was not signed by ${ca.certificate}: clients that trust that one refuse it`]),
    ],
  };
}

/** What clients of this server certificate install: the authority beside it that signed it, or itself. */
function anchorOf(leaf: X509Certificate, path: string, authority: X509Certificate | undefined): Certificates['anchor'] {
  const of = (path: string, { fingerprint256, validTo }: X509Certificate) => ({
    path,
    fingerprint: fingerprint256,
    notAfter: new Date(validTo),
  });
  if (authority && isIssuedBy(leaf, authority)) return of(join(dirname(path), 'ca.crt'), authority);
  return isIssuedBy(leaf, leaf) ? of(path, leaf) : undefined;
}

/**
 * The names of a server certificate, and what its clients install to trust it: `ca.crt` in the same folder, or the file
 * itself when it is self-signed. @throws OperatorError when it cannot be read, or a third party signed it.
 */
export async function readTrustAnchor(
  certificate: string,
): Promise<{ names: readonly string[]; path: string; fingerprint: string }> {
  if (!(await exists(certificate)))
    throw new OperatorError(`${certificate} does not exist`, { fix: 'make it first: registry-secure init-certs' });
  const [leaf] = parseCertificates(certificate, await readPem(certificate));
  const ca = join(dirname(certificate), 'ca.crt');
  const authority = (await exists(ca)) ? parseCertificates(ca, await readPem(ca))[0] : undefined;
  const anchor = anchorOf(leaf, certificate, authority);
  if (anchor) return { ...anchor, names: certificateFields(leaf).names };
  throw new OperatorError(
    `${certificate} was signed by ${leaf.issuer.replaceAll('\n', ', ')}, not by a ca.crt beside it`,
    {
      fix: 'nothing has to be installed for a public authority; for a private one, put its certificate there as ca.crt',
    },
  );
}

async function warnings(wish: CertificateOptions, folder: Folder, plan: Plan, done: Done): Promise<string[]> {
  const [ca, domain] = [pairFiles(wish.dir, 'ca'), pairFiles(wish.dir, 'domain')];
  const found: string[] = [];
  for (const key of [ca.key, domain.key]) {
    const exposed = (await exists(key)) ? await exposedKey(key).catch(() => undefined) : undefined;
    if (exposed) found.push(`${exposed.message}; ${exposed.fix}`);
  }
  found.push(...certificateWarnings(domain.certificate, folder.server!.chain, wish.now));
  if (folder.authority && notAfter(folder.authority) < notAfter(folder.server!.chain[0]))
    found.push(
      `${ca.certificate} expires before the server certificate, on ${notAfter(folder.authority).toISOString()}`,
    );
  if (plan.outside.length > 0)
    found.push(
      `${plan.outside.join(', ')} left out: outside of the authority's name constraints, which only a new authority can have otherwise`,
    );
  if (plan.missing.length > 0)
    found.push(
      `${domain.certificate} does not cover ${plan.missing.join(', ')} and was not made by our authority, so it is served as it is; to replace it: registry-secure init-certs --force (copies are kept)`,
    );
  const [leaf] = folder.server!.chain;
  const kind = describeKey(folder.server!.key);
  if (done.server === 'reused' && wish.days !== undefined && wish.days !== daysOf(leaf))
    found.push(
      `${domain.certificate} stays valid for ${daysOf(leaf)} days; to issue it anew for ${wish.days}: add --force`,
    );
  if (done.server === 'reused' && wish.keyKind && kind !== wish.keyKind)
    found.push(`${domain.key} stays ${kind}; to replace it by ${wish.keyKind}: add --force`);
  if (done.authority === 'reused' && wish.nameConstraints === false && folder.authority)
    if (certificateFields(folder.authority).nameConstraints)
      found.push(`${ca.certificate} keeps its name constraints: they can only be left out when an authority is made`);
  return found;
}

function daysOf(certificate: X509Certificate): number {
  return Math.round((notAfter(certificate).getTime() - notBefore(certificate).getTime()) / 86_400_000);
}

async function isWritable(dir: string): Promise<boolean> {
  return access(dir, constants.W_OK).then(
    () => true,
    () => false,
  );
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
