import { isIP } from 'node:net';
import { OperatorError } from '../errors.js';
import { ANY_USAGE, KEY_USAGE_BITS, SERVER_AUTH } from './details.js';
import { error, type Finding, isSelfSigned, type Link, REISSUE, warning } from './finding.js';
import { parseDns } from './names.js';
import { notAfter, notBefore } from './x509.js';

/** Mistakes of a server's own certificate, its issuer left aside. */

const DAY = 24 * 3_600_000;
/** Of Apple's systems, for private authorities too. */
const MOST_DAYS = 825;
/** Below it OpenSSL at Debian's security level, Go and Apple's systems refuse an RSA key. */
const LEAST_RSA_BITS = 2048;
const MOST_SERIAL_BYTES = 20;
export function checkLeaf(leaf: Link, now: Date): Finding[] {
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

export function checkStrength(link: Link): Finding[] {
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
export function checkNames(leaf: Link, wanted: readonly string[]): Finding[] {
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
export const looksLikeName = (commonName: string): boolean =>
  isIP(commonName) !== 0 || /^[a-z0-9_*-]+(\.[a-z0-9_-]+)+$/i.test(commonName);
