import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isIP, isIPv4 } from 'node:net';
import { hostname, type NetworkInterfaceInfo, networkInterfaces } from 'node:os';
import { OperatorError } from '../errors.js';
import { isPrivateAddress, LOOPBACK_NAMES, parseDns, unique } from './names.js';

/** Interfaces of container engines and virtual machines: nobody outside of this machine reaches their addresses. */
const INNER_INTERFACE =
  /^(docker|br-|veth|cni|cbr|flannel|cali|cilium|weave|kube-|podman|virbr|vnet|lxcbr|lxdbr|vmnet|vboxnet|vEthernet)/;
/** Tunnels: an address of theirs is good for some clients, but a network card's is good for more. */
const TUNNEL = /^(tun|tap|wg|utun|tailscale|ppp|zt)/;

/** How this machine may be called. */
export interface Machine {
  /** True where the interfaces are those of a container, which tell nothing about the machine's own addresses. */
  readonly container: boolean;
  /** Canonical names, the best for others first, those for the machine itself last. */
  readonly names: readonly string[];
}

/** Looks at this machine: the addresses and the name that others could use. Never throws. */
export function thisMachine(): Machine {
  if (inContainer()) return { container: true, names: LOOPBACK_NAMES };
  const names = [...usableAddresses(networkInterfaces(), passingIpv6()), ...hostNames(hostname())];
  return { container: false, names: unique([...names, ...LOOPBACK_NAMES]) };
}

/**
 * The addresses of these interfaces that others could use, network cards before tunnels, IPv4 before IPv6.
 * `passing` holds IPv6 addresses that will not stay, or is undefined where that is unknown; then no IPv6 is taken.
 */
export function usableAddresses(
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>,
  passing: ReadonlySet<string> | undefined,
): string[] {
  const rank = (name: string, address: string) => (TUNNEL.test(name) ? 2 : 0) + (isIPv4(address) ? 0 : 1);
  return Object.entries(interfaces)
    .filter(([name]) => !INNER_INTERFACE.test(name))
    .flatMap(([name, list]) => (list ?? []).map(({ address, internal }) => ({ name, address, internal })))
    .filter(({ address, internal }) => !internal && !isLinkLocal(address))
    .filter(({ address }) => isIPv4(address) || (passing !== undefined && !passing.has(address)))
    .sort((a, b) => rank(a.name, a.address) - rank(b.name, b.address))
    .map(({ address }) => address);
}

function isLinkLocal(address: string): boolean {
  return isIPv4(address) ? address.startsWith('169.254.') : /^fe[89ab]/i.test(address) || address.includes('%');
}

/** Temporary, deprecated, tentative and failed addresses (flags of Linux's if_addr.h); undefined on other systems. */
function passingIpv6(): Set<string> | undefined {
  const PASSING = 0x01 | 0x08 | 0x20 | 0x40;
  try {
    const lines = readFileSync('/proc/net/if_inet6', 'utf8').trim().split('\n');
    const fields = lines.map(line => line.trim().split(/\s+/));
    return new Set(
      fields
        .filter(([, , , , flags]) => (Number.parseInt(flags ?? '', 16) & PASSING) !== 0)
        .map(([hex]) => new URL(`http://[${hex!.match(/.{4}/g)!.join(':')}]`).hostname.slice(1, -1)),
    );
  } catch {
    return process.platform === 'linux' ? new Set() : undefined;
  }
}

/** The host name, where it can stand in a certificate: some have underscores. */
function hostNames(name: string): string[] {
  try {
    return [parseDns(name)];
  } catch (error) {
    if (error instanceof OperatorError) return [];
    throw error;
  }
}

/** Inside of a container with a network of its own. With the host's network there is a card to see, and it counts. */
function inContainer(): boolean {
  const marked =
    existsSync('/.dockerenv') ||
    existsSync('/run/.containerenv') ||
    process.env.KUBERNETES_SERVICE_HOST !== undefined ||
    /docker|kubepods|containerd|libpod/.test(readOr('/proc/1/cgroup', ''));
  return marked && !networkCards().some(name => existsSync(`/sys/class/net/${name}/device`));
}

function networkCards(): string[] {
  try {
    return readdirSync('/sys/class/net');
  } catch {
    return [];
  }
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return otherwise;
  }
}

/**
 * The name of a certificate that others should use: the first one that is not for the machine itself. A private address
 * that the machine no longer has gives way to one of its kind that it has. `localhost` where there is no other.
 */
export function advertisedHost(names: readonly string[], machine: Machine): string {
  const forOthers = names.filter(name => !name.startsWith('*.') && !isLoopback(name));
  // A bare host name is known to few, an address works for all.
  const first = forOthers.find(name => isIP(name) !== 0 || name.includes('.')) ?? forOthers[0] ?? 'localhost';
  if (machine.container || isIP(first) === 0 || !isPrivateAddress(first) || machine.names.includes(first)) return first;
  return forOthers.find(name => isIP(name) === isIP(first) && machine.names.includes(name)) ?? first;
}

/** What to tell an operator whose certificate is good for this machine alone, as a fresh one in a container is. */
export function namesHint(names: readonly string[], machine: Machine): string | undefined {
  if (!names.every(isLoopback)) return undefined;
  const why = machine.container ? 'and the addresses of this container say nothing about how others reach it' : '';
  return `the certificate is good for ${names.join(', ')} alone ${why}`
    .trim()
    .concat(
      '; give the addresses and names that clients use with --ip ADDRESS and --dns NAME, or REGISTRY_SECURE_NAMES=ADDRESS,NAME',
    );
}

function isLoopback(name: string): boolean {
  return name === 'localhost' || name.endsWith('.localhost') || name === '::1' || /^127\./.test(name);
}
