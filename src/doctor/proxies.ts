import { readdirSync, readFileSync } from 'node:fs';
import { BlockList, isIP, isIPv4 } from 'node:net';
import { join } from 'node:path';
import type { Surroundings } from '../trust/places.js';

/** Proxies as programs written in Go read them, docker and its kin among them (golang.org/x/net/http/httpproxy). */

export interface ProxySetting {
  /** Where it is set. */
  readonly source: string;
  readonly isDaemon: boolean;
  /** For HTTPS. */
  readonly proxy: string | undefined;
  readonly none: string | undefined;
  readonly problem?: string;
}

/** This shell's variables, and what the daemon of docker is told. */
export function proxySettings({ env, root }: Surroundings): ProxySetting[] {
  const own = {
    source: 'HTTPS_PROXY',
    isDaemon: false,
    proxy: env.HTTPS_PROXY || env.https_proxy || undefined,
    none: env.NO_PROXY || env.no_proxy || undefined,
  };
  return [
    own,
    ...daemonJson(join(root, 'etc/docker/daemon.json')),
    ...serviceVariables(join(root, 'etc/systemd/system/docker.service.d')),
  ];
}

function daemonJson(path: string): ProxySetting[] {
  const text = read(path);
  if (text === undefined) return [];
  const setting = { source: path, isDaemon: true } as const;
  try {
    const { proxies = {} } = JSON.parse(text) as { proxies?: Record<string, string> };
    const proxy = proxies['https-proxy'];
    return proxy ? [{ ...setting, proxy, none: proxies['no-proxy'] }] : [];
  } catch (error) {
    const problem = `it is no JSON, so that dockerd does not start: ${(error as Error).message}`;
    return [{ ...setting, proxy: undefined, none: undefined, problem }];
  }
}

function serviceVariables(folder: string): ProxySetting[] {
  return list(folder)
    .filter(name => name.endsWith('.conf'))
    .flatMap(name => {
      const path = join(folder, name);
      const text = read(path) ?? '';
      const variable = (wanted: RegExp) =>
        [...text.matchAll(/^\s*Environment=(.*)$/gm)]
          .flatMap(([, line]) => [...line!.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)])
          .map(([, double, single, bare]) => wanted.exec(double ?? single ?? bare ?? '')?.[1])
          .findLast(value => value !== undefined);
      const proxy = variable(/^https_proxy=(.+)$/i);
      return proxy ? [{ source: path, isDaemon: true, proxy, none: variable(/^no_proxy=(.*)$/i) }] : [];
    });
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** The proxy for an HTTPS request to this host, or undefined where it goes straight there. */
export function proxyFor(
  { proxy, none }: Pick<ProxySetting, 'proxy' | 'none'>,
  name: string,
  port: number,
): string | undefined {
  if (!proxy || name === 'localhost' || /^127\./.test(name) || name === '::1') return undefined;
  const rules = (none ?? '').split(',').map(rule => rule.trim().toLowerCase());
  return rules.some(rule => rule !== '' && matches(rule, name, port)) ? undefined : proxy;
}

function matches(rule: string, name: string, port: number): boolean {
  if (rule === '*') return true;
  const range = /^([^/]+)\/(\d+)$/.exec(rule);
  if (range) return inRange(range[1]!, Number(range[2]), name);
  const [, brackets, plain, rulePort] = /^(?:\[([^\]]+)\]|([^:]*|.*:.*:.*?))(?::(\d+))?$/.exec(rule) ?? [];
  const wanted = brackets ?? plain ?? rule;
  if (rulePort !== undefined && Number(rulePort) !== port) return false;
  if (isIP(wanted) !== 0 || isIP(name) !== 0) return wanted === name;
  const domain = wanted.replace(/^\*?\./, '');
  return name.endsWith(`.${domain}`) || (name === domain && !/^\*?\./.test(wanted));
}

function inRange(base: string, prefix: number, name: string): boolean {
  if (isIP(name) === 0 || isIP(base) !== isIP(name) || prefix > (isIPv4(base) ? 32 : 128)) return false;
  const family = isIPv4(base) ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(base, prefix, family);
  return list.check(name, family);
}
