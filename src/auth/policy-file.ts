import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { OperatorError, systemCode } from '../errors.js';
import { parseYaml } from '../yaml.js';
import { type Policy, type Rule, type Subject, USER } from './policy.js';
import { parsePattern, parseRight } from './policy-words.js';
import { RIGHTS } from './rights.js';

/**
 * The files that say who may do what: the policy, in YAML, and groups as Apache has them (mod_authz_groupfile).
 *
 *     groups:
 *       dev: [alice, bob]
 *     rules:
 *       - who: [anonymous]
 *         may: [pull]
 *         on: [public/**]
 *       - who: [group:dev, user:carol]
 *         may: [push, delete]
 *         on: [team/**, "users/{user}/**"]
 */

const LARGEST = 4 * 1024 * 1024;

const words = z.preprocess(
  value => (typeof value === 'string' ? [value] : value),
  z
    .array(z.string(), {
      error: ({ input }) => (input === undefined ? 'is missing' : 'expects a list, such as [a, b]'),
    })
    .min(1, { error: 'is empty' }),
);

const file = z.strictObject({
  groups: z
    .record(
      z.string(),
      z.preprocess(value => (value === '' ? [] : value), words.or(z.tuple([]))),
    )
    .optional(),
  rules: z.array(z.strictObject({ who: words, may: words, on: words }), { error: 'expects a list of rules' }),
});

/**
 * @param path the policy
 * @param groups a file of groups, whose members join those that the policy names itself
 * @throws OperatorError `FILE:LINE:COLUMN: what` for whatever is wrong
 */
export async function loadPolicy(path: string, groups?: string): Promise<Policy> {
  return withGroups(parsePolicy(await readPolicyText(path), path), groups);
}

/** @throws OperatorError for a file that cannot be read or is no text */
export function readPolicyText(path: string): Promise<string> {
  return read(path, 'write one, or name another: access.policy (REGISTRY_ACCESS_POLICY)');
}

/** The policy with the groups of a file. @throws OperatorError */
export async function withGroups(policy: Policy, groups: string | undefined): Promise<Policy> {
  if (groups === undefined) return policy;
  const text = await read(groups, 'one line for each group: NAME: USER USER');
  return { rules: policy.rules, groups: joined(policy.groups, parseGroups(text, groups)) };
}

export function parsePolicy(text: string, path: string): Policy {
  const wrong = (at: string, what: string, fix?: string): never => {
    throw new OperatorError(`${path}:${at}: ${what}`, fix === undefined ? {} : { fix });
  };
  let parsed: ReturnType<typeof parseYaml>;
  try {
    parsed = parseYaml(text);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new OperatorError(`${path}:${error.message}`, error.fix === undefined ? {} : { fix: error.fix });
  }
  const { value, positions } = parsed;
  const placeOf = (...keys: Array<string | number>): string => {
    for (let length = keys.length; length > 0; length--) {
      const position = positions.get(keys.slice(0, length).join('.'));
      if (position !== undefined) return position;
    }
    return '1:1';
  };
  const checked = file.safeParse(value);
  if (!checked.success) {
    const { issues } = checked.error;
    const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0]!;
    const keys = issue.path as Array<string | number>;
    if (issue.code === 'unrecognized_keys') {
      const [unknown = ''] = issue.keys;
      const fix = keys.length === 0 ? 'the keys of the file are groups and rules' : RULE;
      wrong(placeOf(...keys, unknown), `${unknown} is not known here`, fix);
    }
    const what = /^(expects|is) /.test(issue.message) ? issue.message : 'is missing, or of another kind';
    wrong(placeOf(...keys), `${keys.join('.') || 'the file'} ${what}`, RULE);
  }
  const { groups = {}, rules } = checked.data!;
  for (const name of Object.keys(groups)) {
    const problem = nameProblem(name);
    if (problem) wrong(placeOf('groups', name), `the group ${JSON.stringify(name)} ${problem}`);
  }
  return {
    groups: new Map(Object.entries(groups).map(([name, members]) => [name, new Set(members.map(normal))])),
    rules: rules.map(({ who, may, on }, index): Rule => {
      const each = <T>(key: string, list: readonly string[], parse: (text: string) => T): T[] =>
        list.map((item, at) => {
          try {
            return parse(item);
          } catch (error) {
            if (!(error instanceof OperatorError)) throw error;
            return wrong(placeOf('rules', index, key, at), error.message, error.fix);
          }
        });
      return {
        place: `${path}:${placeOf('rules', index)}`,
        who: each('who', who, parseSubject),
        may: each('may', may, parseRight),
        on: each('on', on, parsePattern),
      };
    }),
  };
}

const RULE = 'each rule has who, may and on: lists of users and groups, rights, and patterns of repositories';

function parseSubject(text: string): Subject {
  if (text === 'anonymous' || text === 'authenticated') return { kind: text };
  const [, kind, name] = /^(user|group):(.+)$/.exec(text) ?? [];
  if (name !== undefined && !nameProblem(name)) return { kind: kind as 'user' | 'group', name: normal(name) };
  throw new OperatorError(`${JSON.stringify(text)} is nobody`, {
    fix: 'write user:NAME, group:NAME, authenticated (every user) or anonymous (everybody)',
  });
}

/** Groups as Apache reads them: `NAME: USER USER …`, a name of several lines having the members of all. @throws OperatorError */
export function parseGroups(text: string, path: string): Map<string, ReadonlySet<string>> {
  let groups = new Map<string, ReadonlySet<string>>();
  text.split('\n').forEach((line, index) => {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) return;
    const [, name = '', members = ''] = /^([^:]+):(.*)$/.exec(trimmed) ?? [];
    const problem = name === '' ? 'has no group before a colon' : nameProblem(name.trim());
    if (problem)
      throw new OperatorError(`${path}:${index + 1}: this line ${problem}`, { fix: 'write NAME: USER USER' });
    const users = members.split(/\s+/).filter(member => member !== '');
    groups = joined(groups, new Map([[normal(name.trim()), new Set(users.map(normal))]]));
  });
  return groups;
}

function joined(one: Policy['groups'], other: Policy['groups']): Map<string, ReadonlySet<string>> {
  const all = new Map(one);
  for (const [name, members] of other) all.set(name, new Set([...(all.get(name) ?? []), ...members]));
  return all;
}

/** Users are known by their names in Unicode NFC. */
const normal = (name: string): string => name.normalize('NFC');

function nameProblem(name: string): string | undefined {
  return /[\x00-\x1f\x7f-\x9f\ufffd]|^$/.test(name) ? 'has a name that no login can have' : undefined;
}

async function read(path: string, fix: string): Promise<string> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > LARGEST) throw new OperatorError(`${path} is larger than 4 MiB`, { fix });
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const code = systemCode(error);
    const what = code === 'ENOENT' ? 'does not exist' : code ? `cannot be read (${code})` : 'is not UTF-8';
    throw new OperatorError(`${path} ${what}`, { fix, cause: error });
  }
}

/** Something in a policy that is allowed, and hardly meant. */
export interface PolicyFinding {
  readonly place: string;
  readonly what: string;
}

/**
 * Rules, or parts of them, that can never allow anything.
 * @param users who can log in, where that is known
 * @param options.groupsElsewhere whether groups may be known to others than the policy
 */
export function deadRules(
  { rules, groups }: Policy,
  users?: ReadonlySet<string>,
  { groupsElsewhere = false }: { readonly groupsElsewhere?: boolean } = {},
): PolicyFinding[] {
  return rules.flatMap(rule => {
    const { place, who, on } = rule;
    const found = (what: string): PolicyFinding => ({ place, what });
    const subjects = who.flatMap(subject => {
      if (subject.kind === 'user')
        return users && !users.has(subject.name) ? [found(`there is no user ${JSON.stringify(subject.name)}`)] : [];
      if (subject.kind !== 'group' || groupsElsewhere) return [];
      const members = groups.get(subject.name);
      if (!members) return [found(`there is no group ${JSON.stringify(subject.name)}`)];
      if (members.size === 0) return [found(`the group ${JSON.stringify(subject.name)} has no members`)];
      if (users && ![...members].some(member => users.has(member)))
        return [found(`no member of the group ${JSON.stringify(subject.name)} can log in`)];
      return [];
    });
    const onlyAnonymous = who.every(({ kind }) => kind === 'anonymous');
    const patterns = onlyAnonymous
      ? on
          .filter(pattern => pattern.includes(USER))
          .map(pattern => found(`${pattern} is nobody's, for anonymous has no name`))
      : [];
    const wider = rules.find(
      other =>
        other !== rule && covers(other, rule) && (!covers(rule, other) || rules.indexOf(other) < rules.indexOf(rule)),
    );
    return [...subjects, ...patterns, ...(wider ? [found(`says nothing beyond the rule at ${wider.place}`)] : [])];
  });
}

/** Whether a rule allows all that another one does, as far as their words show it. */
function covers(wide: Rule, narrow: Rule): boolean {
  const actions = new Set<string>(wide.may.flatMap(right => RIGHTS[right]));
  const same = (one: Subject, other: Subject) => JSON.stringify(one) === JSON.stringify(other);
  return (
    narrow.may.every(right => RIGHTS[right].every(action => actions.has(action))) &&
    narrow.who.every(subject =>
      wide.who.some(
        other =>
          other.kind === 'anonymous' ||
          (other.kind === 'authenticated' && subject.kind !== 'anonymous') ||
          same(other, subject),
      ),
    ) &&
    narrow.on.every(pattern => wide.on.some(other => other === '**' || other === pattern))
  );
}
