import type { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { systemCode } from '../errors.js';
import { checkChain, type Finding } from '../pki/check.js';
import { certificateDetails } from '../pki/details.js';
import { isPrivateAddress } from '../pki/names.js';
import { notAfter, notBefore } from '../pki/x509.js';
import type { Surroundings } from '../trust/places.js';
import type { Check, Remedy, Say } from './check.js';
import { CLIENT_ERRORS, type ClientError } from './client-errors.js';
import { type Answer, addressesOf, ask, askPlainly, type Endpoint, refusalOf, shakeHands } from './connection.js';
import { proxyFor, proxySettings } from './proxies.js';

/** How far two clocks may be apart, in ms, before certificates of our own making (one hour back) could suffer. */
const MOST_SKEW = 5 * 60_000;

/** A registry as it is met from here. What a check finds out is there for the later ones. */
export class Registry {
  addresses: readonly string[] = [];
  /** The first address that takes connections. */
  endpoint: Endpoint | undefined;
  /** As sent; empty where no handshake came about. */
  chain: readonly X509Certificate[] = [];
  asksForCertificate = false;
  /** Whether a client of today can speak with it. */
  speaksTls = false;
  /** What /v2/ answered to somebody without a password. */
  answer: Answer | undefined;

  constructor(
    /** HOST[:PORT] as in image references. */
    readonly reference: string,
    readonly name: string,
    readonly port: number,
    readonly machine: Surroundings,
    readonly now: () => Date = () => new Date(),
  ) {}
}

/** What is between here and the registry, from the outside to the inside. */
export const REGISTRY_CHECKS: ReadonlyArray<Check<Registry>> = [
  { name: 'proxy', title: 'proxy variables', run: checkProxies },
  { name: 'dns', title: 'addresses of the name', run: checkAddresses },
  { name: 'tcp', title: 'connections', run: checkConnections },
  { name: 'tls', title: 'handshakes', run: checkHandshakes },
  { name: 'certificate', title: 'the certificate and its chain', run: checkCertificate },
  { name: 'api', title: 'the answer of /v2/', run: checkApi },
  { name: 'clock', title: 'the clocks', run: checkClock },
];

const because = (error: ClientError, more: Omit<Remedy, 'error'> = {}): Remedy => ({
  error,
  ...(more.commands ? {} : { fix: CLIENT_ERRORS[error].fix }),
  ...more,
});

function checkProxies({ name, reference, port, machine }: Registry, say: Say): void {
  const settings = proxySettings(machine);
  for (const { source, proxy, none, isDaemon, problem } of settings) {
    if (problem) say.warning(`${source}: ${problem}`);
    const through = proxyFor({ proxy, none }, name, port);
    if (through === undefined) continue;
    const own =
      isIP(name) !== 0
        ? isPrivateAddress(name)
        : !name.includes('.') || /\.(local|internal|lan|home\.arpa)$/.test(name);
    const line = `NO_PROXY=${[none, name].filter(Boolean).join(',')}`;
    const message = `${source} sends requests for ${reference} through the proxy ${withoutPassword(through)}`;
    if (!own) say.ok(message);
    else
      say.warning(`${message}, which hardly reaches it`, {
        error: 'timeout',
        ...(isDaemon
          ? { fix: `add ${name} to no-proxy there, and restart the daemon` }
          : { commands: [`export ${line}`] }),
      });
  }
  if (settings.every(({ proxy }) => !proxy)) say.ok('no proxy is set');
}

function withoutPassword(proxy: string): string {
  return proxy.replace(/\/\/[^/@]*@/, '//');
}

async function checkAddresses(registry: Registry, say: Say): Promise<void> {
  const { name } = registry;
  try {
    registry.addresses = await addressesOf(name);
  } catch (error) {
    const code = systemCode(error);
    say.error(
      code === 'ENOTFOUND'
        ? `${name} has no address for this machine`
        : `the address of ${name} cannot be found out (${code})`,
      because('no-host'),
    );
    return;
  }
  if (isIP(name) === 0) say.ok(`${name} is at ${registry.addresses.join(', ')}`);
}

const UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ETIMEDOUT: 'nothing answers: a firewall, perhaps, or a machine that is off',
  EHOSTUNREACH: 'no way leads there',
  ENETUNREACH: 'no way leads there',
};

async function checkConnections(registry: Registry, say: Say): Promise<void> {
  const { addresses, port, name } = registry;
  const refusals = await Promise.all(addresses.map(address => refusalOf({ address, port })));
  const open = addresses.filter((_, at) => refusals[at] === undefined);
  const [first] = open;
  if (first !== undefined) registry.endpoint = { address: first, port, name };
  for (const [at, address] of addresses.entries()) {
    const code = refusals[at];
    const place = isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`;
    if (code === undefined) {
      say.ok(`${place} takes connections`);
      continue;
    }
    const remedy = because(code === 'ECONNREFUSED' ? 'refused' : 'timeout');
    const message = `${place} takes no connection: ${UNREACHABLE[code] ?? 'it failed'} (${code})`;
    // Clients try one address after the other, and wait at each.
    if (open.length > 0)
      say.warning(message, { ...remedy, fix: `take the address out of the name ${name}, or have it served` });
    else say.error(message, remedy);
  }
}

async function checkHandshakes(registry: Registry, say: Say): Promise<void> {
  const { endpoint } = registry;
  if (!endpoint) return;
  const newest = await shakeHands(endpoint, 'TLSv1.3');
  const usual = await shakeHands(endpoint, 'TLSv1.2');
  registry.chain = usual.chain.length > 0 ? usual.chain : newest.chain;
  registry.asksForCertificate = usual.asksForCertificate;
  const versions = [usual, newest].flatMap(({ version }) => version ?? []);
  // Where a certificate of the client is asked for, its absence ends the handshake: the versions are no question then.
  registry.speaksTls = versions.length > 0 || usual.asksForCertificate;
  if (versions.length > 0) {
    say.ok(`it speaks ${versions.join(' and ')}`);
    return;
  }
  if (registry.speaksTls) return;
  const plain = await askPlainly(endpoint, '/v2/').catch(() => undefined);
  if (plain) {
    say.error(`the port speaks plain HTTP (it answered ${plain.status})`, because('plain-http'));
    return;
  }
  const old = await shakeHands(endpoint, 'TLSv1.1');
  if (old.version) say.error(`it speaks no TLS that is newer than ${old.version}`, because('old-tls'));
  else say.error(`it speaks neither TLS nor HTTP (${newest.failure})`, { fix: 'check the port' });
}

/** Which text of a client's a mistake in a certificate leads to. */
export function shownFor({ code, severity }: Finding, { name, chain }: Registry): ClientError | undefined {
  const leaf = chain[0] && certificateDetails(chain[0]);
  const noNames = isIP(name) !== 0 ? 'no-ip-names' : 'no-names';
  switch (code) {
    case 'expired':
    case 'not-yet-valid':
    case 'issuer-expired':
    case 'issuer-not-yet-valid':
      return 'dates';
    case 'no-names':
    case 'version-1':
      return leaf?.commonName?.toLowerCase() === name ? 'common-name' : noNames;
    case 'no-ip-names':
    case 'ip-as-dns':
      return 'no-ip-names';
    case 'name-missing':
      return isIP(name) === 0 && leaf?.dnsNames.length === 0 ? 'no-names' : 'other-names';
    case 'no-server-auth':
      return severity === 'error' ? 'key-usage' : 'not-compliant';
    case 'issuer-no-server-auth':
      return 'key-usage';
    case 'too-many-days':
      return 'not-compliant';
    case 'negative-serial':
      return 'negative-serial';
    case 'outside-constraints':
      return 'constraints';
    case 'path-too-long':
      return 'path-length';
    case 'intermediate-missing':
    case 'unknown-authority':
    case 'renewed-authority':
    case 'issuer-not-ca':
    case 'issuer-may-not-sign':
    case 'weak-signature':
      return severity === 'error' ? 'unknown-authority' : undefined;
    default:
      return undefined;
  }
}

function checkCertificate(registry: Registry, say: Say): void {
  const { chain, name } = registry;
  const [leaf] = chain;
  if (!leaf) return;
  const found = checkChain(chain, { names: [name], now: registry.now() });
  for (const finding of found) {
    const remedy = { error: shownFor(finding, registry), fix: finding.fix, commands: commandsFor(finding, name) };
    say[finding.severity](`the certificate: ${finding.message}`, remedy);
  }
  if (!found.some(({ severity }) => severity === 'error'))
    say.ok(`the certificate is good for ${name} until ${notAfter(leaf).toISOString()}; SHA-256 ${leaf.fingerprint256}`);
}

/** To be run in the folder of the server, whose authority then issues a new certificate. */
function commandsFor({ code }: Finding, name: string): string[] | undefined {
  const option = `${isIP(name) !== 0 ? '--ip' : '--dns'} ${name}`;
  if (code === 'name-missing' || code === 'no-ip-names' || code === 'ip-as-dns')
    return [`registry-secure init-certs ${option}`];
  if (code === 'no-names' || code === 'version-1') return [`registry-secure init-certs --force ${option}`];
  if (code === 'expired' || code === 'no-server-auth' || code === 'negative-serial' || code === 'too-many-days')
    return ['registry-secure init-certs --force'];
  return undefined;
}

/** How a server says that it wants, or does not like, the certificate of a client (RFC 8446 section 6.2). */
export const CERTIFICATE_ALERT =
  /ALERT_(CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_\w+|HANDSHAKE_FAILURE|ACCESS_DENIED)$/;

async function checkApi(registry: Registry, say: Say): Promise<void> {
  const { endpoint } = registry;
  if (!endpoint || !registry.speaksTls) return;
  try {
    registry.answer = await ask(endpoint, { path: '/v2/' });
  } catch (error) {
    const code = systemCode(error) ?? (error as Error).message;
    // Without a certificate there is no answer; whether clients have one is looked at with them.
    if (CERTIFICATE_ALERT.test(code) || registry.asksForCertificate) {
      registry.asksForCertificate = true;
      say.ok('it asks clients for a certificate');
    } else say.error(`/v2/ does not answer (${code})`, { fix: 'look at the log of the registry' });
    return;
  }
  const denied = denialOf(registry.answer);
  if (denied === undefined) judgeAnswer(registry.answer, say);
  else {
    registry.asksForCertificate = true;
    say.ok(`it asks clients for a certificate (${denied})`);
  }
}

/** How a registry of ours says the same, in words that reach the client's user. */
export function denialOf({ status, body }: Answer): string | undefined {
  if (status !== 403) return undefined;
  try {
    const { errors } = JSON.parse(body) as { errors?: { message?: string }[] };
    return errors?.find(({ message }) => /\bcertificate\b/.test(message ?? ''))?.message;
  } catch {
    return undefined;
  }
}

function judgeAnswer({ status, headers }: Answer, say: Say): void {
  const scheme = /^\s*(\w+)/.exec(headers['www-authenticate'] ?? '')?.[1];
  if (status === 401 && scheme) say.ok(`it asks for a login (${scheme})`);
  else if (status === 401)
    say.error('it answers 401 without WWW-Authenticate, so that no client logs in', {
      fix: 'have the proxy in front of it hand that header on',
    });
  else if (status === 200) say.ok('it is open to everybody');
  else if (status >= 500)
    say.error(`/v2/ answers ${status}: the registry, or the proxy in front of it, is not well`, {
      fix: 'look at its log',
    });
  else
    say.error(`/v2/ answers ${status}: no registry, or not at the root of this host`, {
      fix: 'check host and port, and the proxy in front of it',
    });
  if ((status === 401 || status === 200) && headers['docker-distribution-api-version'] !== 'registry/2.0')
    say.warning(
      'its answer lacks Docker-Distribution-API-Version: registry/2.0, by which old clients know a registry',
      { fix: 'have the proxy in front of it hand that header on' },
    );
}

function checkClock(registry: Registry, say: Say): void {
  const said = Date.parse(registry.answer?.headers.date ?? '');
  if (Number.isNaN(said)) return;
  const here = registry.now();
  const skew = Math.abs(here.getTime() - said);
  if (skew <= MOST_SKEW) {
    say.ok('the clocks of the registry and of this machine agree');
    return;
  }
  const [leaf] = registry.chain;
  const there = new Date(said);
  const only = leaf && !isValidAt(leaf, here) && isValidAt(leaf, there);
  say[only ? 'error' : 'warning'](
    `the clock here says ${here.toISOString()}, the one of the registry ${there.toISOString()}${only ? ': by that one the certificate is valid' : ''}`,
    {
      error: only ? 'dates' : undefined,
      fix: 'set the one that is wrong',
      commands: ['sudo timedatectl set-ntp true'],
    },
  );
}

function isValidAt(certificate: X509Certificate, at: Date): boolean {
  return notBefore(certificate) <= at && at <= notAfter(certificate);
}
