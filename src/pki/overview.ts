import type { X509Certificate } from 'node:crypto';
import { OperatorError } from '../errors.js';
import { checkChain, type Finding } from './check.js';
import { exists, isKeyEncrypted, isOurs, readFolder } from './folder.js';
import { exposedKey, parseCertificates, readKeyPair, readPem } from './inspect.js';
import { describeKey } from './keys.js';
import { authorityNotice, serverNotice } from './notices.js';
import { pairFiles } from './pair-files.js';
import { renewalTime } from './renewal.js';
import { certificateFields, type NameConstraints, notAfter, notBefore } from './x509.js';

/** What there is to know about certificates, for people who look at them. Nothing here writes. */

export interface CertificateSummary {
  readonly subject: string;
  readonly issuer: string;
  /** SHA-256, as `AB:CD:…`. */
  readonly fingerprint: string;
  readonly keyKind: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly names: readonly string[];
  /** Whether it may sign for others, over how many authorities at most, and for which names. */
  readonly authority: boolean;
  readonly pathLength: number | undefined;
  readonly nameConstraints: NameConstraints | undefined;
}

/** Something that is wrong, or will be. */
export type Problem = Pick<Finding, 'severity' | 'message' | 'fix'>;

export interface FolderOverview {
  readonly dir: string;
  readonly authority: CertificateSummary | undefined;
  /** `missing`: it lives elsewhere. */
  readonly authorityKey: 'clear' | 'encrypted' | 'missing';
  readonly rotation:
    | { readonly until: Date; readonly waiting: readonly string[]; readonly retiring: CertificateSummary | undefined }
    | undefined;
  readonly server: CertificateSummary | undefined;
  /** As it is served: the server's own certificate first. */
  readonly chain: readonly CertificateSummary[];
  /** When `serve` renews the server's certificate; undefined where it is not of the authority in the folder. */
  readonly renewal: Date | undefined;
  readonly problems: readonly Problem[];
}

function summarise(certificate: X509Certificate): CertificateSummary {
  const { names, nameConstraints, pathLength } = certificateFields(certificate);
  const line = (text: string | undefined) => (text ?? '').replaceAll('\n', ', ');
  return {
    subject: line(certificate.subject),
    issuer: line(certificate.issuer),
    fingerprint: certificate.fingerprint256,
    keyKind: describeKey(certificate.publicKey),
    notBefore: notBefore(certificate),
    notAfter: notAfter(certificate),
    names,
    authority: certificate.ca,
    pathLength,
    nameConstraints,
  };
}

/** @throws OperatorError for files that cannot be read at all. */
export async function inspectFolder(dir: string, now = new Date()): Promise<FolderOverview> {
  const folder = await readFolder(dir);
  const { authority, rotation, server } = folder;
  if (!authority && !server && !folder.serverProblem)
    throw new OperatorError(`there are no certificates in ${dir}`, { fix: 'make some: registry-secure init-certs' });
  const encrypted = await isKeyEncrypted(dir);
  const anchors = [...(authority ? [authority] : []), ...(rotation?.retiring ? [rotation.retiring] : [])];
  const ours = isOurs(folder);
  const found: Problem[] = [];
  if (folder.serverProblem) found.push(problem('error', folder.serverProblem));
  // In a rotation clients have one of the two, and each must do.
  const worlds = ours ? anchors.map(anchor => ({ now, anchors: [anchor] })) : [{ now }];
  if (server) for (const world of worlds) found.push(...checkChain(server.chain, world));
  found.push(...(await keyProblems(dir, encrypted)));
  for (const notice of [server && serverNotice(server.chain[0], now), authority && authorityNotice(authority, now)])
    if (notice && notice.level !== 'info') found.push({ severity: 'warning', ...notice });
  return {
    dir,
    authority: authority && summarise(authority),
    authorityKey: encrypted === undefined ? 'missing' : encrypted ? 'encrypted' : 'clear',
    rotation: rotation && {
      until: rotation.until,
      waiting: rotation.waiting,
      retiring: rotation.retiring && summarise(rotation.retiring),
    },
    server: server && summarise(server.chain[0]),
    chain: (server?.chain ?? []).map(summarise),
    renewal: ours ? renewalTime(server!.chain[0]) : undefined,
    problems: distinct(found),
  };
}

async function keyProblems(dir: string, encrypted: boolean | undefined): Promise<Problem[]> {
  const [ca, domain] = [pairFiles(dir, 'ca'), pairFiles(dir, 'domain')];
  const found: Problem[] = [];
  for (const path of [ca.key, domain.key]) {
    const exposed = (await exists(path)) ? await exposedKey(path) : undefined;
    if (exposed) found.push(problem('warning', exposed));
  }
  if (encrypted === false)
    await readKeyPair(ca).catch(error => {
      if (!(error instanceof OperatorError)) throw error;
      found.push(problem('error', error));
    });
  return found;
}

const problem = (severity: Problem['severity'], { message, fix = '' }: OperatorError): Problem => ({
  severity,
  message,
  fix,
});

function distinct(problems: readonly Problem[]): Problem[] {
  return problems.filter((one, at) => problems.findIndex(other => other.message === one.message) === at);
}

/** The certificates of a PEM file as a chain, with what is wrong with it. @throws OperatorError */
export async function inspectFile(
  path: string,
  now = new Date(),
): Promise<{
  readonly file: string;
  readonly chain: readonly CertificateSummary[];
  readonly problems: readonly Problem[];
}> {
  const chain = parseCertificates(path, await readPem(path));
  // The rules are those of servers: of authorities alone only the dates are judged.
  const problems = chain[0].ca ? chain.flatMap(one => authorityProblems(one, now)) : checkChain(chain, { now });
  return { file: path, chain: chain.map(summarise), problems };
}

function authorityProblems(authority: X509Certificate, now: Date): Problem[] {
  const notice = authorityNotice(authority, now);
  if (!notice || notice.level === 'info') return [];
  return [{ severity: notAfter(authority) < now ? 'error' : 'warning', message: notice.message, fix: notice.fix }];
}

/** The authorities that clients install: one, or during a rotation two. @throws OperatorError */
export async function readAuthorities(dir: string): Promise<X509Certificate[]> {
  const { certificate } = pairFiles(dir, 'ca');
  if (await exists(certificate)) return parseCertificates(certificate, await readPem(certificate));
  throw new OperatorError(`${certificate} does not exist`, { fix: 'make an authority: registry-secure init-certs' });
}
