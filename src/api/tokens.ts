import { z } from 'zod';
import { parseAllow } from '../auth/bounds.js';
import type { Identity } from '../auth/identity.js';
import { networkOf } from '../auth/login-limiter.js';
import { makeMachineToken } from '../auth/machine-tokens.js';
import { Turns } from '../auth/turns.js';
import { RegistryError } from '../errors.js';
import {
  addMachineToken,
  lastUseOf,
  listMachineTokens,
  type MachineToken,
  revokeMachineToken,
} from '../store/machine-tokens.js';
import { sourceOf } from './accounts.js';
import { type Call, pageOf, type Route, route } from './route.js';
import { checked, page, time, userName } from './schemas.js';

/** A token ends, unless somebody has said that it does not. In milliseconds. */
const USUAL_LIFE = 90 * 24 * 3_600_000;

/** Each request with a token is held against all of it. In characters. */
const MOST_ALLOWED = 4096;
/** Of one user: nobody can have so many that others find no room, or every process keeps more than it can hold. */
const MOST_OF_ONE = 100;
/** One at a time, or many at once would all find room. */
const making = new Turns(1);

const allow = z
  .array(checked(z.string().min(1).max(512), parseAllow))
  .min(1)
  .max(100)
  .refine(list => list.join('').length <= MOST_ALLOWED, { error: `has more than ${MOST_ALLOWED} characters` })
  .describe("What it is good for, as far as the user's own rights go: `RIGHT:PATTERN` each, such as `pull:team/**`.");

const line = z
  .string()
  .max(200)
  .regex(/^[^\0-\x1f\x7f-\x9f]*$/, { error: 'is no single line' });

const token = z
  .strictObject({
    id: z.string(),
    user: userName,
    allow: z.array(z.string()),
    created: time,
    expires: time.optional().describe('None for one that does not end.'),
    description: z.string().optional(),
    used: time.optional().describe('When it was used last, to the hour.'),
  })
  .meta({ id: 'Token' });

export const TOKENS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/tokens',
    id: 'listTokens',
    about: "The tokens of machines, without their secrets: the caller's own, or those that an administrator asks for.",
    access: 'user',
    query: page.extend({
      user: z.string().max(255).optional().describe("Whose; `*`: everybody's. For administrators."),
    }),
    status: 200,
    answer: z.strictObject({ tokens: z.array(token) }),
    handler: async call => {
      const { identity, services, query } = call;
      const wanted = query.user?.normalize('NFC');
      // Somebody may be called `*`.
      const own = wanted === undefined || (wanted === nameOf(identity) && wanted !== EVERYBODY);
      if (!own) mustAdminister(call);
      const { tokens } = await listMachineTokens(services.driver);
      const mine = tokens.filter(token =>
        own ? isOwn(token, identity) : wanted === EVERYBODY || token.user === wanted,
      );
      mine.sort((a, b) => (a.id < b.id ? -1 : 1));
      const filter = query.user === undefined ? {} : { user: query.user };
      const { page, headers } = pageOf(mine, ({ id }) => id, call, filter);
      const shown = page.map(async ({ hash: _, ...token }) => {
        const used = await lastUseOf(services.driver, token.id);
        return { ...shownOf(token), ...(used && { used: used.toISOString() }) };
      });
      return { value: { tokens: await Promise.all(shown) }, headers };
    },
  }),
  route({
    method: 'POST',
    path: '/tokens',
    id: 'createToken',
    changes: 'token.create',
    about: 'Makes a token, which is the password in `docker login -u USER`. The secret is in the answer, this once.',
    access: 'user',
    stores: true,
    body: z.strictObject({
      user: userName.optional().describe('Whose it will be: the caller unless told. Of others: for administrators.'),
      allow,
      expires: time
        .refine(end => Date.parse(end) > Date.now(), { error: 'is in the past' })
        .nullable()
        .optional()
        .describe('RFC 3339, in UTC. In 90 days unless told; null: never.'),
      description: line.optional(),
    }),
    status: 201,
    answer: token.extend({ secret: z.string() }).meta({ id: 'NewToken' }),
    errors: [404, 405, 409],
    gives: { Location: 'Where the token is revoked.' },
    handler: async call => {
      const { request, identity, services, body, path } = call;
      const user = (body.user ?? nameOf(identity)).normalize('NFC');
      const own = user === nameOf(identity);
      const source = own ? undefined : await sourceOf(services, user);
      if (!own) {
        mustAdminister(call);
        if (!source) throw new RegistryError('NOT_FOUND', { message: 'there is no such user' });
      }
      if (!services.machineTokens)
        throw new RegistryError('NOT_FOUND', { message: 'this registry takes no tokens of machines' });
      const realms = own ? realmsOf(identity) : source === 'oidc' ? [] : undefined;
      const { secret, id, hash } = makeMachineToken();
      const expires = body.expires === undefined ? new Date(Date.now() + USUAL_LIFE).toISOString() : body.expires;
      const made: MachineToken = {
        id,
        user,
        ...(realms && { realms }),
        allow: [...new Set(body.allow)],
        hash,
        created: new Date().toISOString(),
        ...(expires !== null && { expires }),
        ...(body.description && { description: body.description }),
      };
      await making.run(networkOf(services.addressOf(request)), async () => {
        const { tokens } = await listMachineTokens(services.driver);
        const has = tokens.filter(token => token.user === user).length;
        if (has >= MOST_OF_ONE || !(await addMachineToken(services.driver, made)))
          throw new RegistryError('CONFLICT', { message: 'there are as many tokens as there may be: revoke some' });
      });
      return {
        value: { ...shownOf(made), secret },
        what: { token: id, user, allow: made.allow, expires: made.expires },
        headers: { Location: `${path}/${id}` },
      };
    },
  }),
  route({
    method: 'DELETE',
    path: '/tokens/{id}',
    id: 'revokeToken',
    changes: 'token.revoke',
    about: "Revokes a token for good: one's own, or as an administrator any. Every process refuses it within a second.",
    access: 'user',
    stores: true,
    status: 204,
    errors: [404, 405],
    handler: async ({ identity, services, name: id }) => {
      const { tokens, damaged } = await listMachineTokens(services.driver);
      const found = tokens.find(token => token.id === id);
      const administers = services.authorise(identity, 'administer');
      // Of others' tokens nobody hears, not even that they are there.
      const may = administers ? found !== undefined || damaged.includes(id) : found && isOwn(found, identity);
      if (!may || !(await revokeMachineToken(services.driver, id)))
        throw new RegistryError('NOT_FOUND', { message: 'there is no such token' });
      return { what: { token: id, user: found?.user } };
    },
  }),
];

/** In a query: the tokens of everybody. */
const EVERYBODY = '*';

/** Where a token is to be its maker: nowhere that somebody else of the same name may be. */
function realmsOf(identity: Identity): string[] {
  return identity.kind === 'user' ? [...(identity.realms?.keys() ?? [])] : [];
}

function isOwn({ user, realms = [] }: MachineToken, identity: Identity): boolean {
  return user === nameOf(identity) && realms.every(realm => realmsOf(identity).includes(realm));
}

function nameOf(identity: Identity): string {
  return identity.kind === 'user' ? identity.name : '';
}

function mustAdminister({ identity, services }: Pick<Call, 'identity' | 'services'>): void {
  if (!services.authorise(identity, 'administer'))
    throw new RegistryError('DENIED', { message: 'the tokens of others are for administrators' });
}

function shownOf({ id, user, allow, created, expires, description }: Omit<MachineToken, 'hash'>) {
  return {
    id,
    user,
    allow: [...allow],
    created,
    ...(expires !== undefined && { expires }),
    ...(description !== undefined && { description }),
  };
}
