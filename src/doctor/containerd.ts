import type { X509Certificate } from 'node:crypto';
import { dirname, isAbsolute, join } from 'node:path';
import { quoted } from '../trust/shell.js';
import type { Say } from './check.js';
import type { Registry } from './registry.js';
import { readCertificateFolder, readCertificates, textOf } from './stores.js';

/**
 * containerd's own way: certs.d/H/hosts.toml names the authorities of each host; without that file those that lie in the
 * folder count, as for docker (containerd, docs/hosts.md).
 * @returns the authorities that it would take for the registry.
 */
export function hostsAuthorities(base: string, registry: Registry, say: Say): X509Certificate[] {
  const { reference, machine } = registry;
  sayConfigPath(base, join(machine.root, 'etc/containerd/config.toml'), say);
  const folder = join(base, reference);
  const file = join(folder, 'hosts.toml');
  const text = textOf(file);
  if (typeof text !== 'string') {
    if (text.code === 'EACCES')
      say.warning(`containerd: ${file} may not be read by this user`, { commands: [`sudo chmod a+r ${quoted(file)}`] });
    return readCertificateFolder(folder).authorities.map(({ certificate }) => certificate);
  }
  const hosts = readHosts(text);
  const server = hosts.find(({ url }) => url === '')?.values.server?.[0];
  const own = hosts.find(({ url }) => url === `https://${reference}`);
  for (const { url, values } of hosts)
    if (values.skip_verify?.[0] === 'true')
      say.warning(`containerd: skip_verify in ${file} makes it trust anybody who answers${url ? ` at ${url}` : ''}`, {
        fix: 'take that line out',
      });
  if (!own) {
    const found = hosts.map(({ url }) => url).filter(url => url !== '');
    say.error(
      `containerd: ${file} has no [host."https://${reference}"]${found.length > 0 ? `, but ${found.join(', ')}` : ''}`,
      {
        error: 'unknown-authority',
        fix: `write the table as registry-secure trust ${reference} --client containerd prints it`,
      },
    );
  }
  if (server?.startsWith('http://'))
    say.error(`containerd: ${file} says server = "${server}", which is plain HTTP`, {
      fix: `write server = "https://${reference}"`,
    });
  return (own?.values.ca ?? []).flatMap(path => {
    const place = isAbsolute(path) ? join(machine.root, path) : join(dirname(file), path);
    const certificates = readCertificates(place);
    if (certificates.length === 0)
      say.error(`containerd: ${file} names ${path}, which holds no certificate that can be read`, {
        error: 'unknown-authority',
        fix: 'put the ca.crt of the registry there',
      });
    return certificates;
  });
}

/** Kubernetes pulls by way of the plug-in that has to be told of the folder; ctr and nerdctl are told by an option. */
function sayConfigPath(base: string, config: string, say: Say): void {
  const text = textOf(config);
  if (
    typeof text !== 'string' ||
    /^\s*disabled_plugins\s*=.*cri["']/m.test(text) ||
    /^\s*config_path\s*=\s*["'][^"']/m.test(text)
  )
    return;
  say.warning(`containerd: ${config} has no config_path, so that Kubernetes does not look into ${base}`, {
    fix: `write config_path = "${base}" below [plugins."io.containerd.grpc.v1.cri".registry] (1.x) or [plugins."io.containerd.cri.v1.images".registry] (2.x), and restart containerd`,
  });
}

/** The tables of a hosts.toml, with the few values that matter here: strings, lists of strings and truth values. */
function readHosts(text: string): { url: string; values: Record<string, string[]> }[] {
  const tables: { url: string; values: Record<string, string[]> }[] = [{ url: '', values: {} }];
  for (const line of text.split('\n')) {
    const header = /^\s*\[\s*(?:host\.)?(?:"([^"]*)"|'([^']*)'|([^\]]*))\s*\]\s*(?:#.*)?$/.exec(line);
    const value = /^\s*(\w+)\s*=\s*(.*)$/.exec(line);
    if (header) tables.push({ url: (header[1] ?? header[2] ?? header[3]!).trim(), values: {} });
    else if (value) tables.at(-1)!.values[value[1]!] = stringsIn(value[2]!);
  }
  return tables;
}

function stringsIn(text: string): string[] {
  const quotedOnes = [...text.matchAll(/"([^"]*)"|'([^']*)'/g)].map(([, double, single]) => double ?? single!);
  return quotedOnes.length > 0 ? quotedOnes : [text.replace(/#.*/, '').trim()];
}
