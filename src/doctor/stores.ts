import { X509Certificate } from 'node:crypto';
import { accessSync, constants, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { systemCode } from '../errors.js';
import type { Surroundings } from '../trust/places.js';

/** Where Go's programs, which most container clients are, find the authorities of the system: the first one counts. */
const SYSTEM_STORES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** The authorities that the whole system trusts; `path` is undefined where they are not in a file. */
export function systemStore({ root, env }: Surroundings): { path: string | undefined; authorities: X509Certificate[] } {
  const candidates = env.SSL_CERT_FILE ? [env.SSL_CERT_FILE] : SYSTEM_STORES.map(path => join(root, path));
  for (const path of candidates) {
    const text = textOf(path);
    if (typeof text === 'string') return { path, authorities: authoritiesIn(text) };
  }
  return { path: undefined, authorities: rootCertificates.map(pem => new X509Certificate(pem)) };
}

/** All certificates in a PEM file that can be read: a store may hold some that cannot. */
function authoritiesIn(text: string): X509Certificate[] {
  return (text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).flatMap(block => {
    try {
      return [new X509Certificate(block)];
    } catch {
      return [];
    }
  });
}

/** The certificates in a PEM file; none where it cannot be read. */
export function readCertificates(path: string): X509Certificate[] {
  const text = textOf(path);
  return typeof text === 'string' ? authoritiesIn(text) : [];
}

/** The text of a small file, or the system's code for why it cannot be had. */
export function textOf(path: string): string | { readonly code: string } {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    return { code: systemCode(error) ?? String(error) };
  }
}

export const isThere = (path: string): boolean => {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
};

/** The names in a folder; none where there is no such folder, undefined where it may not be read. */
export function namesIn(folder: string): string[] | undefined {
  try {
    accessSync(folder, constants.X_OK);
    return readdirSync(folder).sort();
  } catch (error) {
    return systemCode(error) === 'EACCES' ? undefined : [];
  }
}

/** What a client finds in the folder that is named after a registry. */
export interface CertificateFolder {
  readonly path: string;
  /** May not be read by this user. */
  readonly unreadable: readonly string[];
  /** Of all files that end in .crt. */
  readonly authorities: ReadonlyArray<{ readonly file: string; readonly certificate: X509Certificate }>;
  /** Files that hold no certificate though their name says so. */
  readonly broken: readonly string[];
  /** Files that hold one, and whose name keeps the client from looking. */
  readonly misnamed: readonly string[];
  /** NAME.cert with NAME.key. */
  readonly pairs: ReadonlyArray<{ readonly certificate: string; readonly key: string }>;
  readonly certificatesWithoutKey: readonly string[];
  readonly keysWithoutCertificate: readonly string[];
}

export function readCertificateFolder(path: string): CertificateFolder {
  const names = namesIn(path);
  const at = (name: string) => join(path, name);
  const texts = (names ?? []).map(name => ({ name, text: textOf(at(name)) }));
  const crts = texts.filter(({ name }) => name.endsWith('.crt'));
  const parsed = crts.map(({ name, text }) => ({
    file: at(name),
    certificates: typeof text === 'string' ? authoritiesIn(text) : [],
  }));
  const has = (name: string) => names?.includes(name) ?? false;
  const ending = (end: string, other: string, paired: boolean) =>
    (names ?? []).filter(name => name.endsWith(end) && has(basename(name, end) + other) === paired);
  return {
    path,
    unreadable: [
      ...(names === undefined ? [path] : []),
      ...texts.filter(({ text }) => typeof text !== 'string' && text.code === 'EACCES').map(({ name }) => at(name)),
    ],
    authorities: parsed.flatMap(({ file, certificates }) => certificates.map(certificate => ({ file, certificate }))),
    broken: crts
      .filter(({ text }, index) => typeof text === 'string' && parsed[index]!.certificates.length === 0)
      .map(({ name }) => at(name)),
    misnamed: texts
      .filter(
        ({ name, text }) =>
          !/\.(crt|cert|key)$/.test(name) && typeof text === 'string' && authoritiesIn(text).length > 0,
      )
      .map(({ name }) => at(name)),
    pairs: ending('.cert', '.key', true).map(name => ({
      certificate: at(name),
      key: at(`${basename(name, '.cert')}.key`),
    })),
    certificatesWithoutKey: ending('.cert', '.key', false).map(at),
    keysWithoutCertificate: ending('.key', '.cert', false).map(at),
  };
}
