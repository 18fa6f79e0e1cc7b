import type { KeyObject, X509Certificate } from 'node:crypto';
import { BlockList, isIP, isIPv4 } from 'node:net';
import { OperatorError } from '../errors.js';
import { describeKey, keyIdentifier } from './keys.js';
import { isPrivateAddress, MOST_NAMES, PRIVATE_DOMAINS, PRIVATE_RANGES, unique } from './names.js';
import {
  authorityKeyIdentifier,
  basicConstraints,
  certificateFields,
  clientAuthentication,
  keyUsage,
  type NameConstraints,
  nameConstraints,
  notAfter,
  notBefore,
  serverAuthentication,
  signCertificate,
  subjectAlternativeName,
  subjectKeyIdentifier,
  subjectName,
} from './x509.js';

/** The profiles: what our authority's certificate and a server's certificate say, and for how long. */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

export const DEFAULT_DAYS = 397;
export const DEFAULT_CA_DAYS = 3650;
/** Apple's systems refuse a server certificate that is valid for longer, from a private authority too. */
const MOST_DAYS = 825;

/** Of a client certificate. Nobody but us looks at it, but a certificate that never ends is never looked after. */
const MOST_CLIENT_DAYS = 3650;

/** From one hour ago, for clients whose clock is slow, and exactly so many days long. */
function validity(days: number, now: Date): { notBefore: Date; notAfter: Date } {
  // Certificates know whole seconds, and both ends belong to the time in between (RFC 5280 section 4.1.2.5).
  const start = Math.floor((now.getTime() - HOUR) / 1000) * 1000;
  return { notBefore: new Date(start), notAfter: new Date(start + days * DAY - 1000) };
}

/**
 * What an authority for these names may sign for: these names, private address ranges, and the domains that are never
 * public. It can only be said when the authority is made.
 */
export function constraintsFor(names: readonly string[]): NameConstraints {
  const domains = names.filter(name => isIP(name) === 0).map(subtreeOf);
  const addresses = names.filter(name => isIP(name) !== 0 && !isPrivateAddress(name));
  return {
    permitted: unique([
      ...PRIVATE_DOMAINS,
      ...domains.filter(name => !PRIVATE_DOMAINS.some(domain => withinDomain(name, domain))),
      ...PRIVATE_RANGES.map(([address, prefix]) => `${address}/${prefix}`),
      ...addresses.map(subtreeOf),
    ]),
    excluded: [],
  };
}

/** The smallest constraint that permits a name. */
function subtreeOf(name: string): string {
  const family = isIP(name);
  return family === 0 ? name.replace(/^\*\./, '') : `${name}/${family === 4 ? 32 : 128}`;
}

/** Whether an authority with these constraints may sign for the name (RFC 5280 section 4.2.1.10). */
export function permits({ permitted, excluded }: NameConstraints, name: string): boolean {
  const address = isIP(name) !== 0;
  const ofKind = permitted.filter(tree => tree.includes('/') === address);
  const matches = (tree: string) => (address ? withinRange(name, tree) : withinDomain(name, tree));
  return (ofKind.length === 0 || ofKind.some(matches)) && !excluded.some(matches);
}

function withinDomain(name: string, domain: string): boolean {
  const [bare, above] = [name.replace(/^\*\./, ''), domain.replace(/^\./, '')];
  return !domain.includes('/') && (above === '' || bare === above || bare.endsWith(`.${above}`));
}

function withinRange(address: string, range: string): boolean {
  const [base, prefix] = range.split('/') as [string, string?];
  if (prefix === undefined || isIP(base) !== isIP(address)) return false;
  const list = new BlockList();
  list.addSubnet(base, Number(prefix), isIPv4(base) ? 'ipv4' : 'ipv6');
  return list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}

/** No part of it outside of the authority's own life; undefined when that is over. */
function validityWithin(authority: X509Certificate, days: number, now: Date) {
  const wanted = validity(days, now);
  const [first, last] = [notBefore(authority), notAfter(authority)];
  if (last <= now) return undefined;
  return {
    notBefore: wanted.notBefore < first ? first : wanted.notBefore,
    notAfter: wanted.notAfter > last ? last : wanted.notAfter,
  };
}

/** A new authority's own certificate, as PEM. Two authorities must not have the same `commonName`. */
export function authorityCertificate(options: {
  readonly key: KeyObject;
  readonly commonName: string;
  readonly days: number;
  readonly constraints?: NameConstraints | undefined;
  readonly now?: Date;
}): string {
  const subject = subjectName(options.commonName);
  return signCertificate(
    {
      subject,
      publicKey: options.key,
      ...validity(options.days, options.now ?? new Date()),
      extensions: [
        // Room for one authority below: a successor that this one signs when authorities change.
        basicConstraints(1),
        keyUsage('keyCertSign', 'cRLSign'),
        subjectKeyIdentifier(options.key),
        ...(options.constraints ? [nameConstraints(options.constraints)] : []),
      ],
    },
    { name: subject, key: options.key },
  );
}

/** The constraints with room for these names too. Those of an authority that may sign for anything stay none. */
export function withNames(
  constraints: NameConstraints | undefined,
  names: readonly string[],
): NameConstraints | undefined {
  if (!constraints) return undefined;
  const lacking = names.filter(name => !permits(constraints, name));
  const excludes = (tree: string, name: string) => !permits({ permitted: [], excluded: [tree] }, name);
  return {
    permitted: unique([...constraints.permitted, ...lacking.map(subtreeOf)]),
    // A name below what was excluded on purpose is asked for on purpose now.
    excluded: constraints.excluded.filter(tree => !lacking.some(name => excludes(tree, name))),
  };
}

/**
 * The successor's certificate once more, signed by the authority that it follows: with it, clients that know only that
 * one accept what the successor signs. As PEM. It may sign for no further authority.
 */
export function crossCertificate(options: {
  readonly authority: Authority;
  readonly successor: X509Certificate;
  readonly until: Date;
}): string {
  const { authority, successor, until } = options;
  const fields = certificateFields(successor);
  const issuer = certificateFields(authority.certificate);
  const first = new Date(Math.max(notBefore(authority.certificate).getTime(), notBefore(successor).getTime()));
  return signCertificate(
    {
      subject: fields.subject,
      publicKey: successor.publicKey,
      notBefore: first,
      notAfter: until,
      extensions: [
        basicConstraints(0),
        keyUsage('keyCertSign', 'cRLSign'),
        subjectKeyIdentifier(successor.publicKey),
        ...(fields.nameConstraints ? [nameConstraints(fields.nameConstraints)] : []),
        authorityKeyIdentifier(issuer.keyIdentifier ?? keyIdentifier(authority.certificate.publicKey)),
      ],
    },
    { name: issuer.subject, key: authority.key },
  );
}

export interface Authority {
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
}

/**
 * A server certificate for these canonical names, as PEM; it never outlives its authority.
 * @throws OperatorError for too many days or names, an expired authority, a name outside of the name constraints.
 */
export function serverCertificate(options: {
  readonly authority: Authority;
  readonly key: KeyObject;
  readonly names: readonly string[];
  readonly days: number;
  readonly now?: Date;
}): string {
  const { authority, key, names, days, now = new Date() } = options;
  checkDays(days);
  checkNames(names);
  const fields = certificateFields(authority.certificate);
  const outside = names.filter(name => fields.nameConstraints && !permits(fields.nameConstraints, name));
  if (outside.length > 0) throw outsideConstraints(outside);
  const within = validityWithin(authority.certificate, days, now);
  if (!within)
    throw new OperatorError(`the certificate authority expired on ${notAfter(authority.certificate).toISOString()}`, {
      fix: 'make a new one: registry-secure init-certs --out in a fresh folder; clients have to install its ca.crt',
    });
  return signCertificate(
    {
      // The space keeps clients from reading the common name as a host name, which name constraints would then refuse.
      subject: subjectName('registry-secure server'),
      publicKey: key,
      ...within,
      extensions: [
        basicConstraints(),
        describeKey(key).startsWith('rsa-')
          ? keyUsage('digitalSignature', 'keyEncipherment')
          : keyUsage('digitalSignature'),
        serverAuthentication(),
        subjectAlternativeName(names),
        subjectKeyIdentifier(key),
        authorityKeyIdentifier(fields.keyIdentifier ?? keyIdentifier(authority.certificate.publicKey)),
      ],
    },
    { name: fields.subject, key: authority.key },
  );
}

/**
 * The certificate of a new authority that signs for clients, as PEM: for nobody below it, and for no server. It has no
 * name constraints: its clients have no host names.
 */
export function clientAuthorityCertificate(options: {
  readonly key: KeyObject;
  readonly commonName: string;
  readonly days: number;
  readonly now?: Date;
}): string {
  const subject = subjectName(options.commonName);
  return signCertificate(
    {
      subject,
      publicKey: options.key,
      ...validity(options.days, options.now ?? new Date()),
      extensions: [
        basicConstraints(0),
        keyUsage('keyCertSign', 'cRLSign'),
        clientAuthentication(),
        subjectKeyIdentifier(options.key),
      ],
    },
    { name: subject, key: options.key },
  );
}

/** A client's certificate, as PEM; it never outlives its authority. @throws OperatorError for too many days, an expired authority. */
export function clientCertificate(options: {
  readonly authority: Authority;
  readonly publicKey: KeyObject;
  readonly name: string;
  readonly days: number;
  readonly now?: Date;
}): string {
  const { authority, publicKey, name, days, now = new Date() } = options;
  if (days > MOST_CLIENT_DAYS)
    throw new OperatorError(`a client certificate for ${days} days is too long`, {
      fix: `use at most ${MOST_CLIENT_DAYS} days (--days ${DEFAULT_DAYS} is the default)`,
    });
  const within = validityWithin(authority.certificate, days, now);
  if (!within)
    throw new OperatorError(`the client authority expired on ${notAfter(authority.certificate).toISOString()}`, {
      fix: 'move the folder certs/clients away, and add the clients again',
    });
  const fields = certificateFields(authority.certificate);
  return signCertificate(
    {
      subject: subjectName(name),
      publicKey,
      ...within,
      extensions: [
        basicConstraints(),
        keyUsage('digitalSignature'),
        clientAuthentication(),
        subjectKeyIdentifier(publicKey),
        authorityKeyIdentifier(fields.keyIdentifier ?? keyIdentifier(authority.certificate.publicKey)),
      ],
    },
    { name: fields.subject, key: authority.key },
  );
}

/** @throws OperatorError for a life that Apple's clients refuse. */
export function checkDays(days: number): void {
  if (days > MOST_DAYS)
    throw new OperatorError(`a server certificate for ${days} days is refused by Apple's systems`, {
      fix: `use at most ${MOST_DAYS} days (--days ${DEFAULT_DAYS} is the default)`,
    });
}

/** @throws OperatorError for no name at all, and for too many. */
export function checkNames(names: readonly string[]): void {
  if (names.length === 0)
    throw new OperatorError('a server certificate needs at least one name', { fix: 'give --ip ADDRESS or --dns NAME' });
  if (names.length > MOST_NAMES)
    throw new OperatorError(`a certificate for ${names.length} names is too large for clients`, {
      fix: `give at most ${MOST_NAMES} (init-certs --force drops those not given), or a wildcard like --dns '*.registry.example.com'`,
    });
}

function outsideConstraints(names: readonly string[]): OperatorError {
  return new OperatorError(
    `the certificate authority may not sign for ${names.join(', ')}: its name constraints were fixed when it was made`,
    {
      fix: `begin the change to an authority that may: registry-secure certs rotate-ca ${nameFlags(names)}`,
    },
  );
}

/** Names as options of a command line. */
export function nameFlags(names: readonly string[]): string {
  return names
    .map(name => `--${isIP(name) === 0 ? 'dns' : 'ip'} ${name.startsWith('*') ? `'${name}'` : name}`)
    .join(' ');
}
