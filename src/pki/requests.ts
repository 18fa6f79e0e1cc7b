import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { OperatorError } from '../errors.js';
import { checkNames } from './authority.js';
import {
  children,
  content,
  type Der,
  decode,
  encode,
  firstBytes,
  integer,
  isOid,
  oid,
  sequence,
  set,
  tagged,
  tagNumber,
  toPem,
} from './der.js';
import { describeKey, publicKeyInfo } from './keys.js';
import { parseDns, parseIp, unique } from './names.js';
import { DNS_NAME, readName, SUBJECT_ALTERNATIVE_NAME, signed, subjectAlternativeName, subjectName } from './x509.js';

/** Certificate signing requests (PKCS #10, RFC 2986): how a server gets a certificate from a key that it never sees. */

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';

/** Signature algorithms by their identifier, with the hash by node:crypto's name. */
const SIGNATURES: Record<string, string> = {
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
};

/** A request for these canonical names, signed by the key that it is for; PEM. @throws OperatorError for too many names. */
export function signRequest(key: KeyObject, names: readonly string[]): string {
  checkNames(names);
  const extensions = sequence(subjectAlternativeName(names));
  const content = sequence(
    integer(0),
    subjectName('registry-secure server'),
    decode(publicKeyInfo(key)),
    tagged(0, sequence(oid(EXTENSION_REQUEST), set(extensions))),
  );
  return toPem('CERTIFICATE REQUEST', signed(content, key));
}

export interface CertificateRequest {
  readonly publicKey: KeyObject;
  /** Canonical. */
  readonly names: readonly string[];
}

/**
 * Reads a request: its key, proven by its signature, and the names of its subject alternative name, each checked as if it
 * were given by hand. Whatever else it asks for counts for nothing, its common name included.
 * @param path for errors
 * @throws OperatorError for what is no request, is not signed by its own key, or asks for a name or key that no
 * certificate should have.
 */
export function readRequest(path: string, pem: Buffer): CertificateRequest {
  const { publicKey, subjectAlternativeNames } = parse(path, pem);
  const kind = describeKey(publicKey);
  const strong = ['ec-p256', 'ec-p384', 'ec-p521'].includes(kind) || Number(/^rsa-(\d+)$/.exec(kind)?.[1]) >= 2048;
  if (!strong)
    throw new OperatorError(`${path} is for a key of the kind ${kind}, which clients refuse`, {
      fix: 'make one with registry-secure certs csr, or an EC key (P-256) or RSA key (2048 bits or more)',
    });
  return { publicKey, names: requestedNames(path, subjectAlternativeNames) };
}

function requestedNames(path: string, entries: readonly Der[]): string[] {
  if (entries.length === 0)
    throw new OperatorError(`${path} asks for no name: it has no subject alternative name`, {
      fix: 'make it with registry-secure certs csr --ip ADDRESS or --dns NAME',
    });
  const found = entries.flatMap(entry => readName(entry).map(name => ({ name, dns: tagNumber(entry) === DNS_NAME })));
  if (found.length < entries.length)
    throw new OperatorError(`${path} asks for a name that is neither DNS name nor IP address`, {
      fix: 'leave it out: a registry has no other names',
    });
  checkNames(found.map(({ name }) => name));
  try {
    for (const { name, dns } of found) {
      const canonical = dns ? parseDns(name) : parseIp(name);
      if (canonical !== name)
        throw new OperatorError(`the name ${JSON.stringify(name)} is written ${canonical} in certificates`, {
          fix: 'make the request anew with that',
        });
    }
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new OperatorError(`${path}: ${error.message}`, { ...(error.fix && { fix: error.fix }), cause: error });
  }
  return unique(found.map(({ name }) => name));
}

function parse(path: string, pem: Buffer): { publicKey: KeyObject; subjectAlternativeNames: readonly Der[] } {
  const block = /-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([^-]+)-----END (?:NEW )?CERTIFICATE REQUEST-----/g;
  const [base64, another] = [...pem.toString('latin1').matchAll(block)].map(([, text]) => text!);
  if (another !== undefined)
    throw new OperatorError(`${path} holds more than one certificate request`, { fix: 'sign them one by one' });
  if (base64 === undefined)
    throw new OperatorError(`${path} holds no PEM certificate request`, {
      fix: 'it has to begin with -----BEGIN CERTIFICATE REQUEST----- (from DER: openssl req -inform der)',
    });
  let unsigned: { publicKey: KeyObject; valid: boolean; subjectAlternativeNames: readonly Der[] } | undefined;
  try {
    unsigned = verified(Buffer.from(base64, 'base64'));
  } catch (cause) {
    throw new OperatorError(`${path} holds a certificate request that cannot be read`, {
      fix: 'make it anew: registry-secure certs csr',
      cause,
    });
  }
  if (!unsigned.valid)
    throw new OperatorError(`${path} is not signed by the key that it is for, with SHA-256 or better`, {
      fix: 'make it anew, where the key is: registry-secure certs csr',
    });
  return unsigned;
}

function verified(der: Buffer) {
  const body = firstBytes(der);
  const [, algorithm, signature] = children(decode(der));
  const fields = children(decode(body));
  const publicKey = createPublicKey({ key: encode(fields[2]!), format: 'der', type: 'spki' });
  const [, hash] = Object.entries(SIGNATURES).find(([id]) => isOid(children(algorithm)[0], id)) ?? [];
  const attributes = children(fields.find(field => tagNumber(field) === 0));
  const request = attributes.find(attribute => isOid(children(attribute)[0], EXTENSION_REQUEST));
  const extensions = children(children(children(request)[1])[0]);
  const san = extensions.find(extension => isOid(children(extension)[0], SUBJECT_ALTERNATIVE_NAME));
  return {
    publicKey,
    // The first byte of a bit string counts its unused bits.
    valid: hash !== undefined && verify(hash, body, publicKey, content(signature).subarray(1)),
    subjectAlternativeNames: san ? children(decode(content(children(san).at(-1)))) : [],
  };
}
