import { type Command, Option } from 'commander';
import { HtpasswdCredentials } from '../auth/credentials.js';
import { ANONYMOUS } from '../auth/identity.js';
import { type Explanation, explain, type Policy, usersMay } from '../auth/policy.js';
import { deadRules, loadPolicy, type PolicyFinding } from '../auth/policy-file.js';
import { type Action, REPOSITORY_ACTIONS } from '../auth/rights.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { OperatorError } from '../errors.js';
import { parseGlob } from '../glob.js';
import { isRepositoryName } from '../reference.js';
import { dirOption, usage } from './options.js';
import { type Remote, remoteOf, withServer } from './remote.js';

interface Options {
  readonly dir: string;
  readonly config?: string;
  readonly policy?: string;
  readonly groups?: string;
  readonly group?: readonly string[];
  readonly json?: true;
}

/** `registry-secure access`: what the policy says, and whether it says what was meant. Reads, and changes nothing. */
export function access(program: Command): void {
  const parent = program.command('access').description('check the access policy, or explain what it allows');
  withPolicy(parent.command('check'))
    .description(
      'say what is wrong with the policy, and which of its rules can never allow anything; the exit code is 1 where there are any',
    )
    .action((_options: Options, command: Command) => check(command));
  withPolicy(parent.command('explain <user> <action> <repository>'))
    .option(
      '--group <name>',
      'a group that the user has in a directory, a certificate or by a proxy; repeat it for more',
      (name: string, before: string[] = []) => [...before, name.normalize('NFC')],
    )
    .description(
      `say whether a user (anonymous: nobody) may ${REPOSITORY_ACTIONS.join(', ')} in a repository, and which rule says so; the exit code is 0 for yes and 1 for no`,
    )
    .action((user: string, action: string, repository: string, _options: Options, command: Command) =>
      answer(command, user, action, repository),
    );
}

function withPolicy(command: Command): Command {
  return withServer(command)
    .addOption(dirOption())
    .option('--config <file>', 'the configuration file that serve is given')
    .addOption(
      new Option('--policy <file>', 'the policy (default: access.policy of the configuration)').conflicts('server'),
    )
    .option('--groups <file>', 'the file of groups (default: access.groups of the configuration)')
    .option('--json', 'print JSON');
}

/** The policy that `serve` would use, or the one that is named; none where everybody who logs in may do everything. */
async function policyOf(command: Command): Promise<{ config: Config; policy?: Policy; file?: string }> {
  const { dir, config: file, policy, groups } = command.opts<Options>();
  const dirGiven = command.getOptionValueSource('dir') === 'cli';
  const { config } = loadConfig({ dir, dirGiven, file, env: process.env, flags: [] });
  const path = policy ?? config.access.policy;
  if (path === undefined) return { config };
  // Groups of the configuration belong to its own policy.
  const members = groups ?? (policy === undefined ? config.access.groups : undefined);
  return { policy: await loadPolicy(path, members), file: path, config };
}

/** What a policy comes to. */
interface Checked {
  readonly rules: number;
  readonly groups: number;
  readonly findings: readonly PolicyFinding[];
}

async function check(command: Command): Promise<void> {
  const remote = await remoteOf(command);
  const { file, ...checked } = remote
    ? { file: remote.host, ...(await checkedThere(remote)) }
    : await checkedHere(command);
  const { rules, groups, findings } = checked;
  if (findings.length > 0) process.exitCode = 1;
  if (command.opts<Options>().json) {
    say(JSON.stringify({ file, rules, groups, findings }, undefined, 2));
    return;
  }
  for (const { place, what } of findings) say(`${place}: ${what}`);
  say(`${file}: ${rules} rules, ${groups} groups${findings.length === 0 ? ', well' : ''}`);
}

async function checkedHere(command: Command): Promise<Checked & { readonly file: string }> {
  const { policy, file, config } = await policyOf(command);
  if (!policy || file === undefined)
    throw new OperatorError('no access policy is configured: whoever logs in may do everything', {
      fix: 'name one with --policy, or set access.policy (REGISTRY_ACCESS_POLICY)',
    });
  const { htpasswd, realms } = config.auth;
  const elsewhere = realms.length > 0;
  const users = htpasswd && !elsewhere ? await knownUsers(htpasswd.path) : undefined;
  const findings = deadRules(policy, users, { groupsElsewhere: elsewhere });
  return { file, rules: policy.rules.length, groups: policy.groups.size, findings };
}

async function checkedThere(remote: Remote): Promise<Checked> {
  const { value } = await remote.ask<{ text: string }>('GET', '/policy');
  return (await remote.ask<Checked>('POST', '/policy/check', { body: value })).value;
}

/** Who can log in; undefined where that cannot be told here. */
async function knownUsers(file: string): Promise<ReadonlySet<string> | undefined> {
  try {
    return (await HtpasswdCredentials.open(file)).names;
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    process.stderr.write(`registry-secure: warning: users are not checked: ${error.message}\n`);
    return undefined;
  }
}

async function answer(command: Command, user: string, action: string, repository: string): Promise<void> {
  if (!(REPOSITORY_ACTIONS as readonly string[]).includes(action))
    throw usage(
      `${JSON.stringify(action)} is no action`,
      `use one of ${REPOSITORY_ACTIONS.join(', ')}; push makes tags, overwrite moves them`,
    );
  if (!isRepositoryName(repository))
    throw usage(
      `${JSON.stringify(repository)} is no name of a repository`,
      'write it as in image references, without host and tag: team/app',
    );
  const remote = await remoteOf(command);
  const explanation = remote
    ? await explainedThere(remote, user, action, repository)
    : await explainedHere(command, user, action as Action, repository);
  if (!explanation.allowed) process.exitCode = 1;
  if (command.opts<Options>().json) say(JSON.stringify({ user, action, repository, ...explanation }, undefined, 2));
  else for (const line of describe(explanation, `${user} may${explanation.allowed ? '' : ' not'} ${action}`)) say(line);
}

async function explainedHere(command: Command, user: string, action: Action, repository: string): Promise<Told> {
  const { policy, config } = await policyOf(command);
  const { group: groups = [] } = command.opts<Options>();
  const identity = user === 'anonymous' ? ANONYMOUS : ({ kind: 'user', name: user.normalize('NFC'), groups } as const);
  const { none, realms } = config.auth;
  // Users of two realms may share a name, and who is of another one is nobody here.
  const realm = realms.find(({ repositories }) => repositories.some(pattern => parseGlob(pattern)(repository)));
  const whose =
    realm && user !== 'anonymous' ? { remark: `said of a user of the realm ${JSON.stringify(realm.name)}` } : {};
  if (policy) return { ...explain(policy, identity, action, repository), ...whose };
  const open = none !== undefined;
  const remark = `no access policy is configured, and whoever ${open ? 'comes' : 'logs in'} may do everything`;
  return { allowed: usersMay({ open })(identity, action, repository), remark };
}

/** Rules are shown to administrators only. */
type Told = Pick<Explanation, 'allowed'> & Partial<Explanation> & { readonly remark?: string };

async function explainedThere(remote: Remote, user: string, action: string, repository: string): Promise<Told> {
  interface Rights {
    readonly actions: ReadonlyArray<Told & { readonly action: string }>;
  }
  const query = new URLSearchParams({ repository, user });
  const { value } = await remote.ask<Rights>('GET', `/rights?${query}`);
  const { allowed, rules } = value.actions.find(asked => asked.action === action)!;
  return { allowed, ...(rules && { rules }) };
}

function describe({ allowed, rules, remark }: Told, answer: string): string[] {
  const verdict = remark === undefined ? answer : `${answer} (${remark})`;
  if (!rules) return [verdict];
  const told = rules.filter(({ says }) => !allowed || says === 'allows');
  if (rules.length === 0) return [`${verdict}: no rule is about this user`];
  return [`${verdict}:`, ...told.map(({ place, says }) => `  ${place}: ${says === 'allows' ? says : `about ${says}`}`)];
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
