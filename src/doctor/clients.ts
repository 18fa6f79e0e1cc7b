import { X509Certificate } from 'node:crypto';
import { statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { systemCode } from '../errors.js';
import { checkChain, type Finding, type Mistake } from '../pki/check.js';
import { CLIENT_AUTH, certificateDetails } from '../pki/details.js';
import { notAfter } from '../pki/x509.js';
import type { Place, TrustClient } from '../trust/client.js';
import { filesOf, isPresent, locate, type Surroundings } from '../trust/places.js';
import { quoted } from '../trust/shell.js';
import { clientsNamed, TRUST_CLIENTS } from '../trust/table.js';
import type { Check, Remedy, Say } from './check.js';
import { CLIENT_ERRORS, type ClientError } from './client-errors.js';
import { ask, type ClientPair } from './connection.js';
import { hostsAuthorities } from './containerd.js';
import { CERTIFICATE_ALERT, denialOf, type Registry, shownFor } from './registry.js';
import { type CertificateFolder, isThere, namesIn, readCertificateFolder, systemStore, textOf } from './stores.js';

/** Whether each client on this machine would trust the registry, and why not: what lies in the files that it looks up. */

/** Folders for which a client looks before, and after, the one that `trust` writes: the first that exists is the only one. */
const MORE_FOLDERS: Readonly<Record<string, { before: readonly Place[]; after: readonly Place[] }>> = {
  podman: { before: ['$HOME/.config/containers/certs.d'], after: ['/etc/docker/certs.d'] },
};

/** A client with the folders that it looks into, the ones for registries in them, and what it finds. */
interface Lookup {
  readonly client: TrustClient;
  /** Each holds one folder a registry. */
  readonly bases: readonly string[];
  /** The one that counts for this registry. */
  readonly folder: CertificateFolder | undefined;
  /** Folders that seem to be meant for it. */
  readonly lookalikes: readonly string[];
}

/** @param kinds of clients to look at; those that are present, unless some are named. */
export function clientChecks(kinds: readonly string[] | undefined): Check<Registry> {
  const chosen = kinds && clientsNamed(kinds);
  return {
    name: 'clients',
    title: 'the clients on this machine',
    run: async (registry, say) => {
      if (registry.chain.length === 0) return;
      const lookups = (chosen ?? TRUST_CLIENTS.filter(client => isPresent(client, registry.machine)))
        .map(client => lookUp(client, registry))
        .filter(lookup => lookup.bases.length > 0);
      const configured = lookups.filter(isSetUp);
      sayStore(registry, say);
      for (const lookup of lookups) {
        const expected =
          chosen !== undefined || configured.includes(lookup) || (configured.length === 0 && isMain(lookup, lookups));
        if (expected) await checkClient(lookup, registry, say);
        else say.ok(`${lookup.client.title}: not set up for ${registry.reference}`);
      }
    },
  };
}

/** What lies in the files of the clients that are here: a login is tried on their trust. */
export function ownAuthorities(registry: Registry): X509Certificate[] {
  return TRUST_CLIENTS.filter(client => isPresent(client, registry.machine)).flatMap(client =>
    (lookUp(client, registry).folder?.authorities ?? []).map(({ certificate }) => certificate),
  );
}

function lookUp(client: TrustClient, { reference, machine }: Registry): Lookup {
  const file = filesOf(client, reference).find(
    ({ holds, place }) => holds === 'ca' && place.endsWith(`certs.d/${reference}/ca.crt`),
  );
  const own = file && dirname(dirname(file.place));
  const { before = [], after = [] } = MORE_FOLDERS[client.name] ?? {};
  const places = own === undefined ? [] : [...before, own, ...after];
  const bases = places.flatMap(place => locate(place, machine) ?? []);
  const path = bases.map(base => join(base, reference)).find(isThere);
  return {
    client,
    bases,
    folder: path === undefined ? undefined : readCertificateFolder(path),
    lookalikes: bases.flatMap(base =>
      (namesIn(base) ?? []).filter(name => name !== reference && isLike(name, reference)).map(name => join(base, name)),
    ),
  };
}

/** Names that people give the folder: with a scheme, another case, with the usual port or without it, no colon. */
function isLike(name: string, reference: string): boolean {
  const plain = (text: string) =>
    text
      .toLowerCase()
      .replace(/^https?(:\/\/|:|_+)/, '')
      .replace(/[/_]+$/, '')
      .replace(/[:_](?=\d+$)/, '')
      .replace(/443$/, '');
  return plain(name) === plain(reference) || name.replace(/:\d+$/, '') === reference.replace(/:\d+$/, '');
}

const UNTRUSTED: readonly Mistake[] = ['unknown-authority', 'renewed-authority', 'intermediate-missing'];

const isSetUp = ({ folder, lookalikes }: Lookup): boolean => folder !== undefined || lookalikes.length > 0;

/** containerd is there wherever docker is; only where it is alone is it the one that pulls. */
const isMain = ({ client }: Lookup, all: readonly Lookup[]): boolean =>
  client.name !== 'containerd' || !all.some(other => other.client.name === 'docker');

function sayStore(registry: Registry, say: Say): void {
  const { path, authorities } = systemStore(registry.machine);
  const known = whyUntrusted(registry, authorities) === undefined;
  say.ok(`the store of the system${path ? ` (${path})` : ''} ${known ? 'has' : 'does not have'} the authority`);
}

/** What is wrong for a client with these authorities, and for nobody who knows the certificate alone. */
function beyond(registry: Registry, anchors: readonly X509Certificate[]): Finding[] {
  const options = { names: [registry.name], now: registry.now() };
  const alone = checkChain(registry.chain, options).map(({ message }) => message);
  return checkChain(registry.chain, { ...options, anchors }).filter(({ message }) => !alone.includes(message));
}

/** Undefined when these authorities vouch for the chain, whatever else is wrong with it. */
function whyUntrusted(registry: Registry, anchors: readonly X509Certificate[]): Finding | undefined {
  return beyond(registry, anchors).find(({ code, severity }) => severity === 'error' && UNTRUSTED.includes(code));
}

async function checkClient(lookup: Lookup, registry: Registry, say: Say): Promise<void> {
  const { client, folder } = lookup;
  const insecure = client.name.startsWith('docker') ? insecureBecause(registry) : undefined;
  if (insecure)
    say.warning(`${client.title}: ${insecure}, so nothing here proves that others trust it`, {
      ...(insecure.includes('insecure-registries') && { fix: 'take it out there, and restart docker' }),
    });
  if (folder) sayFolder(folder, client, say);
  const own = client.name.startsWith('containerd')
    ? hostsAuthorities(lookup.bases[0]!, registry, say)
    : (folder?.authorities ?? []).map(({ certificate }) => certificate);
  const anchors = [...systemStore(registry.machine).authorities, ...own];
  const reason = whyUntrusted(registry, anchors);
  if (reason === undefined) {
    for (const finding of beyond(registry, anchors))
      say[finding.severity](`${client.title}: ${finding.message}`, {
        error: shownFor(finding, registry),
        fix: finding.fix,
      });
    say.ok(`${client.title} trusts the certificate${folder ? ` (${folder.path})` : ''}`);
    sayRestart(lookup, registry.machine, say);
  } else if (!insecure) sayUntrusted(lookup, registry, reason, say);
  if (registry.asksForCertificate && registry.speaksTls) await checkPairs(lookup, registry, say);
}

/** Why docker would not verify this registry at all. */
function insecureBecause({ name, reference, machine }: Registry): string | undefined {
  if (name === 'localhost' || name === '::1' || /^127\./.test(name))
    return `docker verifies nothing at a loopback address such as ${name}`;
  const path = join(machine.root, 'etc/docker/daemon.json');
  const text = textOf(path);
  if (typeof text !== 'string') return undefined;
  try {
    const { 'insecure-registries': list = [] } = JSON.parse(text) as { 'insecure-registries'?: string[] };
    return list.includes(reference)
      ? `${path} lists ${reference} under insecure-registries, so docker does not verify it and may speak plain HTTP`
      : undefined;
  } catch {
    return undefined;
  }
}

function sayFolder(
  { path, unreadable, broken, misnamed, certificatesWithoutKey, keysWithoutCertificate }: CertificateFolder,
  { title, name }: TrustClient,
  say: Say,
): void {
  const sudo = path.startsWith('/home') || path.startsWith('/root') ? '' : 'sudo ';
  for (const file of unreadable)
    say.warning(`${title}: ${file} may not be read by this user`, {
      fix: "let the client's user read it",
      commands: [`${sudo}chmod a+rX ${quoted(file)}`],
    });
  for (const file of broken)
    say.error(`${title}: ${file} holds no certificate`, {
      error: 'unknown-authority',
      fix: 'put the ca.crt of the registry there',
    });
  for (const file of misnamed)
    say.warning(`${title}: ${file} holds a certificate, and is passed over since it does not end in .crt`, {
      error: 'unknown-authority',
      commands: [
        `${sudo}mv ${quoted(file)} ${quoted(`${file.replace(/\.(pem|cer|txt)$/, '').replace(/\.crt$/, '')}.crt`)}`,
      ],
    });
  // Only those that are docker's kin pair the files by their names.
  if (name.startsWith('containerd')) return;
  for (const file of certificatesWithoutKey)
    say.error(`${title}: ${file} has no key ${file.replace(/\.cert$/, '.key')} beside it`, {
      error: 'missing-key',
      fix: 'put the key there, or remove the certificate',
    });
  for (const file of keysWithoutCertificate)
    say.error(`${title}: ${file} has no certificate ${file.replace(/\.key$/, '.cert')} beside it`, {
      error: 'missing-certificate',
      ...renamed(file, sudo),
    });
}

/** The usual mistake: the certificate of the client is there, as .crt. */
function renamed(key: string, sudo: string): Remedy {
  const crt = key.replace(/\.key$/, '.crt');
  return isThere(crt)
    ? { commands: [`${sudo}mv ${quoted(crt)} ${quoted(key.replace(/\.key$/, '.cert'))}`] }
    : { fix: 'put the certificate there, or remove the key' };
}

function sayUntrusted(
  { client, bases, folder, lookalikes }: Lookup,
  registry: Registry,
  reason: Finding,
  say: Say,
): void {
  const { title, name } = client;
  const { reference } = registry;
  const error: ClientError = 'unknown-authority';
  const right = lookalikes.find(
    path =>
      whyUntrusted(
        registry,
        readCertificateFolder(path).authorities.map(({ certificate }) => certificate),
      ) === undefined,
  );
  const fix = `with the SHA-256 that registry-secure trust shows on the server: registry-secure trust install ${reference} --client ${name} --fingerprint SHA-256`;
  if (right !== undefined && folder === undefined) {
    const to = join(dirname(right), reference);
    say.error(`${title} looks for the folder ${to}, and ${right} is named otherwise than the reference ${reference}`, {
      error,
      commands: [`sudo mv ${quoted(right)} ${quoted(to)}`],
    });
    return;
  }
  const later = bases.map(base => join(base, reference)).filter(path => path !== folder?.path && isThere(path));
  const shadowed = later.find(
    path =>
      whyUntrusted(
        registry,
        readCertificateFolder(path).authorities.map(({ certificate }) => certificate),
      ) === undefined,
  );
  if (folder && shadowed) {
    say.error(
      `${title} looks into ${folder.path} alone, which comes before ${shadowed}, where the right authority is`,
      {
        error,
        commands: [
          folder.authorities.length === 0
            ? `rm -r ${quoted(folder.path)}`
            : `cp ${quoted(join(shadowed, 'ca.crt'))} ${quoted(folder.path)}`,
        ],
      },
    );
    return;
  }
  if (reason.code === 'intermediate-missing') {
    say.error(`${title}: ${reason.message}`, { error, fix: reason.fix });
    return;
  }
  if (folder === undefined) {
    say.error(
      `${title}: there is no ${join(bases.at(MORE_FOLDERS[name]?.before.length ?? 0)!, reference, 'ca.crt')}, and ${reason.message}`,
      { error, fix },
    );
    return;
  }
  if (folder.authorities.length === 0) {
    say.error(`${title}: there is no authority in ${folder.path} (a file that ends in .crt), and ${reason.message}`, {
      error,
      fix,
    });
    return;
  }
  const has = folder.authorities.map(({ file, certificate }) => `${file} (SHA-256 ${certificate.fingerprint256})`);
  say.error(`${title} has ${has.join(', ')}, which is another authority, an old one perhaps: ${reason.message}`, {
    error,
    fix,
  });
}

/** dockerd's own BuildKit reads the folder when dockerd starts. */
function sayRestart({ client, folder }: Lookup, { root }: Surroundings, say: Say): void {
  if (client.name !== 'docker' || !folder) return;
  const pid = textOf(join(root, 'run/docker.pid'));
  if (typeof pid !== 'string' || !/^\d+\s*$/.test(pid)) return;
  const started = changedAt(`/proc/${pid.trim()}`);
  const changed = Math.max(...folder.authorities.map(({ file }) => changedAt(file) ?? 0));
  if (started !== undefined && changed > started)
    say.warning(
      `${client.title}: builds with FROM ${folder.path.slice(folder.path.lastIndexOf('/') + 1)} fail until dockerd has been restarted, since the authority is newer than its start`,
      { error: 'unknown-authority', commands: ['sudo systemctl restart docker'] },
    );
}

function changedAt(path: string): number | undefined {
  try {
    return statSync(path).ctimeMs;
  } catch {
    return undefined;
  }
}

/** Asks with each pair that the client has, as it does itself. */
async function checkPairs({ client, folder, bases }: Lookup, registry: Registry, say: Say): Promise<void> {
  const { title } = client;
  const without = await refusalTo(undefined, registry);
  if (without === undefined) return;
  const place = folder?.path ?? join(bases[0]!, registry.reference);
  const { fix } = CLIENT_ERRORS['certificate-required'];
  const pairs = folder?.pairs ?? [];
  if (pairs.length === 0)
    say.error(`${title} has no client certificate in ${place}, and the registry asks for one`, {
      error: without.error,
      fix,
    });
  for (const { certificate, key } of pairs) {
    const [cert, secret] = [textOf(certificate), textOf(key)];
    if (typeof cert !== 'string' || typeof secret !== 'string') {
      const fix = 'run this as the user that runs the client';
      say.warning(`${title}: ${certificate} and its key may not be read by this user`, { fix });
      continue;
    }
    const refusal = await refusalTo({ cert, key: secret }, registry);
    if (refusal === undefined) say.ok(`${title}: the registry takes the client certificate ${certificate}`);
    else {
      const { error, why } = whyNot(cert, registry, refusal);
      say.error(`${title}: the registry does not take the client certificate ${certificate}: ${why}`, { error, fix });
    }
  }
}

interface PairRefusal {
  readonly error: ClientError;
  /** Where the registry has words for it. */
  readonly said?: string;
}

function whyNot(pem: string, { now }: Registry, { error, said }: PairRefusal): { error: ClientError; why: string } {
  const certificate = new X509Certificate(pem);
  const usages = certificateDetails(certificate).extendedKeyUsage;
  if (usages && !usages.includes(CLIENT_AUTH))
    return { error: 'key-usage', why: 'it is not meant for clients (clientAuth is missing)' };
  if (notAfter(certificate) < now()) return { error, why: `it expired on ${notAfter(certificate).toISOString()}` };
  return {
    error,
    why: said ?? `it is of another authority (${certificate.issuer.replaceAll('\n', ', ')}), or revoked`,
  };
}

/** Undefined when the registry answers with this pair, or without one. */
async function refusalTo(pair: ClientPair | undefined, { endpoint }: Registry): Promise<PairRefusal | undefined> {
  try {
    const said = denialOf(await ask(endpoint!, { path: '/v2/', pair }));
    return said === undefined ? undefined : { error: 'certificate-denied', said };
  } catch (error) {
    const code = systemCode(error) ?? String(error);
    // A server built on Node closes the connection without a word.
    if (!CERTIFICATE_ALERT.test(code) && code !== 'ECONNRESET') throw error;
    return { error: code.endsWith('CERTIFICATE_REQUIRED') ? 'certificate-required' : 'bad-certificate' };
  }
}
