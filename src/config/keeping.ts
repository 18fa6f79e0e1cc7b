import { z } from 'zod';
import { parseGlob } from '../glob.js';
import { key, list, listOf, positiveDuration, section, wholeFrom, yesNo } from './keys.js';
import { isBareDuration } from './values.js';

/** The part of the configuration that says what the registry keeps, and for how long. */

const HOUR = 3_600_000;

/** The original reads a bare integer as nanoseconds, which an operator hardly ever means. */
export const bare = {
  caution: (value: string) =>
    isBareDuration(value) ? `${value} means ${value} nanoseconds; write ${value}s for seconds` : undefined,
};

const globs = list('patterns', value => {
  parseGlob(value);
  return value;
}).schema;

const scope = {
  repositories: globs.default(['**']),
  tags: globs.default(['**']),
};

/** Zero would let everything go, which nobody means. */
const atLeastOne = wholeFrom(1, 999_999).schema;

const policy = z
  .strictObject(
    {
      ...scope,
      keeplast: atLeastOne.optional(),
      keepdays: atLeastOne.optional(),
      untagged: yesNo.schema.default(false),
    },
    { error: 'expects the keys repositories, tags, keeplast, keepdays and untagged' },
  )
  .superRefine(({ keeplast, keepdays, untagged }, context) => {
    if (keeplast !== undefined || keepdays !== undefined || untagged) return;
    const fix = 'give it keeplast, keepdays or untagged';
    context.addIssue({ code: 'custom', message: 'is a policy that says nothing', params: { fix } });
  });

const rule = z.strictObject(scope, { error: 'expects the keys repositories and tags' });

export const immutable = key(
  listOf('rules', rule),
  [],
  'Tags that never change once they are pushed, and are never deleted: each rule with `repositories` and `tags`, lists of patterns (`*` for any characters but the slash, `**` for any).',
  { ours: true },
);

export const uploadpurging = section(
  {
    enabled: key(yesNo, true, 'Removes uploads that were never finished.'),
    age: key(positiveDuration(168 * HOUR), 168 * HOUR, 'How long ago such an upload must have been started.', bare),
    interval: key(positiveDuration(24 * HOUR), 24 * HOUR, 'How often to look.', bare),
    dryrun: key(yesNo, false, 'Only logs what would be removed.'),
  },
  'Abandoned uploads.',
);

export const gc = section(
  {
    enabled: key(
      yesNo,
      true,
      'Frees what nothing refers to any more, while the registry serves. `registry-secure gc` does the same at once.',
      { ours: true },
    ),
    interval: key(positiveDuration(24 * HOUR), 24 * HOUR, 'How often.', { ours: true, ...bare }),
    grace: key(
      positiveDuration(24 * HOUR),
      24 * HOUR,
      'For how long what nothing refers to is left alone, counted from when a client was last told that it is there.',
      { ours: true, ...bare },
    ),
    untagged: key(yesNo, false, 'Removes manifests too that no tag leads to, not even by an index or a subject.', {
      ours: true,
    }),
  },
  'The collection of garbage. See [Keeping and freeing](keeping.md).',
);

export const retention = section(
  {
    policies: key(
      listOf('policies', policy),
      [],
      'Which tags go: each policy with `repositories` and `tags`, lists of patterns, and with `keeplast`, `keepdays` or both; `untagged: true` lets untagged manifests of those repositories go. See [Keeping and freeing](keeping.md).',
      { ours: true },
    ),
    dryrun: key(yesNo, false, 'Only logs which tags would go.', { ours: true }),
  },
  'Retention of tags, applied by the collection of garbage.',
);
