import { constants, createPrivateKey, X509Certificate } from 'node:crypto';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { ALL_SUITES, opensslCiphers } from '../config/ciphers.js';
import { OperatorError, systemCode } from '../errors.js';
import { type ClientTrust, verifies } from './client-trust.js';

/** A certificate, with its chain if it has one, and its private key, both PEM. */
export interface KeyPair {
  readonly certificate: string | Buffer;
  readonly key: string | Buffer;
}

export interface TlsSettings extends KeyPair {
  readonly minimumVersion: 'tls1.2' | 'tls1.3';
  /** As in `http.tls.ciphersuites`; default: all that have forward secrecy and authenticated encryption. */
  readonly ciphers?: readonly string[];
  /** Asks clients for a certificate. */
  readonly clients?: ClientTrust;
}

/**
 * Options for `tls.createSecureContext` and `https.Server.setSecureContext`.
 * @throws OperatorError for a pair that cannot serve.
 */
export function secureContextOptions(settings: TlsSettings): SecureContextOptions {
  const options: SecureContextOptions = {
    cert: settings.certificate,
    key: settings.key,
    minVersion: settings.minimumVersion === 'tls1.3' ? 'TLSv1.3' : 'TLSv1.2',
    ciphers: opensslCiphers(settings.ciphers ?? ALL_SUITES),
    honorCipherOrder: true,
    // The two curves that every client sends a share for, so that no handshake needs a second round.
    ecdhCurve: 'X25519:P-256:P-384',
    // Sessions are not resumed: docker never does, tickets cost 5 to 10 % of each full handshake, they weaken forward
    // secrecy, and several processes would have to share their keys.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_COMPRESSION,
    ...(settings.clients && clientOptions(settings.clients)),
  };
  checkPair(settings);
  try {
    createSecureContext(options);
  } catch (error) {
    throw new OperatorError(`the certificate and its private key cannot be used (${reason(error)})`, { cause: error });
  }
  return options;
}

/** Their names are sent along, by which clients choose among their certificates. */
function clientOptions({ mode, authorities, lists }: ClientTrust): SecureContextOptions {
  const ca = authorities.map(authority => authority.toString());
  return verifies(mode) && lists.length > 0 ? { ca, crl: lists.map(list => list.pem) } : { ca };
}

/** OpenSSL alone would take an RSA key for an EC certificate, and no key at all, and then fail every handshake. */
function checkPair({ certificate, key }: KeyPair): void {
  const leaf = read('certificate', () => new X509Certificate(certificate));
  const secret = read('private key', () => createPrivateKey(key));
  if (!leaf.checkPrivateKey(secret)) throw new OperatorError('the private key does not belong to the certificate');
}

function read<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    const encrypted = systemCode(error) === 'ERR_MISSING_PASSPHRASE';
    throw new OperatorError(
      encrypted ? `the ${what} is encrypted` : `the ${what} is not readable PEM (${reason(error)})`,
      {
        ...(encrypted ? { fix: 'decrypt it: openssl pkey -in encrypted.key -out domain.key' } : {}),
        cause: error,
      },
    );
  }
}

function reason(error: unknown): string {
  const { reason, message } = error as { reason?: string; message?: string };
  return reason ?? message ?? String(error);
}
