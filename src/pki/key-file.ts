import { createCipheriv, createPrivateKey, createPublicKey, type KeyObject, pbkdf2, randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { OperatorError } from '../errors.js';
import { encode, integer, nothing, octetString, oid, sequence, toPem } from './der.js';

/** Private keys as files: PKCS#8, in the clear or encrypted by a passphrase. */

/** As OWASP advises for PBKDF2 with SHA-256; OpenSSL's own default of 2048 is what Node would write. */
const ITERATIONS = 600_000;

/** The PEM text of a private key; with a passphrase encrypted (PBES2 of RFC 8018: PBKDF2-HMAC-SHA256, AES-256-CBC). */
export async function encodeKey(key: KeyObject, passphrase?: string): Promise<string> {
  if (passphrase === undefined) return key.export({ type: 'pkcs8', format: 'pem' }) as string;
  checkPassphrase(passphrase);
  const [salt, iv] = [randomBytes(16), randomBytes(16)];
  const secret = await promisify(pbkdf2)(passphrase, salt, ITERATIONS, 32, 'sha256');
  const cipher = createCipheriv('aes-256-cbc', secret, iv);
  const encrypted = Buffer.concat([cipher.update(key.export({ type: 'pkcs8', format: 'der' })), cipher.final()]);
  const derivation = sequence(
    oid('1.2.840.113549.1.5.12'),
    sequence(octetString(salt), integer(ITERATIONS), sequence(oid('1.2.840.113549.2.9'), nothing())),
  );
  const encryption = sequence(oid('2.16.840.1.101.3.4.1.42'), octetString(iv));
  const algorithm = sequence(oid('1.2.840.113549.1.5.13'), sequence(derivation, encryption));
  return toPem('ENCRYPTED PRIVATE KEY', encode(sequence(algorithm, octetString(encrypted))));
}

/** @throws OperatorError for one that nobody can have meant. */
export function checkPassphrase(passphrase: string): void {
  if (passphrase === '')
    throw new OperatorError('the passphrase is empty', { fix: 'give one of several words, or none at all' });
}

/** Whether a PEM file holds a key that a passphrase opens, in PKCS#8 or OpenSSL's older form. */
export function isEncrypted(pem: Buffer): boolean {
  return /-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(pem.toString('latin1'));
}

/**
 * @param passphrase opens an encrypted key; of a key in the clear it is ignored.
 * @throws OperatorError when there is no private key in it, or one that the passphrase does not open.
 */
export function parsePrivateKey(path: string, pem: Buffer, passphrase?: string): KeyObject {
  const encrypted = isEncrypted(pem);
  if (encrypted && passphrase === undefined)
    throw new OperatorError(`${path} is encrypted by a passphrase, which is not supported`, {
      fix: `decrypt it: openssl pkey -in ${basename(path)} -out plain.key`,
    });
  if (!pem.includes('PRIVATE KEY-----'))
    throw new OperatorError(`${path} holds no PEM private key`, {
      fix: 'it has to begin with -----BEGIN PRIVATE KEY----- (from DER: openssl pkey -inform der)',
    });
  try {
    const key = createPrivateKey({ key: pem, ...(encrypted && { passphrase }) });
    createPublicKey(key);
    return key;
  } catch (cause) {
    // The cause stays out of the message: OpenSSL's words say nothing to people.
    if (encrypted)
      throw new OperatorError(`the passphrase does not open ${path}`, { fix: 'give the right one', cause });
    throw new OperatorError(`${path} holds a private key that cannot be read`, { fix: 'replace the file', cause });
  }
}
