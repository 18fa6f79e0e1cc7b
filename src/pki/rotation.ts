import { OperatorError } from '../errors.js';
import { crossCertificate, withNames } from './authority.js';
import { type CertificateFolder, changing, isOurs, readFolder, signingAuthority } from './folder.js';
import { certificatePem, issueServer, keyKindLike, newAuthority, permitsDuring } from './issue.js';
import { encodeKey } from './key-file.js';
import type { KeyKind } from './keys.js';
import { unique } from './names.js';
import { applyChanges, type Changes, keepCopies, pairChanges, pairFiles } from './pair-files.js';
import { finishing, type UpkeepOptions } from './renewal.js';
import { CROSS_FILE, ROTATION_FILE, type Rotation, rotationNotes } from './rotation-files.js';
import { certificateFields, notAfter, readPemCertificates } from './x509.js';

/** From one authority to the next, with a time in which clients may have either of them. */

export interface RotateOptions extends UpkeepOptions {
  /** Names, canonical, that the new authority shall permit besides those of the older one. */
  readonly names: readonly string[];
  /** In milliseconds. */
  readonly overlap: number;
  readonly caDays?: number | undefined;
  readonly keyKind?: KeyKind | undefined;
  /** Puts names into the certificate at once with which clients of the older authority refuse it. */
  readonly namesNow?: boolean | undefined;
  /** Makes everything and writes nothing. */
  readonly dryRun?: boolean | undefined;
}

export interface RotationReport {
  readonly dir: string;
  readonly dryRun: boolean;
  /** SHA-256 of the new authority and of the one that it follows. */
  readonly authority: { readonly fingerprint: string; readonly notAfter: Date };
  readonly retiring: { readonly fingerprint: string; readonly notAfter: Date };
  readonly until: Date;
  readonly names: readonly string[];
  /** Come into the certificate at the end of the overlap. */
  readonly waiting: readonly string[];
  /** Are in it although clients of the older authority refuse it for them. */
  readonly breaking: readonly string[];
  /** What was kept of the older authority: certificate and key. */
  readonly copies: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Makes a new authority that the present one vouches for, and a server certificate of it. Clients that have only the older
 * authority go on until the end of the overlap, and so do those that have both, or only the new one.
 * @throws OperatorError when another rotation has not ended, or the present authority cannot vouch for a new one.
 */
export async function rotateAuthority(options: RotateOptions): Promise<RotationReport> {
  const now = options.now ?? new Date();
  const rotate = async (): Promise<RotationReport> => {
    const folder = await readFolder(options.dir);
    const { changes, report } = await plan(folder, options, now);
    if (options.dryRun) return report;
    const ca = pairFiles(options.dir, 'ca');
    const copies = await keepCopies([ca.certificate, ca.key], now);
    await applyChanges(options.dir, changes);
    return { ...report, copies };
  };
  return options.dryRun ? rotate() : changing(options.dir, rotate);
}

async function plan(
  folder: CertificateFolder,
  options: RotateOptions,
  now: Date,
): Promise<{ changes: Changes; report: RotationReport }> {
  checkRotatable(folder, now);
  const authority = await signingAuthority(folder, options.passphrase);
  const retiring = authority.certificate;
  const { nameConstraints: constraints } = certificateFields(retiring);
  const names = unique([...options.names, ...certificateFields(folder.server!.chain[0]).names]);
  const keyKind = keyKindLike(retiring.publicKey, options.keyKind);
  const successor = await newAuthority({
    keyKind,
    days: options.caDays,
    constraints: withNames(constraints, names),
    now,
  });
  const until = new Date(Math.min(now.getTime() + options.overlap, notAfter(retiring).getTime()));
  // Certificates know whole seconds.
  until.setUTCMilliseconds(0);
  const [cross] = readPemCertificates(crossCertificate({ authority, successor: successor.certificate, until }));
  const overlap: Rotation = { cross: cross!, retiring, until, waiting: [] };
  const outside = names.filter(name => !permitsDuring(overlap, name));
  const waiting = options.namesNow ? [] : outside;
  const rotation = { ...overlap, waiting, ...(options.namesNow && { retiring: undefined }) };
  const server = await issueServer(
    { server: folder.server, rotation },
    successor,
    names.filter(name => !waiting.includes(name)),
    { ...options, now },
  );
  const changes = new Map([
    // Both first: whoever copies the file meanwhile has what works.
    ['ca.crt', { content: certificatePem(successor.certificate) + certificatePem(retiring), mode: 0o644 }],
    ['ca.key', { content: await encodeKey(successor.key, authority.passphrase), mode: 0o600 }],
    [CROSS_FILE, { content: certificatePem(rotation.cross), mode: 0o644 }],
    [ROTATION_FILE, { content: rotationNotes(until, waiting), mode: 0o644 }],
    ...pairChanges('domain', server),
  ] as const);
  const summary = (certificate: typeof retiring) => ({
    fingerprint: certificate.fingerprint256,
    notAfter: notAfter(certificate),
  });
  return {
    changes,
    report: {
      dir: options.dir,
      dryRun: options.dryRun ?? false,
      authority: summary(successor.certificate),
      retiring: summary(retiring),
      until,
      names: names.filter(name => !waiting.includes(name)),
      waiting,
      breaking: options.namesNow ? outside : [],
      copies: [],
      warnings: warnings(options, now, until, notAfter(retiring)),
    },
  };
}

function checkRotatable(folder: CertificateFolder, now: Date): void {
  const { dir, authority, rotation } = folder;
  const { certificate } = pairFiles(dir, 'ca');
  if (rotation)
    throw new OperatorError(`a rotation runs until ${rotation.until.toISOString()}`, {
      fix: 'end it first: registry-secure certs rotate-ca --finish',
    });
  if (!authority)
    throw new OperatorError(`there is no certificate authority in ${dir}`, {
      fix: 'make one: registry-secure init-certs',
    });
  if (folder.serverProblem) throw folder.serverProblem;
  if (!folder.server || !isOurs(folder))
    throw new OperatorError(`${pairFiles(dir, 'domain').certificate} is not of the authority in ${certificate}`, {
      fix: 'have one made of it first: registry-secure init-certs --force (copies are kept)',
    });
  const elsewhere =
    'make a new authority: registry-secure init-certs --out in a fresh folder; install its ca.crt on every client, beside the present one; then move the folder here';
  if (notAfter(authority) <= now)
    throw new OperatorError(
      `${certificate} expired on ${notAfter(authority).toISOString()}: it can vouch for no other`,
      {
        fix: elsewhere,
      },
    );
  if (certificateFields(authority).pathLength === 0)
    throw new OperatorError(
      `${certificate} may sign for no authority (its path length is 0): clients would refuse a new one that it vouches for`,
      { fix: elsewhere },
    );
}

function warnings({ overlap, caDays }: RotateOptions, now: Date, until: Date, last: Date): string[] {
  const found: string[] = [];
  if (until.getTime() < now.getTime() + overlap - 1000)
    found.push(`the overlap is shorter than asked for: the present authority expires on ${last.toISOString()}`);
  if (caDays !== undefined && now.getTime() + caDays * 86_400_000 <= until.getTime())
    found.push('the new authority expires before the overlap ends');
  return found;
}

/** Ends a rotation now: clients that have only the older authority are refused from here on. @throws OperatorError */
export async function finishRotation(
  options: UpkeepOptions & { readonly dryRun?: boolean | undefined },
): Promise<{ readonly names: readonly string[]; readonly added: readonly string[]; readonly until: Date }> {
  const finish = async () => {
    const folder = await readFolder(options.dir);
    const { rotation, server } = folder;
    if (!rotation)
      throw new OperatorError(`no rotation runs in ${options.dir}`, {
        fix: 'begin one: registry-secure certs rotate-ca',
      });
    if (folder.serverProblem) throw folder.serverProblem;
    const changes = await finishing(folder, options);
    if (!options.dryRun) await applyChanges(options.dir, changes);
    const before = server ? certificateFields(server.chain[0]).names : [];
    return { names: unique([...before, ...rotation.waiting]), added: rotation.waiting, until: rotation.until };
  };
  return options.dryRun ? finish() : changing(options.dir, finish);
}
