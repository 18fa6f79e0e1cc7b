import { BlockList, isIP } from 'node:net';

/** For how long a URL is good with which a pull may begin (s); one that has begun goes on. */
const LENT_S = 300;

/** How long ago (s) such a URL became good: the machines of a service may differ about the time. */
const BACKDATED_S = 60;

/** Networks that are nobody's on the Internet: clients need not be in the one that this machine is in. */
const INSIDE = new BlockList();
for (const network of [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
])
  INSIDE.addSubnet(network.split('/')[0]!, Number(network.split('/')[1]), 'ipv4');
INSIDE.addAddress('::1', 'ipv6');
INSIDE.addSubnet('fc00::', 7, 'ipv6');
INSIDE.addSubnet('fe80::', 10, 'ipv6');

const INSIDE_NAMES = /^[^.]+$|\.(?:local|localhost|internal|lan|home\.arpa|svc|cluster\.local)$/i;

/** From when and until when a URL is good. */
export interface Span {
  readonly from: Date;
  readonly until: Date;
}

/** Of a URL that is given now. @param now by the service's clock (ms) */
export function spanOf(now: number): Span {
  return { from: new Date(now - BACKDATED_S * 1000), until: new Date(now + LENT_S * 1000) };
}

export interface Redirects {
  /** Whether pulls are sent to the object store by signed URLs. */
  readonly on: boolean;
  /** What the operator should know of it. */
  readonly warning?: string;
}

/**
 * Where nothing is set, pulls are redirected as `registry:2` does it, unless clients may not reach the object store, or would
 * reach it without TLS: then pulls that worked would fail, or images go in the clear.
 * @param disable `storage.redirect.disable`
 * @param endpoint URL of the service
 * @param isInside whether it is known to be one for those inside, whatever its name
 */
export function redirectsOf(disable: boolean | undefined, endpoint: string, isInside = false): Redirects {
  if (disable === true) return { on: false };
  const { protocol, hostname } = new URL(endpoint);
  const host = hostname.replace(/^\[|\]$/g, '');
  const family = isIP(host);
  const doubts = [
    ...(protocol === 'https:' ? [] : ['without TLS']),
    ...(isInside || (family === 0 ? INSIDE_NAMES.test(host) : INSIDE.check(host, family === 6 ? 'ipv6' : 'ipv4'))
      ? ['at an address that may be known here only']
      : []),
  ];
  if (doubts.length === 0) return { on: true };
  if (disable === undefined) return { on: false };
  return {
    on: true,
    warning: `pulls are redirected to ${protocol}//${hostname}, ${doubts.join(' and ')} (storage.redirect.disable: false)`,
  };
}
