import type { Glob } from '../glob.js';

/** Some repositories and their tags, by patterns of which one of each kind must match. */
export interface Scope {
  readonly repositories: readonly Glob[];
  readonly tags: readonly Glob[];
}

/**
 * Which tags may go: those in its scope that are neither among the last `keepLast` nor younger than `keepDays`. With
 * neither of the two, it is about untagged manifests only.
 */
export interface RetentionPolicy extends Scope {
  readonly keepLast?: number | undefined;
  readonly keepDays?: number | undefined;
  /** Whether manifests of these repositories may go that no tag leads to. */
  readonly untagged: boolean;
}

/** A tag, and when it was pushed last. */
export interface TagAge {
  readonly tag: string;
  readonly pushed: Date;
  /** Of a tag that is about another image, as one of a signature: whether the repository has that image. */
  readonly follows?: boolean;
}

const DAY = 24 * 3_600_000;

export function inScope(scope: Scope, repository: string, tag: string): boolean {
  return matches(scope.repositories, repository) && matches(scope.tags, tag);
}

/** Whether a policy lets go of untagged manifests of the repository. */
export function letsUntaggedGo(policies: readonly RetentionPolicy[], repository: string): boolean {
  return policies.some(policy => policy.untagged && matches(policy.repositories, repository));
}

/**
 * The tags that at least one policy is about, and that none of those policies keeps. A tag that is about another image
 * stays as long as that does, and is never counted among the last. Of tags that were pushed at the same
 * time the one that sorts last as text counts as the latest.
 */
export function expiredTags(
  policies: readonly RetentionPolicy[],
  repository: string,
  tags: readonly TagAge[],
  now: Date,
): string[] {
  const expired = new Set<string>();
  const kept = new Set<string>();
  for (const policy of policies) {
    const { keepLast, keepDays } = policy;
    if (keepLast === undefined && keepDays === undefined) continue;
    const latestFirst = tags.filter(({ tag }) => inScope(policy, repository, tag)).sort(byTime);
    let before = 0;
    for (const { tag, pushed, follows } of latestFirst) {
      const young = keepDays !== undefined && now.getTime() - pushed.getTime() < keepDays * DAY;
      const last = follows === undefined && keepLast !== undefined && before++ < keepLast;
      (young || last || follows ? kept : expired).add(tag);
    }
  }
  return [...expired].filter(tag => !kept.has(tag));
}

function byTime(one: TagAge, other: TagAge): number {
  return other.pushed.getTime() - one.pushed.getTime() || (one.tag < other.tag ? 1 : -1);
}

function matches(globs: readonly Glob[], name: string): boolean {
  return globs.some(glob => glob(name));
}
