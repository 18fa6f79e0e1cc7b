import { z } from 'zod';
import type { Access, Route } from './route.js';
import { errorBody } from './schemas.js';

/** JSON Schema of the 2020-12 dialect, as OpenAPI 3.1 has it. */
export type Schema = Record<string, unknown>;

interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required: boolean;
  readonly description?: string;
  readonly schema: Schema;
}

type Content = Readonly<Record<string, { readonly schema: Schema }>>;

export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly required: true; readonly content: Content };
  readonly responses: Readonly<
    Record<string, { description: string; headers?: Record<string, unknown>; content?: Content }>
  >;
  readonly security?: readonly [];
}

export interface ApiDocument {
  readonly openapi: '3.1.0';
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly servers: ReadonlyArray<{ readonly url: string }>;
  readonly security: ReadonlyArray<Readonly<Record<string, readonly []>>>;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>>; readonly securitySchemes: unknown };
}

/** Of the API, not of the program: it changes with what clients have to know. */
const VERSION = '1.0.0';

const WHO: Readonly<Record<Access, string>> = {
  anybody: 'Anybody, without a login.',
  caller: 'Whoever the registry lets in.',
  user: 'Every user.',
  self: 'The user whom it is about, and administrators.',
  administrator: 'Administrators.',
  pull: 'Who may pull from the repository.',
  delete: 'Who may delete in the repository.',
};

const STATUSES: Readonly<Record<number, string>> = {
  200: 'Done.',
  201: 'Made.',
  204: 'Done; there is no more to say.',
  303: 'Go there.',
  400: 'The request is not as it is described here.',
  401: 'Nobody has logged in, or not with the right credentials.',
  403: 'The caller has no right to do this, or a page of another site has sent it.',
  404: 'There is no such thing.',
  405: 'It cannot be done here.',
  409: 'Something is in the way.',
  412: 'It has been changed since it was read.',
  413: 'The body is too large.',
  415: 'The body is not declared as `application/json`.',
  428: 'If-Match is missing.',
  429: 'Too many failed logins: later, as Retry-After says.',
  503: 'The registry cannot do it now.',
};

/** The OpenAPI document of the routes. @param prefix what stands before the API's paths as clients see them */
export function apiDocument(routes: readonly Route[], prefix: string): ApiDocument {
  const schemas: Record<string, Schema> = {};
  const make = (schema: z.ZodType, io: 'input' | 'output') => schemaOf(schema, io, schemas);
  const errors = { 'application/json': { schema: make(errorBody, 'output') } };
  const paths: Record<string, Record<string, Operation>> = {};
  for (const route of routes) {
    paths[route.path] ??= {};
    paths[route.path]![route.method.toLowerCase()] = operation(route, make, errors);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'registry-secure',
      version: VERSION,
      description:
        'Accounts, rights and repositories of a registry. Slashes in the name of a repository stand in the path as they are.',
    },
    servers: [{ url: `${prefix}/api/v1` }],
    security: [{ basic: [] }, { bearer: [] }, { session: [] }],
    paths,
    components: {
      schemas,
      securitySchemes: {
        basic: { type: 'http', scheme: 'basic', description: 'A user and a password, or a token in its place.' },
        bearer: { type: 'http', scheme: 'bearer', description: 'What `/token` gives.' },
        session: {
          type: 'apiKey',
          in: 'cookie',
          name: '__Host-registry-session',
          description: 'What `/session/login` begins, where an OpenID Connect provider is configured.',
        },
      },
    },
  };
}

function operation(
  route: Route,
  make: (schema: z.ZodType, io: 'input' | 'output') => Schema,
  errors: Content,
): Operation {
  const { id, about, access, body, status, answer, requires = {}, gives } = route;
  const failures = [
    400,
    ...(access === 'anybody' ? [] : [401, 403, 429]),
    ...(body ? [413, 415] : []),
    ...(Object.keys(requires).length > 0 ? [428] : []),
    ...(route.errors ?? []),
    503,
  ].sort((a, b) => a - b);
  const headers = gives && Object.entries(gives).map(([name, description]) => [name, header(description)] as const);
  return {
    operationId: id,
    summary: about.split(/(?<=\.)\s/)[0]!,
    description: `${about} For: ${WHO[access].replace(/^./, first => first.toLowerCase())}`,
    parameters: [...parameters(route, make), ...Object.entries(requires).map(required)],
    ...(body && {
      requestBody: { required: true, content: { 'application/json': { schema: make(body, 'input') } } },
    }),
    responses: {
      [status]: {
        description: STATUSES[status]!,
        ...(headers && { headers: Object.fromEntries(headers) }),
        ...(answer && { content: { 'application/json': { schema: make(answer, 'output') } } }),
        ...(route.page && { content: { 'text/plain': { schema: { type: 'string' } } } }),
      },
      ...Object.fromEntries(failures.map(code => [code, { description: STATUSES[code]!, content: errors }])),
    },
    ...(access === 'anybody' && { security: [] as const }),
  };
}

function parameters({ path, query }: Route, make: (schema: z.ZodType, io: 'input' | 'output') => Schema): Parameter[] {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(
    ([, name]): Parameter => ({ name: name!, in: 'path', required: true, schema: { type: 'string' } }),
  );
  const inQuery = Object.entries(query?.shape ?? {}).map(([name, schema]): Parameter => {
    const { description, ...rest } = make(schema as z.ZodType, 'input');
    return {
      name,
      in: 'query',
      required: !(schema as z.ZodType).isOptional(),
      ...(typeof description === 'string' && { description }),
      schema: rest,
    };
  });
  return [...inPath, ...inQuery];
}

function required([name, description]: [string, string]): Parameter {
  return { name, in: 'header', required: true, description, schema: { type: 'string' } };
}

const header = (description: string) => ({ description, schema: { type: 'string' } });

/** The schema; those that have a name of their own become components, and are referred to. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output', components: Record<string, Schema>): Schema {
  // Only a schema inside of another one is referred to by its name.
  const { properties, $defs = {} } = z.toJSONSchema(z.object({ schema }), { io });
  for (const [name, definition] of Object.entries($defs)) components[name] ??= referring(definition as Schema);
  return referring(properties!.schema as Schema);
}

function referring(schema: Schema): Schema {
  const { id: _, ...rest } = JSON.parse(
    JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/'),
  ) as Schema;
  return rest;
}
