import { z } from 'zod';
import { newName, randomPassword, UserError } from '../auth/htpasswd-edit.js';
import type { Identity } from '../auth/identity.js';
import { networkOf } from '../auth/login-limiter.js';
import type { UserFile } from '../auth/user-file.js';
import { OperatorError, RegistryError } from '../errors.js';
import { type AccountState, changeAccount, changed, listAccounts, readAccount } from '../store/accounts.js';
import { listMachineTokens, revokeMachineToken } from '../store/machine-tokens.js';
import { findOidcAccount, listOidcAccounts, removeOidcAccount } from '../store/oidc-accounts.js';
import { type Call, pageOf, type Route, route, type Services } from './route.js';
import { newUserName, newUserPassword, page, time, userName } from './schemas.js';

const account = z
  .strictObject({
    name: userName,
    source: z
      .enum(['file', 'oidc'])
      .optional()
      .describe('The password file, or an OpenID Connect provider. None: from elsewhere, such as a directory.'),
    problem: z.string().optional().describe('Why the password lets nobody in. None where it does.'),
    disabled: time.optional().describe('Since when nobody is let in by this name.'),
    expires: time.optional().describe('Until when somebody is.'),
  })
  .meta({ id: 'Account' });

type Account = z.output<typeof account>;

export const ACCOUNTS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/accounts',
    id: 'listAccounts',
    about:
      'The accounts that are known here, in the order of their names: of the password file, of those who have logged in at an OpenID Connect provider, and of whom it was said that they are disabled or end.',
    access: 'administrator',
    query: page,
    status: 200,
    answer: z.strictObject({ accounts: z.array(account) }),
    handler: async call => {
      const { page, headers } = pageOf(await allAccounts(call.services), ({ name }) => name, call);
      return { value: { accounts: page }, headers };
    },
  }),
  route({
    method: 'POST',
    path: '/accounts',
    id: 'createAccount',
    changes: 'user.add',
    about:
      'Adds a user to the password file. Without a password one is made up, and is in the answer, this once. Tokens that are left of somebody who had the name are revoked.',
    access: 'administrator',
    body: z.strictObject({ name: newUserName, password: newUserPassword.optional() }),
    status: 201,
    answer: z.strictObject({ name: userName, password: z.string().optional().describe('Only one that was made up.') }),
    errors: [404, 409],
    gives: { Location: 'Where the account is.' },
    handler: async call => {
      const { name, password = randomPassword() } = call.body;
      // One name must not be two people.
      if (await findOidcAccount(call.services.driver, name)) throw taken();
      const users = ours(call);
      if (await reading(() => users.find(name))) throw taken();
      // Of somebody who had the name before, and was taken out of the file by other means.
      await revokeTokensOf(name, call.services);
      await writing(() => users.add(name, password, networkOfCall(call)));
      return {
        value: { name, ...(call.body.password === undefined && { password }) },
        what: { user: name },
        headers: { Location: `${call.path}/${encodeURIComponent(name)}` },
      };
    },
  }),
  route({
    method: 'GET',
    path: '/accounts/{name}',
    id: 'getAccount',
    about: 'One account.',
    access: 'self',
    status: 200,
    answer: account,
    errors: [404],
    handler: async ({ services, name }) => {
      const state = await readAccount(services.driver, name);
      const known = await knownAccount(services, name);
      if (!known && Object.keys(state).length === 0) throw noSuchUser();
      return { value: { name, ...known, ...state } };
    },
  }),
  route({
    method: 'PATCH',
    path: '/accounts/{name}',
    id: 'changeAccount',
    changes: 'user.change',
    about:
      'Disables an account, wherever it is from, lets it in again, or says when it ends. It bites within a second, for passwords, tokens, certificates and sessions alike. Administrators cannot shut out themselves.',
    access: 'administrator',
    stores: true,
    body: z.strictObject({
      disabled: z.boolean().optional(),
      expires: time.nullable().optional().describe('RFC 3339, in UTC; null: never.'),
    }),
    status: 200,
    answer: account,
    errors: [405, 409],
    handler: async ({ identity, services, name, body: { disabled, expires } }) => {
      mustBeName(name);
      if (disabled || (expires && Date.parse(expires) <= Date.now())) mustBeOther(identity, name);
      const state = await changeAccount(services.driver, name, changed({ disabled, expires }));
      return {
        value: { name, ...(await knownAccount(services, name)), ...state },
        what: { user: name, disabled: state.disabled ?? false, expires: state.expires ?? 'never' },
      };
    },
  }),
  route({
    method: 'DELETE',
    path: '/accounts/{name}',
    id: 'deleteAccount',
    changes: 'user.remove',
    about:
      'Removes an account, with its tokens. From this moment the password and whatever was given for it are void. Who comes from an OpenID Connect provider may come again: disable the account to keep them out. Administrators cannot remove themselves.',
    access: 'administrator',
    status: 204,
    errors: [404, 409],
    handler: async ({ identity, services, name }) => {
      mustBeOther(identity, name);
      const { driver, userFile } = services;
      const removed = await removeOidcAccount(driver, name);
      if (userFile && (await reading(() => userFile.find(name)))) await writing(() => userFile.remove(name));
      else if (!removed) throw noSuchUser();
      // Else they would be those of whoever has the name next.
      await revokeTokensOf(name, services);
      return { what: { user: name } };
    },
  }),
  route({
    method: 'PUT',
    path: '/accounts/{name}/password',
    id: 'setPassword',
    changes: 'user.password',
    about:
      "Gives a user of the password file another password. One's own takes the current one, so that a session left open is not enough.",
    access: 'self',
    body: z.strictObject({
      password: newUserPassword,
      current: z.string().max(1024).optional().describe("For one's own password: the one that counts now."),
    }),
    status: 204,
    errors: [404],
    handler: async call => {
      const { identity, name, body } = call;
      const users = ours(call);
      const network = networkOfCall(call);
      const own = identity.kind === 'user' && identity.name === name;
      if (own && !(await users.confirms(name, body.current ?? '', network)))
        throw new RegistryError('DENIED', { message: 'current is not the password that counts now' });
      await writing(() => users.setPassword(name, body.password, network));
      return { what: { user: name } };
    },
  }),
];

async function revokeTokensOf(name: string, { driver }: Services): Promise<void> {
  const { tokens } = await listMachineTokens(driver);
  for (const { id, user } of tokens) if (user === name) await revokeMachineToken(driver, id);
}

/** Where somebody of this name is from, by what is known here; undefined where nobody has it. */
export async function sourceOf(services: Services, name: string): Promise<Account['source']> {
  return (await knownAccount(services, name))?.source;
}

async function knownAccount({ userFile, driver }: Services, name: string): Promise<Partial<Account> | undefined> {
  const user = userFile && (await reading(() => userFile.find(name)));
  if (user) return { source: 'file', ...(user.problem !== undefined && { problem: user.problem }) };
  return (await findOidcAccount(driver, name)) ? { source: 'oidc' } : undefined;
}

async function allAccounts({ userFile, driver }: Services): Promise<Account[]> {
  const states = await listAccounts(driver);
  const users = userFile ? await reading(() => userFile.list()) : [];
  const accounts = new Map<string, Account>();
  for (const [name, state] of states) accounts.set(name, { name, ...state });
  const add = (name: string, more: Partial<Account>) =>
    accounts.set(name, { name, ...more, ...shownState(states.get(name)) });
  for (const { name } of await listOidcAccounts(driver)) add(name, { source: 'oidc' });
  for (const { name, problem } of users) add(name, { source: 'file', ...(problem !== undefined && { problem }) });
  return [...accounts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function shownState({ disabled, expires }: AccountState = {}): Partial<Account> {
  return { ...(disabled !== undefined && { disabled }), ...(expires !== undefined && { expires }) };
}

/** What bounds the work for one source of requests. */
function networkOfCall({ request, services }: Pick<Call, 'request' | 'services'>): string {
  return networkOf(services.addressOf(request));
}

function ours({ services }: Pick<Call, 'services'>): UserFile {
  if (services.userFile) return services.userFile;
  throw new RegistryError('NOT_FOUND', { message: 'this registry keeps no passwords of its own' });
}

/** The last administrator would leave a registry that nobody can administer. @throws RegistryError CONFLICT */
function mustBeOther(identity: Identity, name: string): void {
  if (identity.kind === 'user' && identity.name === name)
    throw new RegistryError('CONFLICT', {
      message: 'this would shut you out yourself: have another administrator do it',
    });
}

/** @throws RegistryError INVALID */
function mustBeName(name: string): void {
  try {
    newName(name);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new RegistryError('INVALID', { message: error.message });
  }
}

async function reading<T>(task: () => Promise<T>): Promise<T> {
  return task().catch(error => {
    if (!(error instanceof OperatorError)) throw error;
    throw new RegistryError('UNAVAILABLE', { message: 'the password file cannot be read', cause: error });
  });
}

async function writing(task: () => Promise<void>): Promise<void> {
  return task().catch(error => {
    if (error instanceof UserError) throw error.is === 'absent' ? noSuchUser() : taken();
    if (!(error instanceof OperatorError)) throw error;
    throw new RegistryError('UNAVAILABLE', {
      message: 'the registry cannot write its password file: its log says why',
      cause: error,
    });
  });
}

function noSuchUser(): RegistryError {
  return new RegistryError('NOT_FOUND', { message: 'there is no such user' });
}

function taken(): RegistryError {
  return new RegistryError('CONFLICT', { message: 'there is a user of this name already' });
}
