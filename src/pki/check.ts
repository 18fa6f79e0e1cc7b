import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { rootCertificates } from 'node:tls';
import { OperatorError } from '../errors.js';
import { permits } from './authority.js';
import { ANY_USAGE, type CertificateDetails, certificateDetails, KEY_USAGE_BITS, SERVER_AUTH } from './details.js';
import { parseDns } from './names.js';
import { certificateFields, notAfter, notBefore } from './x509.js';

/**
 * Every mistake in a server's certificate and its chain that makes some client refuse it (RFC 5280, the CA/Browser
 * Forum's baseline requirements, and what Go, OpenSSL and Apple's systems demand beyond them). Pure: no clock, no files.
 */

const DAY = 24 * 3_600_000;
/** Of Apple's systems, for private authorities too. */
const MOST_DAYS = 825;
/** Below it OpenSSL at Debian's security level, Go and Apple's systems refuse an RSA key. */
const LEAST_RSA_BITS = 2048;
const MOST_SERIAL_BYTES = 20;
/** Of several paths to an authority the best one counts; nobody sends more than a handful of certificates. */
const MOST_PATHS = 64;

export type Mistake =
  | 'expired'
  | 'not-yet-valid'
  | 'issuer-expired'
  | 'issuer-not-yet-valid'
  | 'no-names'
  | 'no-ip-names'
  | 'name-missing'
  | 'ip-as-dns'
  | 'odd-name'
  | 'wildcard-too-wide'
  | 'odd-common-name'
  | 'no-server-auth'
  | 'no-signing-usage'
  | 'issuer-not-ca'
  | 'issuer-may-not-sign'
  | 'issuer-no-server-auth'
  | 'path-too-long'
  | 'outside-constraints'
  | 'not-first'
  | 'unordered'
  | 'unrelated'
  | 'root-sent'
  | 'intermediate-missing'
  | 'unknown-authority'
  | 'renewed-authority'
  | 'self-signed'
  | 'leaf-is-ca'
  | 'version-1'
  | 'too-many-days'
  | 'weak-key'
  | 'weak-signature'
  | 'negative-serial'
  | 'odd-serial'
  | 'no-key-identifier';

export interface Finding {
  readonly code: Mistake;
  /** `error`: docker and the other clients written in Go refuse the certificate. `warning`: some other client does, or will. */
  readonly severity: 'error' | 'warning';
  readonly message: string;
  readonly fix: string;
}

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

/** A certificate with what it says. */
interface Link extends CertificateDetails {
  readonly certificate: X509Certificate;
  /** For messages. */
  readonly title: string;
}

function describe(certificate: X509Certificate): Link {
  const details = certificateDetails(certificate);
  return {
    ...details,
    certificate,
    title: details.commonName ?? (certificate.subject?.replaceAll('\n', ', ') || 'a certificate without a name'),
  };
}

const error = (code: Mistake, message: string, fix: string): Finding => ({
  code,
  severity: 'error',
  message,
  fix,
});
const warning = (code: Mistake, message: string, fix: string): Finding => ({
  code,
  severity: 'warning',
  message,
  fix,
});

const REISSUE = 'have it issued anew';

function signedBy(one: Link, issuer: Link): boolean {
  return one.issuer.equals(issuer.subject) && one.certificate.verify(issuer.certificate.publicKey);
}

const isSelfSigned = (link: Link): boolean => signedBy(link, link);
const isSame = (one: Link, other: Link): boolean => one.certificate.raw.equals(other.certificate.raw);

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

function checkLeaf(leaf: Link, now: Date): Finding[] {
  const found: Finding[] = [];
  const { certificate } = leaf;
  const [start, end] = [notBefore(certificate), notAfter(certificate)];
  if (now > end)
    found.push(
      error(
        'expired',
        `it expired on ${end.toISOString()}; the clock says ${now.toISOString()}`,
        'renew it, or correct the clock',
      ),
    );
  if (now < start)
    found.push(
      error(
        'not-yet-valid',
        `it is not valid before ${start.toISOString()}; the clock says ${now.toISOString()}`,
        'correct the clock, or replace the certificate',
      ),
    );
  if (leaf.version < 3)
    found.push(
      error(
        'version-1',
        'it is of version 1, which has no subject alternative name',
        'have it issued as version 3, with a subject alternative name',
      ),
    );
  const days = Math.ceil((end.getTime() - start.getTime()) / DAY);
  if (days > MOST_DAYS)
    found.push(
      warning(
        'too-many-days',
        `it is valid for ${days} days, and Apple's systems refuse more than ${MOST_DAYS}`,
        `${REISSUE} for at most ${MOST_DAYS} days`,
      ),
    );
  // One that signs itself has to be an authority: some stores take no other.
  if (leaf.isAuthority && !isSelfSigned(leaf))
    found.push(
      warning(
        'leaf-is-ca',
        'it is the certificate of an authority (CA:TRUE), which some clients refuse from a server',
        `${REISSUE} with basicConstraints CA:FALSE`,
      ),
    );
  if (isSelfSigned(leaf))
    found.push(
      warning(
        'self-signed',
        'it is signed by itself: every client has to install it, and again each time it is renewed',
        'let an authority of your own sign it: registry-secure init-certs',
      ),
    );
  found.push(...checkUsage(leaf), ...checkSerial(leaf), ...checkStrength(leaf));
  if (leaf.version >= 3 && !isSelfSigned(leaf) && !leaf.hasAuthorityKeyIdentifier)
    found.push(
      warning(
        'no-key-identifier',
        'it has no authority key identifier, which strict clients (recent Python, OpenSSL -x509_strict) ask for',
        `${REISSUE} with authorityKeyIdentifier`,
      ),
    );
  return found;
}

function checkUsage({ keyUsage, extendedKeyUsage, version, certificate }: Link): Finding[] {
  const found: Finding[] = [];
  if (extendedKeyUsage && !extendedKeyUsage.includes(SERVER_AUTH) && !extendedKeyUsage.includes(ANY_USAGE))
    found.push(
      error(
        'no-server-auth',
        'its extended key usage does not let it serve (serverAuth is missing)',
        `${REISSUE} with extendedKeyUsage serverAuth`,
      ),
    );
  if (version >= 3 && !extendedKeyUsage)
    found.push(
      warning(
        'no-server-auth',
        "it has no extended key usage, which Apple's systems ask for",
        `${REISSUE} with extendedKeyUsage serverAuth`,
      ),
    );
  const signs = keyUsage?.has(KEY_USAGE_BITS.digitalSignature) ?? true;
  if (!signs)
    found.push(
      warning(
        'no-signing-usage',
        'its key usage lacks digitalSignature, without which no client should take its handshake',
        `${REISSUE} with keyUsage digitalSignature${certificate.publicKey.asymmetricKeyType === 'rsa' ? ', keyEncipherment' : ''}`,
      ),
    );
  return found;
}

/** RFC 5280 section 4.1.2.2. */
function checkSerial({ serial }: Link): Finding[] {
  if ((serial[0] ?? 0) & 0x80)
    return [error('negative-serial', 'its serial number is negative', `${REISSUE} with a positive serial number`)];
  if (serial.every(byte => byte === 0))
    return [warning('odd-serial', 'its serial number is zero', `${REISSUE} with a positive serial number`)];
  if (serial.length > MOST_SERIAL_BYTES)
    return [
      warning(
        'odd-serial',
        `its serial number has ${serial.length} octets, more than ${MOST_SERIAL_BYTES}`,
        `${REISSUE} with a shorter serial number`,
      ),
    ];
  return [];
}

function checkStrength(link: Link): Finding[] {
  const found: Finding[] = [];
  const bits = link.certificate.publicKey.asymmetricKeyDetails?.modulusLength;
  if (bits !== undefined && bits < LEAST_RSA_BITS)
    found.push(
      warning(
        'weak-key',
        `${link.title} has an RSA key of ${bits} bits: OpenSSL, Apple's systems and new versions of Go refuse it`,
        `${REISSUE} for a key of at least ${LEAST_RSA_BITS} bits, or for one on P-256`,
      ),
    );
  // The signature of a certificate that is trusted by itself is looked at by few.
  if (link.hash === 'md5' || link.hash === 'sha1')
    found.push(
      (isSelfSigned(link) ? warning : error)(
        'weak-signature',
        `${link.title} is signed with ${link.hash === 'md5' ? 'MD5' : 'SHA-1'}, which clients no longer believe`,
        `${REISSUE}, signed with SHA-256`,
      ),
    );
  return found;
}

/** RFC 6125, and how Go reads it: addresses are never looked for among DNS names, nor anything in the common name. */
function checkNames(leaf: Link, wanted: readonly string[]): Finding[] {
  const found: Finding[] = [];
  const { dnsNames, commonName } = leaf;
  const addresses = leaf.addresses.filter(address => address !== undefined);
  const has = [...addresses, ...dnsNames].join(', ');
  if (has === '' && leaf.version >= 3)
    found.push(
      error(
        'no-names',
        `it has no subject alternative name: clients no longer look at the common name${commonName ? ` (${commonName})` : ''}`,
        `${REISSUE} with a subject alternative name`,
      ),
    );
  for (const name of dnsNames.filter(name => !addresses.includes(name))) found.push(...oddities(name));
  if (leaf.addresses.includes(undefined))
    found.push(error('odd-name', 'one of its addresses has neither 4 nor 16 bytes', REISSUE));
  for (const name of wanted) {
    if (matches(leaf, name) || has === '') continue;
    if (isIP(name) !== 0 && dnsNames.includes(name)) continue;
    if (isIP(name) !== 0 && addresses.length === 0)
      found.push(
        error(
          'no-ip-names',
          `it holds no IP address at all, so it is not good for ${name}, but for ${has}`,
          `${REISSUE} with the address ${name} (IP:${name})`,
        ),
      );
    else
      found.push(
        error(
          'name-missing',
          `it is good for ${has}, not for ${name}`,
          `${REISSUE} with ${name} added: clients keep their authority`,
        ),
      );
  }
  if (commonName && has !== '' && looksLikeName(commonName) && !matches(leaf, commonName.toLowerCase()))
    found.push(
      warning(
        'odd-common-name',
        `its common name ${commonName} is no subject alternative name: clients do not look at it, and name constraints may refuse it`,
        `${REISSUE} with that name added, or with a common name that has a space in it`,
      ),
    );
  return found;
}

function oddities(name: string): Finding[] {
  if (name.includes('%'))
    return [
      warning(
        'odd-name',
        `its name ${name} has a zone id, which no other machine has`,
        `${REISSUE} without it, and with the address as one: IP:ADDRESS`,
      ),
    ];
  if (isIP(name) !== 0)
    return [
      error(
        'ip-as-dns',
        `the address ${name} stands in it as a DNS name, where no client looks for it`,
        `${REISSUE} with it as an address: IP:${name}, not DNS:${name}`,
      ),
    ];
  if (/[^\x20-\x7e]/.test(name))
    return [
      error(
        'odd-name',
        `its name ${JSON.stringify(name)} is not ASCII: clients cannot read the certificate`,
        `${REISSUE} with the name in its ASCII form (xn--…)`,
      ),
    ];
  if (/^\*\.[^.]*$/.test(name))
    return [
      warning(
        'wildcard-too-wide',
        `its wildcard ${name} stands over a single label, which clients refuse`,
        `${REISSUE} with a name like *.registry.example.com`,
      ),
    ];
  const reason = whyOdd(name);
  return reason === undefined
    ? []
    : [warning('odd-name', `its name ${reason}: clients will not find it`, `${REISSUE} with the name mended`)];
}

function whyOdd(name: string): string | undefined {
  try {
    if (parseDns(name) === name) return undefined;
    return `${name} is not written as clients do`;
  } catch (error) {
    if (error instanceof OperatorError) return error.message;
    throw error;
  }
}

/** Whether a Go client that asks for the name takes this certificate for it. */
function matches({ dnsNames, addresses }: Link, name: string): boolean {
  if (isIP(name) !== 0) return addresses.includes(name);
  const dot = name.indexOf('.');
  return dnsNames.includes(name) || (dot > 0 && dnsNames.includes(`*${name.slice(dot)}`));
}

/** What OpenSSL takes for a host name in a common name, and holds against name constraints. */
const looksLikeName = (commonName: string): boolean =>
  isIP(commonName) !== 0 || /^[a-z0-9_*-]+(\.[a-z0-9_-]+)+$/i.test(commonName);

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
