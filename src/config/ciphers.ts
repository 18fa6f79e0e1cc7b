import { OperatorError } from '../errors.js';
import { nearest } from './values.js';

/**
 * The cipher suites that may be offered: authenticated encryption with forward secrecy only, in the order of preference.
 * By their IANA names (as Distribution writes them), each with OpenSSL's.
 */
const SUITES: Readonly<Record<string, string>> = {
  TLS_AES_128_GCM_SHA256: 'TLS_AES_128_GCM_SHA256',
  TLS_AES_256_GCM_SHA384: 'TLS_AES_256_GCM_SHA384',
  TLS_CHACHA20_POLY1305_SHA256: 'TLS_CHACHA20_POLY1305_SHA256',
  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: 'ECDHE-ECDSA-AES128-GCM-SHA256',
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: 'ECDHE-RSA-AES128-GCM-SHA256',
  TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: 'ECDHE-ECDSA-AES256-GCM-SHA384',
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: 'ECDHE-RSA-AES256-GCM-SHA384',
  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: 'ECDHE-ECDSA-CHACHA20-POLY1305',
  TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: 'ECDHE-RSA-CHACHA20-POLY1305',
};

export const ALL_SUITES: readonly string[] = Object.keys(SUITES);

/** The IANA name itself. @throws OperatorError for a suite that is unknown, or known and too weak. */
export function parseSuite(name: string): string {
  if (Object.hasOwn(SUITES, name)) return name;
  const weak = /^TLS_.*(_CBC_|_RC4_|3DES)|^TLS_RSA_/.test(name);
  throw new OperatorError(
    weak ? `${name} lacks forward secrecy or authenticated encryption` : `${JSON.stringify(name)} is no cipher suite`,
    { fix: weak ? 'remove it from the list' : `did you mean ${nearest(name, ALL_SUITES) ?? ALL_SUITES[0]}?` },
  );
}

/** The suites as the `ciphers` option of node:tls takes them. */
export function opensslCiphers(suites: readonly string[]): string {
  return suites.map(name => SUITES[name]!).join(':');
}
