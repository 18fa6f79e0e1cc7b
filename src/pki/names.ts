import { BlockList, isIP, isIPv4 } from 'node:net';
import { domainToASCII } from 'node:url';
import { OperatorError } from '../errors.js';

/**
 * The names of a server certificate are kept as plain strings in one canonical form: IPv4 as usual, IPv6 compressed, in
 * lower case and without brackets, DNS names in lower case and ASCII. `net.isIP(name)` tells the kinds apart.
 */

/** What every server certificate can also carry without telling anything: the way back to the client's own machine. */
export const LOOPBACK_NAMES: readonly string[] = ['localhost', '127.0.0.1', '::1'];

/** Handshakes send the whole certificate, and OpenSSL's clients take 100 KB of it. */
export const MOST_NAMES = 256;

function refuse(text: string, kind: string, why: string, fix: string): never {
  throw new OperatorError(`${JSON.stringify(text)} is not ${kind}: ${why}`, { fix });
}

/** An IPv4 or IPv6 address in canonical form. @throws OperatorError for zone ids, brackets, ports, ranges, leading zeros. */
export function parseIp(text: string): string {
  const no = (why: string, fix: string): never => refuse(text, 'an IP address', why, fix);
  if (/^\[.*\]$/.test(text)) no('brackets belong into URLs only', `write ${text.slice(1, -1)}`);
  if (text.includes('/')) no('it is a range', 'give each address by itself');
  if (text.includes('%')) no('a zone id has a meaning on this machine only', 'leave out the % and what follows it');
  if (isIP(text) === 0) {
    if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text) && /(^|\.)0\d/.test(text))
      no('a leading zero means octal to some programs', 'write the numbers without leading zeros');
    if (/^(\d+\.){3}\d+:\d+$/.test(text)) no('it has a port', `write ${text.slice(0, text.indexOf(':'))}`);
    no('it is neither IPv4 nor IPv6', 'use an address such as 192.168.0.12 or fd00::12, or give a name with --dns');
  }
  const address = isIPv4(text) ? text : new URL(`http://[${text}]`).hostname.slice(1, -1);
  if (address === '0.0.0.0' || address === '::')
    no('that is where a server listens, not an address that clients use', "give the machine's own address");
  if (address.startsWith('::ffff:')) no('it is an IPv4 address in IPv6 clothes', 'write the IPv4 address');
  return address;
}

/** A DNS name in canonical form, `*` allowed as the whole left-most label. @throws OperatorError */
export function parseDns(text: string): string {
  const no = (why: string, fix: string): never => refuse(text, 'a DNS name', why, fix);
  if (isIP(text) !== 0) no('it is an IP address', `give it with --ip ${text}`);
  if (/[:/]/.test(text)) no('it has a scheme, a port or a path', 'give the host name alone');
  if (/[\s\0-\x20]/.test(text) || text === '') no('it is empty or has a space', 'give the host name alone');
  const wildcard = text.startsWith('*.');
  const given = wildcard ? text.slice(2) : text;
  if (given.includes('*'))
    no('a wildcard stands only for the whole left-most label', 'write it like *.registry.example.com');
  if (given.endsWith('.')) no('certificates hold names without the dot at the end', 'leave that dot out');
  // Only now: domainToASCII reads "192.168.0.012" as the address 192.168.0.10, and "0x7f000001" as another one.
  const ascii = domainToASCII(given);
  if (isIP(ascii) !== 0 || /(^|\.)\d+$/.test(given))
    no('its last part is a number, so it would be read as an IP address', 'give an address with --ip');
  if (ascii === '') no('it cannot be written in ASCII (IDNA)', 'check its spelling');
  const labels = ascii.split('.');
  if (labels.includes('')) no('it has an empty part', 'check the dots');
  if (labels.some(label => label.length > 63))
    no('one of its parts is longer than 63 characters', 'use a shorter name');
  if (ascii.length > (wildcard ? 251 : 253)) no('it is longer than 253 characters', 'use a shorter name');
  const odd = labels.find(label => !/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(label));
  if (odd !== undefined)
    no(`${JSON.stringify(odd)} has a character other than letters, digits and inner hyphens`, 'check its spelling');
  if (wildcard && labels.length < 2)
    no('clients refuse a wildcard over a single label', 'write it like *.registry.example.com');
  return wildcard ? `*.${ascii}` : ascii;
}

/** Either of the two, told apart by its look. @throws OperatorError */
export function parseName(text: string): string {
  return isIP(text) !== 0 || /^[\d./]+$/.test(text) || /[%[\]]/.test(text) || /:.*:/.test(text)
    ? parseIp(text)
    : parseDns(text);
}

/** `REGISTRY_SECURE_NAMES`: addresses and names, separated by commas or white space. @throws OperatorError */
export function parseNameList(text: string): string[] {
  return unique(
    text
      .split(/[\s,]+/)
      .filter(part => part !== '')
      .map(parseName),
  );
}

/** The names that the environment gives to containers. @throws OperatorError that names the variable. */
export function environmentNames(env: NodeJS.ProcessEnv = process.env): string[] {
  try {
    return parseNameList(env.REGISTRY_SECURE_NAMES ?? '');
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new OperatorError(
      `REGISTRY_SECURE_NAMES: ${error.message}`,
      error.fix === undefined ? {} : { fix: error.fix },
    );
  }
}

/** The same names in the same order, each once. */
export function unique(names: Iterable<string>): string[] {
  return [...new Set(names)];
}

/** The 4 or 16 bytes of a canonical address, as certificates hold it. */
export function ipBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  const halves = address.split('::').map(half => (half === '' ? [] : half.split(':')));
  const [head = [], tail = []] = halves;
  const zeros = new Array<string>(8 - head.length - tail.length).fill('0');
  return Buffer.from([...head, ...zeros, ...tail].map(group => group.padStart(4, '0')).join(''), 'hex');
}

/** The reverse of `ipBytes`; undefined for any other number of bytes. */
export function ipFromBytes(bytes: Uint8Array): string | undefined {
  if (bytes.length === 4) return [...bytes].join('.');
  if (bytes.length !== 16) return undefined;
  const groups = Buffer.from(bytes).toString('hex').match(/.{4}/g)!.join(':');
  return new URL(`http://[${groups}]`).hostname.slice(1, -1);
}

/** A host as it stands before `:PORT` in URLs and image references: IPv6 gets its brackets. */
function bracketed(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host;
}

/** A host and port as image references write them: the port of HTTPS is left out. */
export function imageHost(host: string, port: number): string {
  return port === 443 ? bracketed(host) : `${bracketed(host)}:${port}`;
}

/** Reads `HOST[:PORT]` as it stands in image references; IPv6 may come without its brackets when it has no port. */
export function parseImageHost(text: string): { host: string; imageHost: string } {
  const [, inBrackets, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535))
    refuse(text, 'a registry host', `there is no port ${port}`, 'use a port from 1 to 65535');
  const host = inBrackets === undefined ? parseName(plain ?? text) : parseIp(inBrackets);
  return { host, imageHost: `${bracketed(host)}${port === undefined ? '' : `:${port}`}` };
}

/** Whether a certificate with these names is good for the host, wildcards included (RFC 6125 section 6.4.3). */
export function covers(names: readonly string[], host: string): boolean {
  if (names.includes(host)) return true;
  const dot = host.indexOf('.');
  return isIP(host) === 0 && dot > 0 && names.includes(`*${host.slice(dot)}`);
}

/** Addresses that no two networks share, so that an authority for them is none for anybody else's public server. */
export const PRIVATE_RANGES: ReadonlyArray<readonly [address: string, prefix: number]> = [
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['100.64.0.0', 10], // shared address space (RFC 6598): VPNs of one's own use it
  ['127.0.0.0', 8],
  ['fc00::', 7],
  ['::1', 128],
];

/** Domains that are never delegated in the public DNS: mDNS, ICANN's private use, common usage, RFC 8375. */
export const PRIVATE_DOMAINS: readonly string[] = ['local', 'internal', 'lan', 'home.arpa'];

const privateRanges = new BlockList();
for (const [address, prefix] of PRIVATE_RANGES)
  privateRanges.addSubnet(address, prefix, isIPv4(address) ? 'ipv4' : 'ipv6');

export function isPrivateAddress(address: string): boolean {
  return privateRanges.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}
