import { createHash, type X509Certificate } from 'node:crypto';
import { request } from 'node:https';
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { OperatorError, systemCode } from '../errors.js';
import { parseImageHost } from '../pki/names.js';
import { notAfter, readPemCertificates } from '../pki/x509.js';

/** How long a registry may take to hand out its file, or to shake hands (ms). */
const PATIENCE = 15_000;
/** No file of authorities is larger (bytes). */
const LARGEST = 64 * 1024;

const BY_HAND = 'copy the file from the server, and give it with --ca FILE';

/** A private key and its certificate, by which a client shows who it is. */
export interface Pair {
  readonly certificate: Buffer;
  readonly key: Buffer;
}

/**
 * The file that a registry hands out to those who do not trust it yet. Nothing has vouched for it: see `pinned`.
 * @throws OperatorError when there is none to be had, or it is none.
 */
export async function fetchAuthorities(host: string, pair?: Pair, patience = PATIENCE): Promise<string> {
  const { hostname, port } = addressOf(host);
  const url = `https://${host}/ca.crt`;
  const body = await new Promise<string>((resolve, reject) => {
    const fail = (cause: unknown) => reject(explained(host, cause));
    const asked = request({
      host: hostname,
      port,
      path: '/ca.crt',
      agent: false,
      // Not verified: it is the fingerprint that counts.
      rejectUnauthorized: false,
      signal: AbortSignal.timeout(patience),
      headers: { Accept: 'application/x-pem-file, application/x-x509-ca-cert, */*' },
      ...(pair && { cert: pair.certificate, key: pair.key }),
    });
    asked.once('error', fail);
    asked.once('response', response => {
      if (response.statusCode !== 200) {
        asked.destroy();
        reject(
          new OperatorError(`${url} answers with ${response.statusCode}: it has no authority to hand out`, {
            fix: `it may be another registry, or one whose certificate a public authority signed; ${BY_HAND}`,
          }),
        );
        return;
      }
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        chunks.push(chunk);
        if (size <= LARGEST) return;
        asked.destroy();
        reject(new OperatorError(`${url} is larger than ${LARGEST / 1024} KiB`, { fix: BY_HAND }));
      });
      response.once('error', fail);
      response.once('end', () => resolve(Buffer.concat(chunks).toString('latin1')));
    });
    asked.end();
  });
  return body;
}

/** Why the registry could not be reached, in words, and what to do about it. */
function explained(host: string, cause: unknown): OperatorError {
  const error = (what: string, fix: string) => new OperatorError(`${host} ${what}`, { fix, cause });
  const code = systemCode(cause) ?? '';
  if ((cause as Error).name === 'TimeoutError' || (cause as Error).name === 'AbortError' || code === 'ABORT_ERR')
    return error(
      `does not answer within ${PATIENCE / 1000} s`,
      'see whether a firewall is in between, and whether the port is right',
    );
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return error(`cannot be found (${code})`, 'check its spelling, and that this machine can resolve it');
  if (code === 'ECONNREFUSED')
    return error('refuses the connection', 'see whether the registry runs, and on which port');
  if (
    code === 'EPROTO' ||
    code === 'ERR_SSL_WRONG_VERSION_NUMBER' ||
    code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG' ||
    code === 'HPE_INVALID_CONSTANT'
  )
    return error('does not speak TLS: plain HTTP, most likely', 'start the registry with TLS, or check the port');
  if (/ALERT.*CERTIFICATE/.test(code))
    return error('asks for a client certificate', 'give one with --client-cert and --client-key');
  return error(`cannot be reached: ${(cause as Error).message || code}`, BY_HAND);
}

/** Of HOST[:PORT] as it stands in image references. @throws OperatorError */
export function addressOf(host: string): { hostname: string; port: number } {
  const port = /:(\d+)$/.exec(host.replace(/^\[.*\]/, ''))?.[1];
  return { hostname: parseImageHost(host).host, port: port === undefined ? 443 : Number(port) };
}

/** A SHA-256 in the one form that this module compares. @throws OperatorError for what is none. */
export function parseFingerprint(text: string): string {
  const hex = text
    .replace(/^sha-?256[:= ]*/i, '')
    .replaceAll(/[:\s]/g, '')
    .toLowerCase();
  if (/^[0-9a-f]{64}$/.test(hex)) return hex;
  throw new OperatorError(`${JSON.stringify(text)} is no SHA-256`, {
    fix: 'give the 64 hexadecimal digits that registry-secure trust shows on the server, with or without colons',
  });
}

const fileFingerprint = (pem: string): string => createHash('sha256').update(pem, 'latin1').digest('hex');

const fingerprint = (certificate: X509Certificate): string =>
  certificate.fingerprint256.replaceAll(':', '').toLowerCase();

/**
 * The certificates of a file in which every one is vouched for: by the SHA-256 of the whole file, or by its own. What else
 * the file holds is not vouched for, and must not go to anybody who might read it: OpenSSL's `TRUSTED CERTIFICATE`, say.
 * @param source names the file in errors.
 * @throws OperatorError when it holds none, one that is out of date, or one that nobody vouches for.
 */
export function pinned(pem: string, pins: readonly string[], source: string, now = new Date()): X509Certificate[] {
  let certificates: X509Certificate[];
  try {
    certificates = readPemCertificates(pem);
  } catch (cause) {
    throw new OperatorError(`${source} holds a certificate that cannot be read`, { fix: BY_HAND, cause });
  }
  if (certificates.length === 0) throw new OperatorError(`${source} holds no PEM certificate`, { fix: BY_HAND });
  const unknown = pins.includes(fileFingerprint(pem))
    ? []
    : certificates.filter(certificate => !pins.includes(fingerprint(certificate)));
  if (unknown.length > 0)
    throw new OperatorError(
      `${source} is not what the fingerprint says, and nothing was installed: expected SHA-256 ${pins.join(', ')}; the file has ${fileFingerprint(pem)}, and the ${unknown.length === 1 ? 'certificate' : 'certificates'} in it ${unknown.map(fingerprint).join(', ')}`,
      {
        fix: 'compare with what registry-secure trust shows on the server; if that is different, somebody is in between',
      },
    );
  const expired = certificates.find(certificate => notAfter(certificate) < now);
  if (expired)
    throw new OperatorError(
      `${source} expired on ${notAfter(expired).toISOString()}; the clock says ${now.toISOString()}`,
      { fix: 'correct the clock, or get the registry a new authority' },
    );
  return certificates;
}

/**
 * Proves that a client which trusts just these certificates reaches the registry by this name.
 * @returns until when the server's certificate is good.
 * @throws OperatorError that says why it would not.
 */
export async function proveHandshake(host: string, pem: string, pair?: Pair): Promise<Date> {
  const { hostname, port } = addressOf(host);
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: hostname,
      port,
      ca: pem,
      // An address is never sent as a name (RFC 6066 section 3), and is checked all the same.
      ...(isIP(hostname) === 0 && { servername: hostname }),
      ...(pair && { cert: pair.certificate, key: pair.key }),
    });
    socket.setTimeout(PATIENCE, () => socket.destroy(Object.assign(new Error('time-out'), { name: 'TimeoutError' })));
    socket.once('secureConnect', () => {
      resolve(new Date(socket.getPeerCertificate().valid_to));
      socket.destroy();
    });
    socket.once('error', cause => reject(mistrust(host, cause)));
  });
}

/** Why a connection to the registry was not made, or not trusted, in words, and what to do about it. */
export function mistrust(host: string, cause: Error & { code?: string; reason?: string }): OperatorError {
  const error = (what: string, fix: string) => new OperatorError(what, { fix, cause });
  switch (cause.code) {
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return error(
        `the certificate of ${host} is not good for that name (${cause.reason ?? cause.message})`,
        'use a name that it has, or reissue it on the server: registry-secure init-certs with --ip or --dns',
      );
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
      return error(
        `the certificate of ${host} is not valid now; the clock says ${new Date().toISOString()}`,
        'correct the clock, or renew the certificate on the server',
      );
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return error(
        `the certificate of ${host} was not signed by this authority`,
        'take the ca.crt that lies beside the certificate of the server',
      );
    default:
      return explained(host, cause);
  }
}

/** A proxy of the environment that docker would use for this host, and that nothing here uses. */
export function ignoredProxy(env: Readonly<Record<string, string | undefined>>): string | undefined {
  return ['https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY'].find(name => (env[name] ?? '') !== '');
}
