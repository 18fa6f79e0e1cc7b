import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { readPemCertificates } from '../pki/x509.js';
import { inOwnFolder, type Step, type Target, type TrustClient } from './client.js';
import type { Pair } from './fetch.js';
import { bring, type Change, readIfThere, removeEmpty, takeAway } from './files.js';
import { authorityId, DEFAULT_IMAGE } from './instructions.js';
import { merged, unmerged } from './merge.js';
import { isPresent, locate, runsOn, type Surroundings } from './places.js';
import { quoted } from './shell.js';
import { clientsNamed, TRUST_CLIENTS } from './table.js';

/** What was done, or with `dryRun` would be done, for one kind of client. */
export interface ClientReport {
  readonly client: string;
  readonly title: string;
  readonly changes: readonly Change[];
  /** Commands that were executed, or that are left for a person: in another root they would run on the wrong machine. */
  readonly commands: ReadonlyArray<{ readonly command: string; readonly ran: boolean }>;
  /** What the user has to restart; undefined where nothing changed. */
  readonly restart: string | undefined;
  /** Why it is not done, and what to do about it. */
  readonly problem: string | undefined;
}

export interface ClientChoice {
  /** Named kinds; without them those that are present. */
  readonly clients?: readonly string[] | undefined;
  /** Stores of the whole machine as well. */
  readonly all?: boolean | undefined;
  readonly machine: Surroundings;
}

/**
 * The kinds of client to install for.
 * @throws OperatorError for one that is unknown, not of this system, or that only a person can set up.
 */
export function chosenClients({ clients, all, machine }: ClientChoice): TrustClient[] {
  if (!clients)
    return TRUST_CLIENTS.filter(
      client => isInstallable(client) && (all || !client.store) && isPresent(client, machine),
    );
  return clientsNamed(clients).map(client => {
    if (!isInstallable(client))
      throw new OperatorError(`for ${client.title} there is nothing that could be installed once and for all`, {
        fix: `registry-secure trust HOST --client ${client.name} on the server says what to do`,
      });
    if (runsOn(client, machine.platform)) return client;
    throw new OperatorError(`${client.title}: this machine runs ${machine.platform}`, { fix: 'run this there' });
  });
}

/** Those to remove from: any that has files of its own, present or not; one that has none only where it is named, or with `all`. */
export function clientsToLeave({ clients, all, machine }: ClientChoice): TrustClient[] {
  if (clients) return chosenClients({ clients, machine });
  return TRUST_CLIENTS.filter(client => {
    if (!isInstallable(client) || !runsOn(client, machine.platform)) return false;
    return hasFiles(client) || (all && isPresent(client, machine));
  });
}

function hasFiles(client: TrustClient): boolean {
  return stepsFor(client, 'any', ['any']).some(step => !('run' in step));
}

function isInstallable({ unsafe, keepsFile, byHand }: TrustClient): boolean {
  return !unsafe && !keepsFile && !byHand;
}

export interface Trusted {
  readonly host: string;
  /** Every certificate in it is vouched for. */
  readonly pem: string;
  readonly pair?: Pair | undefined;
  readonly machine: Surroundings;
  readonly dryRun: boolean;
}

/** Has these clients trust the registry. Safe to run again; one that fails does not keep the others from it. */
export async function install(clients: readonly TrustClient[], trusted: Trusted): Promise<ClientReport[]> {
  const sources = new Sources(trusted.host, trusted.pem, trusted.pair);
  try {
    const reports: ClientReport[] = [];
    for (const client of clients) reports.push(await installFor(client, trusted, sources));
    return reports;
  } finally {
    sources.remove();
  }
}

async function installFor(client: TrustClient, trusted: Trusted, sources: Sources): Promise<ClientReport> {
  const { machine, dryRun } = trusted;
  const changes: Change[] = [];
  const commands: Array<{ command: string; ran: boolean }> = [];
  const done = (problem?: string): ClientReport => {
    const changed = changes.some(({ action }) => action !== 'unchanged') || commands.length > 0;
    const restart = client.restartBy === undefined ? client.restart : `${client.restart}: ${client.restartBy}`;
    return {
      client: client.name,
      title: client.title,
      changes,
      commands,
      restart: changed ? restart : undefined,
      problem,
    };
  };
  const steps = client.steps(sources.target);
  for (const step of steps) {
    try {
      if ('run' in step) {
        // A store is told only where a file of it has changed.
        if (hasFiles(client) && changes.every(({ action }) => action === 'unchanged')) continue;
        commands.push(runOn(machine, step.run, dryRun));
      } else {
        const path = located(step, machine);
        const content = await contentOf(step, path, sources);
        const mode = 'copy' in step && step.copy === 'key' ? 0o600 : 0o644;
        changes.push(await bring(path, content, { mode, keep: 'add' in step, dryRun }));
      }
    } catch (error) {
      return done(problemOf(error, client));
    }
  }
  return done();
}

function located(step: Exclude<Step, { run: string }>, machine: Surroundings): string {
  const path = locate(step.to, machine);
  if (path !== undefined) return path;
  throw new OperatorError(`where ${step.to} is cannot be told here`, { fix: 'set the variable in it, such as HOME' });
}

async function contentOf(step: Exclude<Step, { run: string }>, path: string, sources: Sources): Promise<Buffer> {
  if ('copy' in step) return sources.content(step.from);
  if ('write' in step) return Buffer.from(`${step.write}\n`);
  const before = (await readIfThere(path))?.toString() ?? '';
  try {
    return Buffer.from(merged(before, step));
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new OperatorError(`${path}: ${error.message}`, error.fix === undefined ? {} : { fix: error.fix });
  }
}

/** A command of the table, without its sudo: whoever is not root is told so. */
function runOn(machine: Surroundings, command: string, dryRun: boolean): { command: string; ran: boolean } {
  const needsRoot = command.startsWith('sudo ');
  if (dryRun || machine.root !== '/') return { command, ran: false };
  if (needsRoot && process.getuid?.() !== 0) throw Object.assign(new Error(command), { code: 'EPERM' });
  const plain = command.replace(/^sudo /, '');
  const [shell, ...flags] = process.platform === 'win32' ? ['powershell', '-NoProfile', '-Command'] : ['sh', '-euc'];
  const { status, stderr, error } = spawnSync(shell!, [...flags, plain], {
    encoding: 'utf8',
    stdio: ['inherit', 'ignore', 'pipe'],
    timeout: 120_000,
  });
  if (status === 0) return { command, ran: true };
  const said = error?.message ?? stderr.trim().split('\n').at(-1);
  throw new OperatorError(`${plain} failed: ${said || `exit code ${status}`}`, { fix: 'run it by hand to see more' });
}

function problemOf(error: unknown, client: TrustClient): string {
  if (error instanceof OperatorError) return `${error.message}${error.fix ? `; ${error.fix}` : ''}`;
  const code = systemCode(error);
  if (code === 'EACCES' || code === 'EPERM') {
    const user = client.name === 'podman' ? ', or, for this user alone, give --client podman-user' : '';
    return `only root may do this (${(error as Error).message}); run it again with sudo${user}`;
  }
  if (code === undefined) throw error;
  return (error as Error).message;
}

/** What the steps of the table copy, under the words by which they name it; as files too, for commands that take one. */
class Sources {
  readonly target: Target;
  readonly #folder = mkdtempSync(join(tmpdir(), 'registry-secure-trust-'));
  readonly #contents = new Map<string, Buffer>();

  constructor(host: string, pem: string, pair?: Pair) {
    const add = (name: string, content: Buffer, isPublic = true): string => {
      const path = join(this.#folder, name);
      if (isPublic) writeFileSync(path, content);
      const word = quoted(path);
      this.#contents.set(word, content);
      return word;
    };
    const certificates = readPemCertificates(pem);
    const ca = add('ca.crt', Buffer.from(pem, 'latin1'));
    this.target = {
      host,
      ca,
      pem,
      authorities: certificates.map(certificate => {
        const id = authorityId(certificate);
        if (certificates.length === 1) return { id, file: ca };
        return { id, file: add(`${id}.crt`, Buffer.from(certificate.toString())) };
      }),
      // The key gets no copy of its own: no command takes it.
      pair: pair && { certificate: add('client.cert', pair.certificate), key: add('client.key', pair.key, false) },
      image: DEFAULT_IMAGE,
    };
  }

  content(word: string): Buffer {
    return this.#contents.get(word)!;
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true });
  }
}

export interface Untrusted {
  readonly host: string;
  /** SHA-256 of certificates that go, also from stores of the whole machine; those in the registry's folders go in any case. */
  readonly fingerprints: readonly string[];
  /** The client's own certificate and key go too. */
  readonly withPair: boolean;
  readonly machine: Surroundings;
  readonly dryRun: boolean;
}

/** Takes back what `install` has done; what others have put there stays. Safe to run again. */
export async function remove(clients: readonly TrustClient[], wish: Untrusted): Promise<ClientReport[]> {
  // Stores do not know which registry an authority is of: the folders that have its name do.
  const known = new Set([...wish.fingerprints, ...(await fingerprintsInFolders(wish))]);
  const reports: ClientReport[] = [];
  for (const client of clients) reports.push(await removeFor(client, wish, known));
  return reports.filter(({ changes, commands, problem }) => changes.length + commands.length > 0 || problem);
}

/** Steps with words instead of sources: what is removed is looked up by its place. */
function stepsFor(client: TrustClient, host: string, ids: readonly string[]): readonly Step[] {
  return client.steps({
    host,
    ca: 'ca',
    pem: '',
    authorities: ids.map(id => ({ id, file: `${id}.crt` })),
    pair: { certificate: 'certificate', key: 'key' },
    image: DEFAULT_IMAGE,
  });
}

async function fingerprintsInFolders({ host, machine, fingerprints }: Untrusted): Promise<string[]> {
  const found: string[] = [];
  for (const client of TRUST_CLIENTS.filter(client => isInstallable(client) && !client.perAuthority))
    for (const step of stepsFor(client, host, [])) {
      if (!('copy' in step && step.copy === 'ca')) continue;
      const path = locate(step.to, machine);
      const there = path === undefined ? undefined : await readIfThere(path).catch(() => undefined);
      found.push(...fingerprintsIn(there));
    }
  return fingerprints.length > 0 ? found.filter(one => fingerprints.includes(one)) : found;
}

function fingerprintsIn(pem: Buffer | undefined): string[] {
  try {
    const certificates = readPemCertificates(pem?.toString('latin1') ?? '');
    return certificates.map(({ fingerprint256 }) => fingerprint256.replaceAll(':', '').toLowerCase());
  } catch {
    return [];
  }
}

async function removeFor(client: TrustClient, wish: Untrusted, known: ReadonlySet<string>): Promise<ClientReport> {
  const { host, machine, dryRun } = wish;
  const changes: Change[] = [];
  const commands: Array<{ command: string; ran: boolean }> = [];
  const done = (problem?: string): ClientReport => {
    const changed = changes.some(({ action }) => action === 'removed' || action === 'updated') || commands.length > 0;
    const restart = client.restartBy === undefined ? client.restart : `${client.restart}: ${client.restartBy}`;
    return {
      client: client.name,
      title: client.title,
      changes,
      commands,
      restart: changed ? restart : undefined,
      problem,
    };
  };
  const ids = [...known].map(one => authorityId({ fingerprint256: one }));
  if (ids.length === 0 && !hasFiles(client))
    return done('which certificate is meant is not known here; name it with --fingerprint');
  const steps = stepsFor(client, host, ids);
  try {
    // The file that names the others goes first.
    for (const step of [...steps].reverse()) {
      if ('run' in step) continue;
      const path = locate(step.to, machine);
      const change = path === undefined ? undefined : await removal(step, path, wish, known);
      if (change) changes.push(change);
    }
    const changed = changes.some(({ action }) => action === 'removed');
    for (const step of steps) {
      if (!('run' in step) || step.undo === undefined || (hasFiles(client) && !changed)) continue;
      // Where a command takes the certificate, only a person has it now.
      const lacksFile = ids.some(id => step.undo!.includes(`${id}.crt`));
      commands.push(lacksFile ? { command: step.undo, ran: false } : runOn(machine, step.undo, dryRun));
    }
    changes.push(...strangers(client, wish, ids));
  } catch (error) {
    return done(problemOf(error, client));
  }
  return done();
}

async function removal(
  step: Exclude<Step, { run: string }>,
  path: string,
  { fingerprints, withPair, dryRun }: Untrusted,
  known: ReadonlySet<string>,
): Promise<Change | undefined> {
  const how = { folder: inOwnFolder(step.to), dryRun };
  const there = await readIfThere(path);
  if (there === undefined) {
    // An empty folder of an earlier day would still be found by podman.
    if (how.folder && !dryRun) await removeEmpty(dirname(path)).catch(() => undefined);
    return undefined;
  }
  const kept = (why: string): Change => ({ path, action: 'kept', why });
  if ('add' in step) {
    const after = unmerged(there.toString(), step);
    if (after === there.toString()) return undefined;
    if (after.trim() === '') return takeAway(path, how);
    return bring(path, Buffer.from(after), { mode: 0o644, keep: true, dryRun });
  }
  if ('write' in step) {
    const ours = [step.write, step.write.replace(/\n {2}client = .*/, '')].map(text => `${text}\n`);
    return ours.includes(there.toString()) ? takeAway(path, how) : kept('somebody has changed it');
  }
  if (step.copy !== 'ca') return withPair ? takeAway(path, how) : kept('a client certificate: --pair removes it');
  const inside = fingerprintsIn(there);
  if (inside.length === 0) return kept('it holds no certificate');
  if (inside.every(one => known.has(one))) return takeAway(path, how);
  return kept(fingerprints.length > 0 ? 'it holds another certificate' : 'it holds a certificate of somebody else');
}

/** Files of ours in a store of which nobody knows for which registry they are. */
function strangers(client: TrustClient, { host, machine }: Untrusted, ids: readonly string[]): Change[] {
  if (!client.perAuthority) return [];
  const [step] = stepsFor(client, host, ['registry-secure-']).filter(step => 'copy' in step);
  const folder = step && 'to' in step ? locate(step.to, machine) : undefined;
  if (folder === undefined) return [];
  return entries(dirname(folder))
    .filter(name => /^registry-secure-[0-9a-f]{16}\.(crt|pem)$/.test(name) && !ids.includes(name.slice(0, -4)))
    .map(name => ({
      path: join(dirname(folder), name),
      action: 'kept',
      why: 'of which registry it is is not known here: --fingerprint names it',
    }));
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
