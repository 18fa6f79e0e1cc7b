import { basename } from 'node:path';
import { z } from 'zod';
import { ANONYMOUS, type Identity } from '../auth/identity.js';
import { explain } from '../auth/policy.js';
import { REPOSITORY_ACTIONS } from '../auth/rights.js';
import { RegistryError } from '../errors.js';
import { type Route, route } from './route.js';
import { repositoryAction, repositoryName, userName } from './schemas.js';

const explanation = z.strictObject({
  action: repositoryAction,
  allowed: z.boolean(),
  rules: z
    .array(
      z.strictObject({
        place: z.string().describe('`FILE:LINE:COLUMN`.'),
        says: z.enum(['allows', 'another right', 'another repository']),
      }),
    )
    .optional()
    .describe('Each rule that is about the user. For administrators, where there is a policy.'),
});

export const RIGHTS_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/whoami',
    id: 'whoAmI',
    about: 'Who the registry takes the caller for.',
    access: 'caller',
    status: 200,
    answer: z.strictObject({
      user: userName.nullable().describe('null: nobody has logged in.'),
      via: z.string().optional().describe('By what the user was recognised: `password`, `token`, `session`, …'),
      groups: z.array(z.string()).optional().describe('Those that are known from where the user is.'),
      administrator: z.boolean().describe('May change accounts, tokens of others, and the policy.'),
    }),
    handler: async ({ identity, services }) => {
      const administrator = services.authorise(identity, 'administer');
      if (identity.kind === 'anonymous') return { value: { user: null, administrator } };
      const { name, via, groups } = identity;
      return { value: { user: name, ...(via && { via }), ...(groups && { groups: [...groups] }), administrator } };
    },
  }),
  route({
    method: 'GET',
    path: '/rights',
    id: 'getRights',
    about:
      'What somebody may do in a repository, whether or not it is there. Asked for another user, it knows the groups of the policy alone.',
    access: 'caller',
    query: z.strictObject({
      repository: repositoryName,
      user: userName.optional().describe('The caller unless told; `anonymous` is nobody. Others: for administrators.'),
    }),
    status: 200,
    answer: z.strictObject({
      user: userName.nullable(),
      repository: repositoryName,
      actions: z.array(explanation).describe('`push` makes tags, `overwrite` moves them.'),
    }),
    handler: async ({ identity, services, query: { repository, user } }) => {
      const administrator = services.authorise(identity, 'administer');
      const subject = subjectOf(user, identity);
      if (subject !== identity && !administrator)
        throw new RegistryError('DENIED', { message: 'the rights of others are shown to administrators' });
      const policy = administrator ? services.policy() : undefined;
      const actions = REPOSITORY_ACTIONS.map(action => ({
        action,
        allowed: services.authorise(subject, action, repository),
        ...(policy && {
          rules: explain(policy, subject, action, repository).rules.map(({ place, says }) => ({
            place: basename(place),
            says,
          })),
        }),
      }));
      return { value: { user: subject.kind === 'user' ? subject.name : null, repository, actions } };
    },
  }),
];

function subjectOf(user: string | undefined, caller: Identity): Identity {
  if (user === undefined) return caller;
  const name = user.normalize('NFC');
  if (caller.kind === 'user' && caller.name === name) return caller;
  return user === 'anonymous' ? ANONYMOUS : { kind: 'user', name };
}
