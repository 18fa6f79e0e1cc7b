import type { KeyObject, X509Certificate } from 'node:crypto';
import { lstat, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { OperatorError, systemCode } from '../errors.js';
import { checkChain } from './check.js';
import { parsePrivateKey } from './key-file.js';
import { sameKey } from './keys.js';
import { certificateFields, notAfter, notBefore, readPemCertificates } from './x509.js';

const DAY = 24 * 3_600_000;

export interface PemFiles {
  readonly certificate: string;
  readonly key: string;
}

/** A certificate with its private key, checked to belong together. */
export interface KeyPair {
  /** The whole file: the certificate and what follows it. */
  readonly certificatePem: Buffer;
  readonly keyPem: Buffer;
  /** As in the file: the server's own first. */
  readonly chain: readonly [X509Certificate, ...X509Certificate[]];
  readonly key: KeyObject;
}

/** What a server needs to serve TLS, and to say about it. */
export interface ServerPair {
  readonly certificate: Buffer;
  readonly key: Buffer;
  readonly names: readonly string[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** SHA-256 of the certificate, as `AB:CD:…`. */
  readonly fingerprint: string;
  readonly warnings: readonly string[];
}

/**
 * Reads a certificate and its key and checks everything that would break all clients: meant to be called before serving
 * and again whenever the files change.
 * @throws OperatorError for files that cannot be read, are no PEM, do not belong together or are out of date, and for a
 * key of our own making that others can read.
 */
export async function loadServerPair(files: PemFiles, now = new Date()): Promise<ServerPair> {
  const pair = await readKeyPair(files).catch(async error => {
    if (!(error instanceof MismatchError)) throw error;
    // Two files cannot be replaced in one instant: somebody may be between the two just now.
    await pause(200);
    return readKeyPair(files);
  });
  const [leaf] = pair.chain;
  checkDates(files.certificate, leaf, now);
  checkUsable(files, pair);
  checkPurpose(files.certificate, pair.chain, now);
  const names = certificateFields(leaf).names;
  const exposed = await exposedKey(files.key);
  if (exposed && (await isOurs(files.key))) throw exposed;
  return {
    certificate: pair.certificatePem,
    key: pair.keyPem,
    names,
    notBefore: notBefore(leaf),
    notAfter: notAfter(leaf),
    fingerprint: leaf.fingerprint256,
    warnings: [
      ...(exposed ? [`${exposed.message}; ${exposed.fix}`] : []),
      ...certificateWarnings(files.certificate, pair.chain, now),
    ],
  };
}

/** What is not wrong enough to refuse a server certificate: it ends soon, or some client does not take it. */
export function certificateWarnings(path: string, chain: KeyPair['chain'], now = new Date()): string[] {
  const end = notAfter(chain[0]);
  const left = Math.floor((end.getTime() - now.getTime()) / DAY);
  return [
    ...(end >= now && left < 30 ? [`${path} expires in ${left} days, on ${end.toISOString()}`] : []),
    ...checkChain(chain, { now }).map(({ message, fix }) => `${path}: ${message}; ${fix}`),
  ];
}

class MismatchError extends OperatorError {}

/**
 * @param passphrase opens an encrypted key.
 * @throws OperatorError for files that cannot be read, are no PEM, or do not belong together.
 */
export async function readKeyPair(files: PemFiles, passphrase?: string): Promise<KeyPair> {
  const [certificatePem, keyPem] = await Promise.all([readPem(files.certificate), readPem(files.key)]);
  const chain = parseCertificates(files.certificate, certificatePem);
  const key = parsePrivateKey(files.key, keyPem, passphrase);
  if (sameKey(chain[0].publicKey, key)) return { certificatePem, keyPem, chain, key };
  if (chain.some(certificate => sameKey(certificate.publicKey, key)))
    throw new OperatorError(`the server's own certificate is not the first one in ${files.certificate}`, {
      fix: 'put it first, the authority that signed it after it',
    });
  throw new MismatchError(`${files.key} does not belong to ${files.certificate}`, {
    fix: 'put the key there that the certificate was made for',
  });
}

/** @throws OperatorError when there is no PEM certificate in it. */
export function parseCertificates(path: string, pem: Buffer): [X509Certificate, ...X509Certificate[]] {
  try {
    const [first, ...more] = readPemCertificates(pem.toString('latin1'));
    if (first) return [first, ...more];
  } catch (cause) {
    throw new OperatorError(`${path} holds a certificate that cannot be read`, { fix: 'replace the file', cause });
  }
  throw new OperatorError(`${path} holds no PEM certificate`, {
    fix: 'it has to begin with -----BEGIN CERTIFICATE----- (from DER: openssl x509 -inform der)',
  });
}

/** The bytes of a small file. @throws OperatorError when it is missing, unreadable or no file. */
export async function readPem(path: string): Promise<Buffer> {
  try {
    const file = await open(path, 'r');
    try {
      const stats = await file.stat();
      if (!stats.isFile() || stats.size > 1024 * 1024)
        throw new OperatorError(`${path} is no PEM file`, {
          fix: stats.isDirectory() ? 'give the path of a file, not of a folder' : 'give another path',
        });
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const code = systemCode(error);
    if (code === 'ENOENT') throw new OperatorError(`${path} does not exist`, { fix: 'check the path', cause: error });
    if (code === 'EACCES' || code === 'EPERM')
      throw new OperatorError(`${path} may not be read by this user`, {
        fix: `run as its owner, or make it readable: sudo chown "$(id -u)" ${path}`,
        cause: error,
      });
    throw new OperatorError(`${path} cannot be read (${code ?? error})`, { cause: error });
  }
}

export function checkDates(path: string, certificate: X509Certificate, now: Date): void {
  const [start, end] = [notBefore(certificate), notAfter(certificate)];
  if (now > end)
    throw new OperatorError(`${path} expired on ${end.toISOString()}; the clock says ${now.toISOString()}`, {
      fix: 'renew it (our own: registry-secure certs renew), or correct the clock',
    });
  if (now < start)
    throw new OperatorError(`${path} is not valid before ${start.toISOString()}; the clock says ${now.toISOString()}`, {
      fix: 'correct the clock, or replace the certificate',
    });
}

/** Of all that `checkChain` finds, only this (and the dates) makes every client that looks at all refuse it. */
function checkPurpose(path: string, chain: KeyPair['chain'], now: Date): void {
  const found = checkChain(chain, { now }).find(
    ({ code, severity }) => code === 'no-server-auth' && severity === 'error',
  );
  if (found) throw new OperatorError(`${path}: ${found.message}`, { fix: found.fix });
}

/** OpenSSL has a last word about both, such as no keys that are too small. */
export function checkUsable(
  files: PemFiles,
  { certificatePem, keyPem }: Pick<KeyPair, 'certificatePem' | 'keyPem'>,
): void {
  try {
    createSecureContext({ cert: certificatePem, key: keyPem });
  } catch (cause) {
    const { reason, message } = cause as { reason?: string; message: string };
    throw new OperatorError(`${files.certificate} is not fit for TLS: ${reason ?? message}`, {
      fix: 'replace it and its key by stronger ones, such as those of registry-secure init-certs',
      cause,
    });
  }
}

/** What is wrong with the mode of a private key, if anything. Windows has no such modes. */
export async function exposedKey(path: string): Promise<OperatorError | undefined> {
  if (process.platform === 'win32') return undefined;
  const file = await open(path, 'r');
  const { mode } = await file.stat().finally(() => file.close());
  if ((mode & 0o077) === 0) return undefined;
  return new OperatorError(`${path} can be read by others (mode ${(mode & 0o777).toString(8).padStart(4, '0')})`, {
    fix: `chmod 600 ${path}`,
  });
}

/** A key beside our authority's key is of our own making; a link (as Kubernetes mounts secrets) or a mount is not. */
async function isOurs(key: string): Promise<boolean> {
  const authority = await lstat(join(dirname(key), 'ca.key')).catch(() => undefined);
  return authority?.isFile() === true && (await lstat(key)).isFile();
}
