import { open, unlink } from 'node:fs/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { parseAllow } from '../auth/bounds.js';
import { newName } from '../auth/htpasswd-edit.js';
import { makeMachineToken } from '../auth/machine-tokens.js';
import type { Config } from '../config/schema.js';
import { OperatorError, systemCode } from '../errors.js';
import { isActive, listAccounts } from '../store/accounts.js';
import {
  addMachineToken,
  isTokenId,
  lastUseOf,
  listMachineTokens,
  type MachineToken,
  revokeMachineToken,
} from '../store/machine-tokens.js';
import { unknownUser } from './known-user.js';
import { usage } from './options.js';
import { type Remote, remoteOf, withServer } from './remote.js';
import { createThere, listThere, revokeThere, type ShownToken } from './remote-tokens.js';
import { timeSpan } from './times.js';
import { addToTrail } from './trail.js';
import { addVolumeOptionsBeside, volumeConfig, withVolume } from './volume.js';

/** `registry-secure token create|list|revoke`: passwords for machines, each with bounds and an end of its own. */
export function token(program: Command): void {
  const group = program.command('token').description('make, list and revoke tokens that machines log in with');

  withCommon(group.command('create'))
    .summary('make a token for a user')
    .description(
      "Makes a token, which is the password in docker login -u USER. It is good for what --allow says, as far as the user's own rights go, and is shown only now: on standard output, and nothing else there.",
    )
    .requiredOption('--user <name>', 'the user it belongs to')
    .requiredOption(
      '--allow <right:pattern>',
      'what it is good for, such as pull:team/**; repeat it for more',
      (text: string, before: readonly string[] = []) => [...before, allowed(text)],
    )
    .option('--expires <time>', 'how long it is good, such as 90d or 12h; never for no end (default: 90d)', parseEnd)
    .option('--description <text>', 'what it is for, for the list', parseDescription)
    .option('--output <file>', 'write it to a new file that nobody else can read, and not to standard output')
    .option('--dry-run', 'make none, and say what would be made')
    .action((options: CreateOptions, command: Command) => create(options, command));

  withCommon(group.command('list'))
    .description('list the tokens, their bounds, ends and last uses')
    .option('--user <name>', 'only those of one user')
    .action((options: ListOptions, command: Command) => list(options, command));

  withCommon(group.command('revoke [id...]'))
    .description('revoke tokens for good, by the ids that the list shows; every process refuses them within a second')
    .option('--user <name>', 'all tokens of a user')
    .option('--dry-run', 'revoke none, and say which would be')
    .action((ids: string[], options: RevokeOptions, command: Command) => revoke(ids, options, command));
}

const DAY = 24 * 3_600_000;

interface Common {
  readonly json?: true;
}

interface CreateOptions extends Common {
  readonly user: string;
  readonly allow: readonly string[];
  /** Milliseconds, or for ever. */
  readonly expires?: number;
  readonly description?: string;
  readonly output?: string;
  readonly dryRun?: true;
}

interface ListOptions extends Common {
  readonly user?: string;
}

interface RevokeOptions extends ListOptions {
  readonly dryRun?: true;
}

function withCommon(command: Command): Command {
  return withServer(addVolumeOptionsBeside(command)).option('--json', 'print JSON');
}

async function create(options: CreateOptions, command: Command): Promise<void> {
  const { allow, expires = 90 * DAY, description, output, dryRun, json } = options;
  const user = newName(options.user);
  const remote = await remoteOf(command);
  const now = Date.now();
  const made = makeMachineToken();
  const wanted = {
    user,
    allow: [...new Set(allow)],
    ...(expires !== Number.POSITIVE_INFINITY && { expires: new Date(now + expires).toISOString() }),
    ...(description !== undefined && { description }),
  };
  const there = remote && !dryRun ? await createThere(remote, wanted) : undefined;
  const secret = there?.secret ?? made.secret;
  const token = { id: made.id, created: new Date(now).toISOString(), ...wanted, ...there?.token };
  const { id } = token;
  addToTrail(command, { id });
  if (there && output !== undefined)
    await writeSecret(output, secret).catch(async error => {
      await revokeThere(remote!, id);
      throw error;
    });
  if (!remote) await mustKnow(user, volumeConfig(command));
  if (!dryRun && !remote) {
    // First to where it is needed: a token that nobody has would only lie around. And as who asks for it: on the data this
    // process becomes its owner.
    if (output !== undefined) await writeSecret(output, secret);
    await add({ ...token, hash: made.hash }, volumeConfig(command)).catch(async error => {
      if (output !== undefined) await unlink(output).catch(() => {});
      throw error;
    });
  }
  const shown = dryRun ? { ...token, id: undefined } : token;
  const secrets = dryRun || output !== undefined ? {} : { token: secret };
  if (json) return say(JSON.stringify({ ...shown, ...secrets }, undefined, 2));
  const what = `for ${JSON.stringify(user)}, ${token.allow.join(', ')}, ${endOf(token)}`;
  if (dryRun) return say(`would make a token ${what}`);
  if (output !== undefined) return say(`token ${id} ${what} is in ${output}`);
  note(`token ${id} ${what}`);
  note(`it is shown only now; use it as the password: docker login -u ${user} --password-stdin HOST`);
  say(secret);
}

async function add(token: MachineToken, config: Config): Promise<void> {
  if (await withVolume(config, { readOnly: false }, driver => addMachineToken(driver, token))) return;
  throw new OperatorError('there are as many tokens as there may be', {
    fix: 'revoke those that nobody uses: registry-secure token list',
  });
}

async function list({ user, json }: ListOptions, command: Command): Promise<void> {
  const remote = await remoteOf(command);
  const { rows, damaged } = remote ? await rowsThere(remote, user) : await rowsHere(command, user);
  rows.sort((one, other) => (one.created < other.created ? -1 : 1));
  for (const id of damaged)
    note(
      `warning: the record of token ${id} is damaged, and counts for nothing; remove it: registry-secure token revoke ${id}`,
    );
  if (json) return say(JSON.stringify(rows, undefined, 2));
  if (rows.length === 0) return say('no tokens');
  table([
    ['ID', 'USER', 'ALLOW', 'ENDS', 'LAST USED', 'STATE', 'DESCRIPTION'],
    ...rows.map(({ id, user, allow, expires, used, state, description = '' }) => [
      id,
      user,
      allow.join(' '),
      expires?.slice(0, 10) ?? 'never',
      used?.slice(0, 13).replace('T', ' ').concat('h') ?? 'never',
      state,
      description,
    ]),
  ]);
}

interface Rows {
  readonly rows: Array<ShownToken & { readonly state: string }>;
  readonly damaged: readonly string[];
}

async function rowsThere(remote: Remote, user: string | undefined): Promise<Rows> {
  const tokens = await listThere(remote, user);
  return { rows: tokens.map(token => ({ ...token, state: stateOf(token) })), damaged: [] };
}

async function rowsHere(command: Command, user: string | undefined): Promise<Rows> {
  return withVolume(volumeConfig(command), { readOnly: true }, async driver => {
    const { tokens, damaged } = await listMachineTokens(driver);
    const accounts = await listAccounts(driver);
    const mine = tokens.filter(token => user === undefined || token.user === user.normalize('NFC'));
    const rows = mine.map(async token => {
      const used = (await lastUseOf(driver, token.id))?.toISOString();
      const state = isActive(accounts.get(token.user) ?? {}, Date.now()) ? stateOf(token) : 'account off';
      return { ...shownOf(token), ...(used !== undefined && { used }), state };
    });
    return { rows: await Promise.all(rows), damaged };
  });
}

async function revoke(ids: readonly string[], { user, dryRun, json }: RevokeOptions, command: Command): Promise<void> {
  if ((ids.length === 0) === (user === undefined))
    throw usage('say which tokens: by their ids, or all of a user by --user', 'registry-secure token list shows them');
  // Whoever names a token by itself has just shown it to everybody who can list processes.
  const unknown = ids.find(id => !isTokenId(id));
  if (unknown !== undefined)
    throw usage(
      'a token is named by its id, of 12 lower-case letters and digits',
      'registry-secure token list shows it',
    );
  const remote = await remoteOf(command);
  if (remote && dryRun)
    throw usage('--dry-run and --server do not go together', 'registry-secure token list --server shows what there is');
  const revoked = remote
    ? await revokedThere(remote, ids, user)
    : await revokedHere(command, ids, user, dryRun ?? false);
  if (json) return say(JSON.stringify({ revoked, dryRun: dryRun ?? false }, undefined, 2));
  for (const id of revoked) say(`token ${id} ${dryRun ? 'would be revoked' : 'revoked'}`);
  if (revoked.length === 0) say(`${JSON.stringify(user)} has no tokens`);
}

async function revokedThere(
  remote: Remote,
  ids: readonly string[],
  user: string | undefined,
): Promise<readonly string[]> {
  const named = user === undefined ? ids : (await listThere(remote, user)).map(({ id }) => id);
  for (const id of named) await revokeThere(remote, id);
  return named;
}

async function revokedHere(
  command: Command,
  ids: readonly string[],
  user: string | undefined,
  dryRun: boolean,
): Promise<readonly string[]> {
  return withVolume(volumeConfig(command), { readOnly: dryRun }, async driver => {
    const { tokens, damaged } = await listMachineTokens(driver);
    const known = new Set([...tokens.map(({ id }) => id), ...damaged]);
    const missing = ids.find(id => !known.has(id));
    if (missing !== undefined)
      throw new OperatorError(`there is no token ${missing}`, { fix: 'registry-secure token list shows them' });
    const named =
      user === undefined ? ids : tokens.filter(token => token.user === user.normalize('NFC')).map(({ id }) => id);
    if (!dryRun) for (const id of named) await revokeMachineToken(driver, id);
    return named;
  });
}

/** A token of nobody is a typing error, where all users there are can be seen. */
async function mustKnow(user: string, config: Config): Promise<void> {
  if (!config.auth.htpasswd && config.auth.realms.length === 0)
    throw new OperatorError('tokens belong to users, and the registry knows none of its own', {
      fix: 'name the configuration with --config, or configure auth.htpasswd or auth.realms',
    });
  const missing = await unknownUser(user, config);
  if (!missing) return;
  if (missing.elsewhere)
    return note(`warning: no password file has ${JSON.stringify(user)}; it must be known elsewhere`);
  throw new OperatorError(`no user ${JSON.stringify(user)} can log in by ${missing.places}`, {
    fix: `registry-secure user add ${user}`,
  });
}

async function writeSecret(file: string, secret: string): Promise<void> {
  const handle = await open(file, 'wx', 0o600).catch(error => {
    const code = systemCode(error);
    const what = code === 'EEXIST' ? 'is there already' : `cannot be made (${code})`;
    throw new OperatorError(`${file} ${what}`, { fix: 'name another file', cause: error });
  });
  try {
    await handle.writeFile(`${secret}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** All but the hash, which is nobody's business. */
function shownOf({ hash, ...token }: MachineToken): Omit<MachineToken, 'hash'> {
  return token;
}

function endOf({ expires }: Pick<MachineToken, 'expires'>): string {
  return expires === undefined ? 'without an end' : `until ${expires}`;
}

function stateOf({ expires }: Pick<MachineToken, 'expires'>): 'active' | 'expired' {
  return expires !== undefined && Date.parse(expires) <= Date.now() ? 'expired' : 'active';
}

/** The text as it is, once it says something. */
function allowed(text: string): string {
  try {
    parseAllow(text);
    return text;
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new InvalidArgumentError(`${error.message}; ${error.fix}`);
  }
}

function parseEnd(text: string): number {
  return text === 'never' ? Number.POSITIVE_INFINITY : timeSpan(text);
}

function parseDescription(text: string): string {
  if (text.length <= 200 && !/[\0-\x1f\x7f-\x9f]/.test(text)) return text;
  throw new InvalidArgumentError('expected one line of at most 200 characters');
}

function table(rows: ReadonlyArray<readonly string[]>): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => row[column]!.length)));
  for (const row of rows)
    say(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    );
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function note(line: string): void {
  process.stderr.write(`registry-secure: ${line}\n`);
}
