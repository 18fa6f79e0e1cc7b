import { type KeyObject, randomBytes, X509Certificate } from 'node:crypto';
import { hostname } from 'node:os';
import { OperatorError } from '../errors.js';
import {
  type Authority,
  authorityCertificate,
  DEFAULT_CA_DAYS,
  DEFAULT_DAYS,
  permits,
  serverCertificate,
} from './authority.js';
import { toPem } from './der.js';
import type { CertificateFolder } from './folder.js';
import { describeKey, generateKey, KEY_KINDS, type KeyKind } from './keys.js';
import type { Rotation } from './rotation-files.js';
import { certificateFields, type NameConstraints } from './x509.js';

/** Makes new authorities and server certificates; nothing here writes a file. */

export interface IssueOptions {
  /** For keys that are made now; by default the kind that the server has, else `ec-p256`. */
  readonly keyKind?: KeyKind | undefined;
  /** Life of a server certificate that is issued now, at most 825. */
  readonly days?: number | undefined;
  readonly now?: Date | undefined;
}

/** How the common names of our authorities begin. */
export const AUTHORITY_NAME = 'registry-secure CA';

/** PEM of a certificate, with what has to follow it, and its key. */
export interface IssuedPair {
  readonly certificate: string;
  readonly key: string;
}

export async function newAuthority(options: {
  readonly keyKind: KeyKind;
  readonly days?: number | undefined;
  readonly constraints: NameConstraints | undefined;
  readonly now?: Date | undefined;
}): Promise<Authority> {
  const key = await generateKey(options.keyKind);
  const certificate = authorityCertificate({
    key,
    // The random part tells authorities apart that were made on one machine: clients look an issuer up by its name.
    commonName: `${AUTHORITY_NAME} ${hostname().slice(0, 32)} ${randomBytes(4).toString('hex')}`,
    days: options.days ?? DEFAULT_CA_DAYS,
    constraints: options.constraints,
    ...(options.now && { now: options.now }),
  });
  return { certificate: new X509Certificate(certificate), key };
}

/** The kind of key for what takes the place of a certificate. */
export function keyKindLike(key: KeyObject | undefined, wanted: KeyKind | undefined): KeyKind {
  const before = key && describeKey(key);
  return wanted ?? KEY_KINDS.find(known => known === before) ?? 'ec-p256';
}

/** A server certificate with a new key. @throws OperatorError */
export async function issueServer(
  folder: Pick<CertificateFolder, 'server' | 'rotation'>,
  authority: Authority,
  names: readonly string[],
  options: IssueOptions,
): Promise<IssuedPair> {
  const key = await generateKey(keyKindLike(folder.server?.key, options.keyKind));
  return {
    certificate: certify(folder, authority, key, names, options),
    key: key.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
}

/** A server certificate for this key, as PEM. During a rotation the cross certificate follows it. @throws OperatorError */
export function certify(
  { rotation }: Pick<CertificateFolder, 'rotation'>,
  authority: Authority,
  key: KeyObject,
  names: readonly string[],
  { days = DEFAULT_DAYS, now }: IssueOptions,
): string {
  checkOverlap(rotation, names);
  const leaf = serverCertificate({ authority, key, names, days, ...(now && { now }) });
  return leaf + (rotation ? certificatePem(rotation.cross) : '');
}

/** @throws OperatorError for a name with which clients that know only the older authority would refuse all the rest. */
function checkOverlap(rotation: Rotation | undefined, names: readonly string[]): void {
  const outside = names.filter(name => !permitsDuring(rotation, name));
  if (rotation && outside.length > 0)
    throw new OperatorError(
      `${outside.join(', ')} cannot be in the certificate before the rotation ends on ${rotation.until.toISOString()}: clients that have only the older authority would refuse all of it`,
      { fix: 'wait, or end it now: registry-secure certs rotate-ca --finish; then ask for the name again' },
    );
}

/** Whether clients that know only the older authority accept the name. */
export function permitsDuring(rotation: Rotation | undefined, name: string): boolean {
  const constraints = rotation?.retiring && certificateFields(rotation.retiring).nameConstraints;
  return !constraints || permits(constraints, name);
}

/** One block of PEM, as this program writes them all. */
export const certificatePem = (certificate: X509Certificate): string => toPem('CERTIFICATE', certificate.raw);
