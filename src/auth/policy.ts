import { parseGlob } from '../glob.js';
import { isRepositoryName } from '../reference.js';
import type { Bound, Identity } from './identity.js';
import { type Action, RIGHTS, type Right } from './rights.js';

/** Whether `identity` may do `action`, to a repository where the action is about one. Pure. */
export type Authorise = (identity: Identity, action: Action, repository?: string) => boolean;

/** `anonymous` is everybody, logged in or not: what needs no login cannot be kept from those who have one. */
export type Subject =
  | { readonly kind: 'anonymous' | 'authenticated' }
  | { readonly kind: 'user' | 'group'; readonly name: string };

/** Who may do what, to which repositories. */
export interface Rule {
  readonly who: readonly Subject[];
  readonly may: readonly Right[];
  /** Patterns (`parseGlob`), in which `{user}` stands for the name of the user who asks. */
  readonly on: readonly string[];
  /** Where it stands, for people. */
  readonly place: string;
}

/** What is not allowed by a rule is not allowed. */
export interface Policy {
  readonly rules: readonly Rule[];
  /** Members by group. */
  readonly groups: ReadonlyMap<string, ReadonlySet<string>>;
}

/**
 * For a registry without rules: every user may do everything to images, or, where nobody is asked who they are, everybody.
 * Over one another they have no power.
 */
export function usersMay({ open }: { readonly open: boolean }): Authorise {
  return (identity, action, repository) =>
    action !== 'administer' &&
    (open || identity.kind === 'user' || action === 'token') &&
    within(identity, action, repository);
}

/** The decision of a policy. @param open as for `usersMay` */
export function policyMay(policy: Policy, { open }: { readonly open: boolean }): Authorise {
  const compiled = policy.rules.map(compile);
  return (identity, action, repository) => {
    if (!within(identity, action, repository)) return false;
    if (action === 'login') return open || identity.kind === 'user';
    if (action === 'token') return true;
    const mine = compiled.filter(rule => rule.isFor(identity, policy.groups));
    // The catalog lists no more than what may be pulled.
    if (action === 'catalog') return mine.length > 0;
    if (action === 'administer')
      return identity.kind === 'user' && mine.some(rule => rule.allows(action) && rule.isEverywhere);
    return mine.some(rule => rule.allows(action) && rule.covers(repository ?? '', identity));
  };
}

/** Whether the bounds of an identity allow an action. They never give what a policy does not. Pure. */
export function within(identity: Identity, action: Action, repository = ''): boolean {
  const { bounds } = identity;
  if (!bounds || action === 'token') return true;
  // Who has no name and may do nothing has shown nothing at all.
  if (action === 'login') return identity.kind === 'user' || bounds.length > 0;
  if (action === 'catalog') return bounds.some(({ actions }) => actions.includes('list'));
  if (action === 'administer')
    return bounds.some(({ actions, on }) => actions.includes(action) && on.includes(EVERYWHERE));
  return bounds.some(
    bound => bound.actions.includes(action) && patternsOf(bound).some(pattern => pattern(repository, identity)),
  );
}

type Pattern = ReturnType<typeof compilePattern>;

/** The identities of many requests share their bounds. */
const patterns = new WeakMap<Bound, readonly Pattern[]>();

function patternsOf(bound: Bound): readonly Pattern[] {
  const known = patterns.get(bound) ?? bound.on.map(compilePattern);
  patterns.set(bound, known);
  return known;
}

/** Whether a request without credentials can be allowed anything. */
export function welcomesAnonymous({ rules }: Policy): boolean {
  return rules.some(({ who }) => who.some(({ kind }) => kind === 'anonymous'));
}

export interface Explanation {
  readonly allowed: boolean;
  /** Each rule that is about this user, with what it says of the question. */
  readonly rules: ReadonlyArray<{
    readonly place: string;
    readonly says: 'allows' | 'another right' | 'another repository';
  }>;
}

/** Why `policyMay` decides as it does. */
export function explain(policy: Policy, identity: Identity, action: Action, repository: string): Explanation {
  const rules = policy.rules
    .map(rule => ({ place: rule.place, ...compile(rule) }))
    .filter(rule => rule.isFor(identity, policy.groups))
    .map(rule => ({
      place: rule.place,
      says: !rule.covers(repository, identity)
        ? ('another repository' as const)
        : rule.allows(action)
          ? ('allows' as const)
          : ('another right' as const),
    }));
  return { allowed: rules.some(({ says }) => says === 'allows'), rules };
}

function compile(rule: Rule) {
  const actions = new Set<Action>(rule.may.flatMap(right => RIGHTS[right]));
  const patterns = rule.on.map(compilePattern);
  return {
    isFor: (identity: Identity, groups: Policy['groups']) => rule.who.some(subject => is(subject, identity, groups)),
    allows: (action: Action) => actions.has(action),
    isEverywhere: rule.on.includes(EVERYWHERE),
    covers: (repository: string, identity: Identity) => patterns.some(pattern => pattern(repository, identity)),
  };
}

function is(subject: Subject, identity: Identity, groups: Policy['groups']): boolean {
  if (subject.kind === 'anonymous') return true;
  if (identity.kind !== 'user') return false;
  switch (subject.kind) {
    case 'authenticated':
      return true;
    case 'user':
      return identity.name === subject.name;
    case 'group':
      return groups.get(subject.name)?.has(identity.name) === true || identity.groups?.includes(subject.name) === true;
  }
}

export const USER = '{user}';
/** The pattern of every repository. */
const EVERYWHERE = '**';

function compilePattern(pattern: string): (repository: string, identity: Identity) => boolean {
  if (!pattern.includes(USER)) return parseGlob(pattern);
  return (repository, identity) => {
    // Only the name itself, never a part of a pattern or a path: a user may be called `*` or `a/b`.
    if (identity.kind !== 'user' || identity.name.includes('/') || !isRepositoryName(identity.name)) return false;
    return parseGlob(pattern.replaceAll(USER, identity.name))(repository);
  };
}
