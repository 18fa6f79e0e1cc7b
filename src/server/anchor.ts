import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { OperatorError } from '../errors.js';
import { readTrustAnchor } from '../pki/certificates.js';
import { readPem } from '../pki/inspect.js';
import { readPemCertificates } from '../pki/x509.js';
import type { Anchor } from '../ui/trust-pages.js';

/** No two looks at the files are nearer to each other (ms). */
const INTERVAL = 500;

/**
 * What clients of this server certificate install, as its file is now. What was read last stays in force while the files
 * cannot be read, as when somebody is replacing them. Undefined over plain HTTP, and where a third party signed.
 */
export async function followAnchor(certificate: string | undefined): Promise<() => Promise<Anchor | undefined>> {
  if (certificate === undefined) return async () => undefined;
  const files = [certificate, join(dirname(certificate), 'ca.crt')];
  let known: Anchor | undefined;
  let state: string | undefined;
  let looked = Number.NEGATIVE_INFINITY;
  const look = async () => {
    const now = (await Promise.all(files.map(fingerprint))).join();
    if (now === state) return;
    try {
      const { names, pem } = await readTrustAnchor(certificate);
      known = { names, pem };
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      if (!(await stillServes(certificate, known))) known = undefined;
    }
    state = now;
  };
  await look();
  return async () => {
    if (performance.now() - looked < INTERVAL) return known;
    looked = performance.now();
    await look();
    return known;
  };
}

/** Whether the certificate, where it can be read at all, is one that these authorities have signed. */
async function stillServes(certificate: string, anchor: Anchor | undefined): Promise<boolean> {
  const pem = await readPem(certificate).catch(() => undefined);
  const [leaf] = pem ? readPemCertificates(pem.toString('latin1')) : [];
  const authorities = anchor ? readPemCertificates(anchor.pem) : [];
  return !leaf || authorities.some(authority => leaf.checkIssued(authority) && leaf.verify(authority.publicKey));
}

async function fingerprint(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found === undefined ? '' : `${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}`;
}
