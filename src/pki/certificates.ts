import type { X509Certificate } from 'node:crypto';
import { dirname, join, resolve } from 'node:path';
import { OperatorError } from '../errors.js';
import { type Authority, checkDays, checkNames, constraintsFor, nameFlags, permits } from './authority.js';
import {
  type CertificateFolder,
  changingOrMaking,
  exists,
  isIssuedBy,
  isOurs,
  isWritable,
  type Passphrase,
  readFolder,
  signingAuthority,
} from './folder.js';
import { certificateWarnings, exposedKey, parseCertificates, readKeyPair, readPem } from './inspect.js';
import { issueServer, newAuthority, permitsDuring } from './issue.js';
import { encodeKey } from './key-file.js';
import { describeKey, type KeyKind } from './keys.js';
import { covers, unique } from './names.js';
import { applyChanges, hasPending, keepCopies, pairChanges, pairFiles } from './pair-files.js';
import { daysOf, doUpkeep } from './renewal.js';
import { certificateFields, type NameConstraints, notAfter } from './x509.js';

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
  /** Opens an encrypted `ca.key`. */
  readonly passphrase?: Passphrase | undefined;
  /** Encrypts the key of an authority that is made now. */
  readonly encryptWith?: Passphrase | undefined;
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
  /** While a new authority takes the place of an older one: until when both count, and which names wait for the end. */
  readonly rotation: { readonly until: Date; readonly waiting: readonly string[] } | undefined;
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
 * not of our authority, such as a self-signed one alone in the folder, is left as it is. What is due by time is done where
 * it can be: a renewal, the end of a rotation. Safe to call from several processes at once, and after a crash.
 * @throws OperatorError when the folder or its files are not usable, or a name cannot be certified.
 */
export async function ensureCertificates(options: CertificateOptions): Promise<Certificates> {
  const wish = { ...options, dir: resolve(options.dir) };
  if (wish.days !== undefined) checkDays(wish.days);
  const upkeep = await upkeepFirst(wish);
  const ensured = await ensureNames(wish);
  if (upkeep.done && ensured.server.action === 'reused')
    return { ...ensured, server: { ...ensured.server, action: 'reissued' } };
  return { ...ensured, warnings: [...upkeep.warnings, ...ensured.warnings] };
}

/** What is due and cannot be done is no reason not to serve what is there. */
async function upkeepFirst(wish: CertificateOptions): Promise<{ done: boolean; warnings: string[] }> {
  try {
    const { dir, passphrase, now, force, reissue } = wish;
    const work = force || reissue ? (['finish'] as const) : (['renew', 'finish'] as const);
    return { done: (await doUpkeep({ dir, passphrase, now }, work)) !== undefined, warnings: [] };
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return { done: false, warnings: [`the server certificate was not renewed: ${error.message}; ${error.fix}`] };
  }
}

async function ensureNames(wish: CertificateOptions): Promise<Certificates> {
  try {
    return await ensure(wish);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    const { machineNames = [], force, reissue } = wish;
    if (force || reissue || machineNames.length === 0) throw error;
    // A name that only the machine gave is no reason to refuse what is there, where no certificate can be issued.
    const without = await ensure({ ...wish, machineNames: [] }).catch(() => {
      throw error;
    });
    const lacking = machineNames.filter(name => !covers(without.server.names, name));
    const warning = `${without.server.certificate} does not cover ${lacking.join(', ')}: ${error.message}`;
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
  return changingOrMaking(wish.dir, async () => {
    const { folder, plan } = await look(wish);
    if (plan.server === 'reuse') return report(wish, folder, plan);
    const authority = folder.authority ? await signingAuthority(folder, wish.passphrase) : await makeAuthority(wish);
    return issue(wish, folder, plan, authority);
  });
}

async function look(wish: CertificateOptions): Promise<{ folder: CertificateFolder; plan: Plan }> {
  const folder = await readFolder(wish.dir);
  return { folder, plan: planFor(folder, wish) };
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

function planFor(folder: CertificateFolder, wish: CertificateOptions): Plan {
  const { authority, server, serverProblem } = folder;
  if (serverProblem && !wish.force) throw serverProblem;
  const constraints = authority && certificateFields(authority).nameConstraints;
  const machine = wish.machineNames ?? [];
  const outside = machine.filter(
    name => (constraints && !permits(constraints, name)) || !permitsDuring(folder.rotation, name),
  );
  const waiting = folder.rotation?.waiting ?? [];
  const given = wish.names.filter(name => !waiting.includes(name));
  const asked = unique([...given, ...machine.filter(name => !outside.includes(name) && !waiting.includes(name))]);
  const has = server ? certificateFields(server.chain[0]).names : [];
  const missing = asked.filter(name => !covers(has, name));
  const issue = (names: readonly string[]): Plan => {
    checkNames(names);
    return { server: 'issue', names, missing: [], outside };
  };
  if (wish.force && given.length > 0) return issue(asked);
  const keep = server && (!isOurs(folder) || (missing.length === 0 && !wish.reissue));
  if (keep && !wish.force)
    return { server: 'reuse', names: has, missing: missing.filter(name => wish.names.includes(name)), outside };
  // Names that the operator gives come first: the first one is what clients are told to use.
  return issue(unique([...given, ...has, ...asked]));
}

async function makeAuthority(wish: CertificateOptions): Promise<Authority> {
  const names = [...wish.names, ...(wish.machineNames ?? [])];
  const authority = await newAuthority({
    keyKind: wish.keyKind ?? 'ec-p256',
    days: wish.caDays,
    constraints: wish.nameConstraints === false ? undefined : constraintsFor(names),
    now: wish.now,
  });
  const key = await encodeKey(authority.key, await wish.encryptWith?.());
  await applyChanges(wish.dir, pairChanges('ca', { certificate: authority.certificate.toString(), key }));
  return authority;
}

async function issue(
  wish: CertificateOptions,
  folder: CertificateFolder,
  plan: Plan,
  authority: Authority,
): Promise<Certificates> {
  const pair = await issueServer(folder, authority, plan.names, wish);
  const { certificate, key } = pairFiles(wish.dir, 'domain');
  const copies = wish.force ? await keepCopies([certificate, key], wish.now ?? new Date()) : [];
  await applyChanges(wish.dir, pairChanges('domain', pair));
  const server = await readKeyPair(pairFiles(wish.dir, 'domain'));
  return report(wish, { ...folder, authority: authority.certificate, server }, plan, {
    authority: folder.authority ? 'reused' : 'created',
    server: folder.server || folder.serverProblem ? 'reissued' : 'created',
    copies,
  });
}

interface Done {
  readonly authority: AuthorityState['action'];
  readonly server: ServerState['action'];
  readonly copies: readonly string[];
}

const NOTHING_DONE: Done = { authority: 'reused', server: 'reused', copies: [] };

async function report(
  wish: CertificateOptions,
  folder: CertificateFolder,
  plan: Plan,
  done = NOTHING_DONE,
): Promise<Certificates> {
  const [ca, domain] = [pairFiles(wish.dir, 'ca'), pairFiles(wish.dir, 'domain')];
  const { authority, rotation } = folder;
  const server = folder.server!;
  const [leaf] = server.chain;
  const anchor = anchorOf(server.chain, domain.certificate, authority);
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
    rotation: rotation && { until: rotation.until, waiting: rotation.waiting },
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

/** What clients of this server install: the authority beside it that its chain leads to, or its own certificate. */
function anchorOf(
  chain: readonly [X509Certificate, ...X509Certificate[]],
  path: string,
  authority: X509Certificate | undefined,
): Certificates['anchor'] {
  const [leaf] = chain;
  const of = (path: string, { fingerprint256, validTo }: X509Certificate) => ({
    path,
    fingerprint: fingerprint256,
    notAfter: new Date(validTo),
  });
  if (authority && chain.some(one => isIssuedBy(one, authority))) return of(join(dirname(path), 'ca.crt'), authority);
  return isIssuedBy(leaf, leaf) ? of(path, leaf) : undefined;
}

/** What is handed to everybody holds a private key. */
export class PublishedKeyError extends OperatorError {}

/**
 * The names of a server certificate, and what its clients install to trust it: `ca.crt` in the same folder, or the file
 * itself when it is self-signed.
 * @throws OperatorError when it cannot be read, or a third party signed it.
 * @throws PublishedKeyError
 */
export async function readTrustAnchor(
  certificate: string,
): Promise<{ names: readonly string[]; path: string; fingerprint: string; pem: string }> {
  if (!(await exists(certificate)))
    throw new OperatorError(`${certificate} does not exist`, { fix: 'make it first: registry-secure init-certs' });
  const chain = parseCertificates(certificate, await readPem(certificate));
  const [leaf] = chain;
  const ca = join(dirname(certificate), 'ca.crt');
  const authority = (await exists(ca)) ? parseCertificates(ca, await readPem(ca))[0] : undefined;
  const anchor = anchorOf(chain, certificate, authority);
  if (anchor) {
    const pem = (await readPem(anchor.path)).toString('latin1');
    if (!pem.includes('PRIVATE KEY-----')) return { ...anchor, names: certificateFields(leaf).names, pem };
    throw new PublishedKeyError(`${anchor.path} holds a private key, and is what clients would be handed`, {
      fix: 'move the key to a file of its own, and leave only the certificate in this one',
    });
  }
  throw new OperatorError(
    `${certificate} was signed by ${leaf.issuer.replaceAll('\n', ', ')}, not by a ca.crt beside it`,
    {
      fix: 'nothing has to be installed for a public authority; for a private one, put its certificate there as ca.crt',
    },
  );
}

async function warnings(
  wish: CertificateOptions,
  folder: CertificateFolder,
  plan: Plan,
  done: Done,
): Promise<string[]> {
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
      `${plan.outside.join(', ')} left out: outside of the authority's name constraints; a new one may have them: registry-secure certs rotate-ca ${nameFlags(plan.outside)}`,
    );
  const waiting = wish.names.filter(name => folder.rotation?.waiting.includes(name));
  if (waiting.length > 0)
    found.push(
      `${waiting.join(', ')} will be in the certificate when the rotation ends, on ${folder.rotation!.until.toISOString()}; now: registry-secure certs rotate-ca --finish`,
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
