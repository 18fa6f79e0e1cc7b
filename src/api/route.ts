import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { z } from 'zod';
import type { Identity } from '../auth/identity.js';
import type { Authorise, Policy } from '../auth/policy.js';
import type { PolicyDocument } from '../auth/policy-document.js';
import type { UserFile } from '../auth/user-file.js';
import { nextPage } from '../registry/exchange.js';
import type { StorageDriver } from '../storage/driver.js';
import type { Store } from '../store/store.js';
import type { OidcLogins } from './session.js';

/** What the handlers work with. Absent is what the configuration does not have. */
export interface Services {
  readonly store: Store;
  /** For what is kept beside the images. */
  readonly driver: StorageDriver;
  readonly authorise: Authorise;
  readonly userFile: UserFile | undefined;
  readonly policyDocument: PolicyDocument | undefined;
  /** What would be decided by another policy. */
  readonly authoriseBy: (policy: Policy) => Authorise;
  /** The policy that counts now. */
  readonly policy: () => Policy | undefined;
  /** Whether tokens of machines are taken. */
  readonly machineTokens: boolean;
  /** Of the client, where not of the socket. */
  readonly addressOf: (request: IncomingMessage) => string | undefined;
  readonly oidc: OidcLogins | undefined;
}

/**
 * Who is let in, before the handler sees the request:
 * - `anybody`: without credentials, too
 * - `caller`: whoever the registry lets in at all; the handler shows no more than the caller may see
 * - `user`: somebody who has a name. Here and for `self` a token with bounds is not enough: it would have none any more
 * - `self`: the user whom the path names, and administrators
 * - `administrator`
 * - `pull`, `delete`: who may do so in the repository that the path names
 */
export type Access = 'anybody' | 'caller' | 'user' | 'self' | 'administrator' | 'pull' | 'delete';

/** One request that was let in. */
export interface Call<Query = unknown, Body = unknown> {
  readonly request: IncomingMessage;
  readonly identity: Identity;
  readonly services: Services;
  /** The OpenAPI document of the API. */
  readonly document: Readonly<Record<string, unknown>>;
  /** What stands for the name in the path; empty for a path without. */
  readonly name: string;
  /** As the client sees it, without the query. */
  readonly path: string;
  readonly query: Query;
  readonly body: Body;
}

/** What the audit log tells of a change. No secret may be among it. */
export type ChangeDetails = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

interface Answer {
  /** Of a route that `changes` something: what it has changed now. */
  readonly what?: ChangeDetails;
  readonly value?: unknown;
  /** In place of a value: text for people. */
  readonly page?: string;
  readonly headers?: OutgoingHttpHeaders;
}

/** One endpoint: what is documented is what is checked. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below `/api/v1`. `{repository}` may hold slashes, any other name is one part, percent-encoded. */
  readonly path: string;
  /** Names the operation, for generated clients. */
  readonly id: string;
  readonly about: string;
  readonly access: Access;
  /** What the audit log calls the change that it makes. */
  readonly changes?: string;
  /** Changes what is in the storage: not while that is read-only. */
  readonly stores?: true;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodType;
  /** Largest body, in bytes; `USUAL_BODY` unless told. */
  readonly largestBody?: number;
  readonly status: 200 | 201 | 204 | 303;
  /** Answers with a page for people. */
  readonly page?: true;
  /** Of the body of the answer; none for 204. */
  readonly answer?: z.ZodType;
  /** Statuses of errors that this route has beyond those of all. */
  readonly errors?: readonly number[];
  /** Headers of the request and of the answer, by name. */
  readonly requires?: Readonly<Record<string, string>>;
  readonly gives?: Readonly<Record<string, string>>;
  readonly handler: (call: Call) => Promise<Answer>;
}

/** Whatever needs no more is some names and a password. */
export const USUAL_BODY = 16 * 1024;

/** A row of the table, its handler bound to the types of its schemas. */
export function route<
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
  Body extends z.ZodType = z.ZodType<undefined>,
  Value extends z.ZodType = z.ZodType<undefined>,
>(
  row: Omit<Route, 'query' | 'body' | 'answer' | 'handler'> & {
    readonly query?: Query;
    readonly body?: Body;
    readonly answer?: Value;
    readonly handler: (
      call: Call<z.output<Query>, z.output<Body>>,
    ) => Promise<Omit<Answer, 'value'> & { readonly value?: z.output<Value> }>;
  },
): Route {
  return row as unknown as Route;
}

/** One page of a list that is in memory, in the order of its keys, with the Link header that leads to the next. */
export function pageOf<T>(
  items: readonly T[],
  keyOf: (item: T) => string,
  {
    path,
    query: { n, last: after },
  }: Pick<Call<{ n?: number | undefined; last?: string | undefined }>, 'path' | 'query'>,
  filter: Readonly<Record<string, string>> = {},
): { page: T[]; headers: OutgoingHttpHeaders } {
  const limit = n ?? USUAL_ENTRIES;
  const rest = items.filter(item => keyOf(item) > (after ?? ''));
  const page = rest.slice(0, limit);
  const last = rest.length > limit ? keyOf(page.at(-1)!) : undefined;
  return { page, headers: nextPage(path, limit, last, filter) };
}

export const USUAL_ENTRIES = 100;
export const MOST_ENTRIES = 1000;
