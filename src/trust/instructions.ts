import { createHash, type X509Certificate } from 'node:crypto';
import { basename } from 'node:path';
import { OperatorError } from '../errors.js';
import { parseImageHost } from '../pki/names.js';
import { readPemCertificates } from '../pki/x509.js';
import type { System, Target, TrustClient } from './client.js';
import { runsOn } from './places.js';
import { shellOf } from './shell.js';
import { clientsNamed, USUAL_CLIENTS } from './table.js';

/** What to do on one kind of client. Commands are complete: pasted into a shell, they do it. */
export interface ClientInstructions {
  readonly client: string;
  readonly title: string;
  readonly system: System;
  readonly commands: readonly string[];
  readonly undo: readonly string[];
  /** A sentence; with its command, where one is always right. */
  readonly restart: string;
  readonly notes: readonly string[];
  /**
   * The same in one line for a client that has nothing yet: it fetches the file without trust, goes on only if its SHA-256
   * is the one in the line, and then does what `commands` do.
   */
  readonly line: string;
  /** Whether a test executes the commands and has the real client trust the registry. */
  readonly proven: boolean;
}

export interface TrustInstructions {
  /** HOST[:PORT] as it stands in image references. */
  readonly host: string;
  readonly caFile: string;
  /** Where clients find that file. */
  readonly url: string;
  /** SHA-256 of the whole file, as sha256sum shows it. */
  readonly sha256: string;
  /** SHA-256 of each certificate in it, as `AB:CD:…`. */
  readonly fingerprints: readonly string[];
  readonly clients: readonly ClientInstructions[];
}

export interface TrustOptions {
  readonly host: string;
  /** Where the file to install lies on this machine, and what is in it: one authority, or two during a rotation. */
  readonly caFile: string;
  readonly pem: string;
  /** Kinds of clients; all but the unsafe ones unless some are named. */
  readonly clients?: readonly string[] | undefined;
  /** Files of a client certificate, on the client. */
  readonly pair?: { readonly certificate: string; readonly key: string } | undefined;
  /** What stands before the registry's paths (`http.prefix`). */
  readonly prefix?: string | undefined;
  /** Of the container that writes files on the nodes of a cluster. */
  readonly image?: string | undefined;
}

export const DEFAULT_IMAGE = 'docker.io/library/busybox:1.37';

/**
 * The instructions for the named kinds of client, or for all. Clients of another operating system find the file by its
 * bare name in their working directory.
 * @throws OperatorError for a host that no image reference can hold, or an unknown kind of client.
 */
export function trustInstructions(options: TrustOptions): TrustInstructions {
  const { pem, caFile, pair, image = DEFAULT_IMAGE } = options;
  const host = registryHost(options.host);
  const certificates = readPemCertificates(pem);
  const url = `https://${host}${options.prefix ?? ''}/ca.crt`;
  const sha256 = createHash('sha256').update(pem).digest('hex');
  const subject: Subject = { host, url, sha256, pem, caFile, pair, image, ids: certificates.map(authorityId) };
  const clients = options.clients ? clientsNamed(options.clients) : USUAL_CLIENTS;
  return {
    host,
    caFile,
    url,
    sha256,
    fingerprints: certificates.map(({ fingerprint256 }) => fingerprint256),
    clients: clients.map(client => instructionsFor(client, subject)),
  };
}

/** HOST[:PORT] in the one form that image references have. @throws OperatorError for what can stand in none. */
export function registryHost(text: string): string {
  const { host, imageHost } = parseImageHost(text);
  if (!host.startsWith('*')) return imageHost;
  throw new OperatorError(`${JSON.stringify(text)} is no registry host`, {
    fix: 'give one of the names that the wildcard stands for',
  });
}

/** What an authority's file is called in stores where it lies among others. */
export function authorityId({ fingerprint256 }: Pick<X509Certificate, 'fingerprint256'>): string {
  return `registry-secure-${fingerprint256.replaceAll(':', '').slice(0, 16).toLowerCase()}`;
}

/** What instructions are about: one registry, and the file that its clients install. */
export interface Subject {
  readonly host: string;
  readonly url: string;
  readonly sha256: string;
  readonly pem: string;
  readonly caFile: string;
  /** `authorityId` of each certificate in the file, in its order. */
  readonly ids: readonly string[];
  readonly pair: TrustOptions['pair'];
  readonly image: string;
}

export function instructionsFor(client: TrustClient, subject: Subject): ClientInstructions {
  const { quoted, commands, undo } = shellOf(client.system);
  const here = runsOn(client, process.platform);
  const path = (name: string) => quoted(here ? name : basename(name));
  const target = targetOf(subject, path(subject.caFile), path);
  const steps = client.steps(target);
  const files = steps.filter(step => !('run' in step));
  const runs = steps.filter(step => 'run' in step);
  return {
    client: client.name,
    title: client.title,
    system: client.system,
    commands: [...parts(client, subject, target.ca), ...steps.flatMap(step => commands(step, false))],
    // Commands last: those of a store look at the files that are left.
    undo: [...files.reverse(), ...runs.reverse()].flatMap(undo),
    restart: client.restartBy === undefined ? client.restart : `${client.restart}: ${client.restartBy}`,
    notes: client.notes?.(target) ?? [],
    line: inOneLine(client, subject),
    proven: client.proven === true,
  };
}

function targetOf(subject: Subject, ca: string, path: (name: string) => string): Target {
  const { host, ids, pem, pair, image } = subject;
  return {
    host,
    ca,
    pem: pem.endsWith('\n') ? pem : `${pem}\n`,
    authorities: ids.map(id => ({ id, file: ids.length === 1 ? ca : `${id}.crt` })),
    pair: pair && { certificate: path(pair.certificate), key: path(pair.key) },
    image,
  };
}

/** Where a client takes one certificate a file, a bundle is cut first. */
function parts(client: TrustClient, { ids }: Subject, from: string): string[] {
  if (!client.perAuthority || ids.length === 1) return [];
  const { part } = shellOf(client.system);
  return ids.map((id, position) => part(from, position, `${id}.crt`));
}

function inOneLine(client: TrustClient, subject: Subject): string {
  const { quoted, commands } = shellOf(client.system);
  const { url, sha256 } = subject;
  const beside = (name: string) => (client.keepsFile ? quoted(basename(name)) : `"$OLDPWD"/${quoted(basename(name))}`);
  const steps = client.steps(targetOf(subject, 'ca.crt', beside));
  const install = [...parts(client, subject, 'ca.crt'), ...steps.flatMap(step => commands(step, true))];
  if (client.system === 'windows')
    return [
      `curl.exe -fsSk -o ca.crt ${quoted(url)}`,
      `if ((Get-FileHash ca.crt -Algorithm SHA256).Hash -ne '${sha256}') { throw 'ca.crt is not the right one' }`,
      ...install,
    ].join('; ');
  const check = `${client.system === 'linux' ? 'sha256sum' : '$(command -v sha256sum || echo shasum -a 256)'} -c -`;
  const fetch = (to: string) => [`curl -fsSk -o ${to} ${quoted(url)}`, `echo '${sha256}  ${to}' | ${check}`];
  if (client.keepsFile) return [...fetch('ca.crt.new'), 'mv ca.crt.new ca.crt', ...install].join(' && ');
  // In a folder of its own, which the shell has left when the line is done.
  return `(cd "$(mktemp -d)" && ${[...fetch('ca.crt'), ...install].join(' && ')})`;
}

/** The instructions as text that a POSIX shell takes as it is: all but the commands are comments. */
export function renderTrust({ clients }: TrustInstructions): string {
  return clients
    .map(({ title, commands, undo, restart, notes }) =>
      [
        `# ${title}:`,
        ...commands,
        ...[restart, ...notes].map(line => `#   ${line}`),
        ...undo.flatMap(command => command.split('\n')).map(line => `#   undo: ${line}`),
      ].join('\n'),
    )
    .join('\n\n')
    .concat('\n');
}
