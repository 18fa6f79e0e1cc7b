import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { rootCertificates } from 'node:tls';
import { permits } from './authority.js';
import { checkLeaf, checkNames, checkStrength, looksLikeName } from './check-leaf.js';
import { ANY_USAGE, certificateDetails, KEY_USAGE_BITS, SERVER_AUTH } from './details.js';
import {
  describe,
  error,
  type Finding,
  isSame,
  isSelfSigned,
  type Link,
  REISSUE,
  signedBy,
  warning,
} from './finding.js';
import { certificateFields, notAfter, notBefore } from './x509.js';

/**
 * Every mistake in a server's certificate and its chain that makes some client refuse it (RFC 5280, the CA/Browser
 * Forum's baseline requirements, and what Go, OpenSSL and Apple's systems demand beyond them). Pure: no clock, no files.
 */

/** Of several paths to an authority the best one counts; nobody sends more than a handful of certificates. */
const MOST_PATHS = 64;

export type { Finding, Mistake } from './finding.js';

export interface ChainOptions {
  /** Canonical names that the certificate has to be good for. */
  readonly names?: readonly string[];
  readonly now: Date;
  /** The authorities that a client trusts. Without them it is not asked where the chain ends. */
  readonly anchors?: readonly X509Certificate[];
}

/** What is wrong with a chain as a server sends it, its own certificate first. Errors come before warnings. */
export function checkChain(chain: readonly X509Certificate[], options: ChainOptions): Finding[] {
  const [leaf, ...sent] = chain.map(describe);
  if (leaf === undefined) return [];
  const anchors = (options.anchors ?? []).map(describe);
  const found = [
    ...checkOrder(leaf, sent),
    ...checkLeaf(leaf, options.now),
    ...checkNames(leaf, options.names ?? []),
    ...checkBestPath(leaf, sent, options.anchors && anchors, options.now),
  ];
  return found.sort((one, other) => rank(one) - rank(other));
}

const rank = ({ severity }: Finding): number => (severity === 'error' ? 0 : 1);

/** RFC 5246 section 7.4.2: each certificate certifies the one before it, and the root may be left out. */
function checkOrder(leaf: Link, sent: readonly Link[]): Finding[] {
  const found: Finding[] = [];
  const below = sent.find(link => !isSame(link, leaf) && signedBy(link, leaf));
  if (below && !isSelfSigned(below))
    return [
      error(
        'not-first',
        `the first certificate is that of the authority (${leaf.title}), not the server's own`,
        "put the server's certificate first, then the one that signed it",
      ),
    ];
  const related = relatedTo(leaf, sent);
  for (const link of sent.filter(link => !related.includes(link)))
    found.push(
      warning('unrelated', `the chain holds ${link.title}, which has no part in it`, 'take it out of the file'),
    );
  const ordered = related.every((link, at) => signedBy(at === 0 ? leaf : related[at - 1]!, link) || isSelfSigned(link));
  if (!ordered)
    found.push(
      warning(
        'unordered',
        'the chain is in the wrong order: strict clients refuse it',
        "put the server's certificate first, then each one's issuer after it",
      ),
    );
  for (const link of related.filter(isSelfSigned))
    found.push(
      warning(
        'root-sent',
        `the chain holds the root ${link.title}: clients have it, or do not believe it`,
        'take it out of the file: it only makes each handshake longer',
      ),
    );
  return found;
}

/** Those that certify the leaf, directly or by others, in the order of the chain. */
function relatedTo(leaf: Link, sent: readonly Link[]): Link[] {
  const reached = new Set<Link>([leaf]);
  for (const one of reached) for (const link of sent) if (link !== one && signedBy(one, link)) reached.add(link);
  return sent.filter(link => reached.has(link));
}

/** Clients try every way from the leaf to an authority that they trust, and one that is right is enough. */
function checkBestPath(leaf: Link, sent: readonly Link[], anchors: readonly Link[] | undefined, now: Date): Finding[] {
  const paths = pathsFrom([leaf], [...sent, ...(anchors ?? [])], anchors ?? []);
  const judged = paths.map(path => [...checkEnd(path, anchors), ...checkPath(path, now)]);
  const weight = (found: readonly Finding[]) =>
    found.reduce((sum, one) => sum + (one.severity === 'error' ? 100 : 1), 0);
  return judged.reduce((best, found) => (weight(found) < weight(best) ? found : best));
}

/** Every way on from the end of this one, each until a trusted certificate, or one whose issuer is not at hand. */
function pathsFrom(path: readonly Link[], known: readonly Link[], anchors: readonly Link[]): Link[][] {
  const end = path.at(-1)!;
  const issuers = anchors.some(anchor => isSame(anchor, end))
    ? []
    : known.filter(
        (link, at) =>
          known.findIndex(other => isSame(other, link)) === at &&
          !path.some(one => isSame(one, link)) &&
          signedBy(end, link),
      );
  return issuers.length === 0
    ? [[...path]]
    : issuers.flatMap(issuer => pathsFrom([...path, issuer], known, anchors)).slice(0, MOST_PATHS);
}

function checkEnd(path: readonly Link[], anchors: readonly Link[] | undefined): Finding[] {
  const end = path.at(-1)!;
  const issuer = end.certificate.issuer?.replaceAll('\n', ', ');
  if (anchors === undefined) {
    if (isSelfSigned(end) || !end.tellsIssuer || publicRoots().has(end.issuer.toString('hex'))) return [];
    return [
      warning(
        'intermediate-missing',
        `the chain ends with ${end.title}; ${issuer}, which signed it, is not sent`,
        'add the intermediate certificates of the authority to the file (its "full chain")',
      ),
    ];
  }
  if (anchors.some(anchor => isSame(anchor, end))) return [];
  if (anchors.some(anchor => anchor.subject.equals(end.issuer)))
    return [
      error(
        'renewed-authority',
        `${end.title} is signed by an authority with the name of the trusted one, ${issuer}, and another key`,
        'install the present ca.crt on the client',
      ),
    ];
  if (end.tellsIssuer)
    return [
      error(
        'intermediate-missing',
        `the chain ends with ${end.title}; ${issuer}, which signed it, is neither sent nor trusted`,
        'add the intermediate certificates of the authority to the file (its "full chain")',
      ),
    ];
  return [
    error(
      'unknown-authority',
      isSelfSigned(end)
        ? `${end.title} is signed by itself, and not trusted`
        : `${end.title} is signed by ${issuer}, which is neither sent nor trusted`,
      'install the ca.crt of the authority that signed it on the client',
    ),
  ];
}

let roots: Set<string> | undefined;
/** The subjects of the authorities that all systems trust. */
function publicRoots(): Set<string> {
  roots ??= new Set(rootCertificates.map(pem => certificateDetails(new X509Certificate(pem)).subject.toString('hex')));
  return roots;
}

/** The issuers in a path, each as what is below it demands (RFC 5280 section 6.1). */
function checkPath(path: readonly Link[], now: Date): Finding[] {
  return path.slice(1).flatMap((link, at) => [...checkIssuer(link, now), ...checkReach(link, path.slice(0, at + 1))]);
}

function checkIssuer(link: Link, now: Date): Finding[] {
  const found: Finding[] = [];
  const [start, end] = [notBefore(link.certificate), notAfter(link.certificate)];
  if (now > end)
    found.push(
      error(
        'issuer-expired',
        `the authority ${link.title} expired on ${end.toISOString()}; the clock says ${now.toISOString()}`,
        'replace the authority: registry-secure certs rotate-ca for our own',
      ),
    );
  if (now < start)
    found.push(
      error(
        'issuer-not-yet-valid',
        `the authority ${link.title} is not valid before ${start.toISOString()}; the clock says ${now.toISOString()}`,
        'correct the clock',
      ),
    );
  if (!link.isAuthority)
    found.push(
      error(
        'issuer-not-ca',
        `${link.title} signed it without being an authority (CA:TRUE is missing)`,
        'have the authority made with basicConstraints CA:TRUE',
      ),
    );
  else if (!(link.keyUsage?.has(KEY_USAGE_BITS.keyCertSign) ?? true))
    found.push(
      error(
        'issuer-may-not-sign',
        `the authority ${link.title} may not sign certificates (its key usage lacks keyCertSign)`,
        'have the authority made with keyUsage keyCertSign, cRLSign',
      ),
    );
  const { extendedKeyUsage: usages } = link;
  if (usages && !usages.includes(SERVER_AUTH) && !usages.includes(ANY_USAGE))
    found.push(
      error(
        'issuer-no-server-auth',
        `the authority ${link.title} may not sign for servers (an extended key usage without serverAuth)`,
        'have the authority made without extended key usage',
      ),
    );
  if (link.isAuthority && !link.hasSubjectKeyIdentifier)
    found.push(
      warning(
        'no-key-identifier',
        `the authority ${link.title} has no subject key identifier, which strict clients ask for`,
        'have the authority made with subjectKeyIdentifier',
      ),
    );
  return [...found, ...checkStrength(link)];
}

/** How far an authority's word goes: over so many authorities below it, and only over some names. */
function checkReach(link: Link, below: readonly Link[]): Finding[] {
  const found: Finding[] = [];
  const between = below.slice(1).filter(one => !isSelfSigned(one)).length;
  if (link.pathLength !== undefined && between > link.pathLength)
    found.push(
      error(
        'path-too-long',
        `the authority ${link.title} allows ${link.pathLength} authorities below it, and there are ${between}`,
        'sign with an authority whose pathlen is larger',
      ),
    );
  const { nameConstraints } = certificateFields(link.certificate);
  const [leaf] = below;
  if (!nameConstraints || !leaf) return found;
  const names = [
    ...leaf.addresses.filter(address => address !== undefined),
    ...leaf.dnsNames.filter(name => isIP(name) === 0),
  ];
  const outside = names.filter(name => !permits(nameConstraints, name));
  const fix =
    'take the name out, or make an authority that may sign for it: registry-secure certs rotate-ca for our own';
  if (outside.length > 0)
    found.push(
      error(
        'outside-constraints',
        `the authority ${link.title} may not sign for ${outside.join(', ')} (name constraints)`,
        fix,
      ),
    );
  const { commonName } = leaf;
  // OpenSSL holds a common name against them where no DNS name stands in its place.
  if (
    commonName &&
    leaf.dnsNames.length === 0 &&
    isIP(commonName) === 0 &&
    looksLikeName(commonName) &&
    !permits(nameConstraints, commonName.toLowerCase())
  )
    found.push(
      warning(
        'outside-constraints',
        `its common name ${commonName} is outside of the name constraints of ${link.title}: OpenSSL refuses it`,
        `${REISSUE} with a common name that has a space in it`,
      ),
    );
  return found;
}
