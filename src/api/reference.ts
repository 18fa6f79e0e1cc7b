import { type ApiDocument, apiDocument, type Operation, type Schema } from './openapi.js';
import { ROUTES } from './routes.js';

const INTRODUCTION = `# HTTP API

<!-- Generated from src/api/ by \`npm run docs\`. -->

Accounts, tokens, rights and repositories of a running registry, below \`/api/v1/\`. This page is made of the OpenAPI 3.1
document that every registry shows, without a login, at \`/api/v1/openapi.json\`. The command line uses the same API:
\`registry-secure user list --server registry.example.com:5000 --as admin\`.

- **Logins** are those of docker: Basic with a password or a machine's token, or Bearer with what \`/token\` gives. Where an
  OpenID Connect provider is configured, browsers log in there: see [Access](access.md#openid-connect).
- **Administrators** are those to whom the [policy](access.md) gives \`admin\` on \`"**"\`. Without a policy there are none: then
  accounts, tokens of others and rights are changed on the machine of the registry.
- **Errors** are those of the registry: \`{"errors": [{"code": …, "message": …}]}\`. What is hidden is answered as what is absent.
- **Lists** come in pages: \`n\` entries after \`last\`, and a \`Link\` header that leads to the next.
- **Bodies** are \`application/json\`, at most 16 KiB but for the policy, without keys that are not known.
- **Browsers** are answered for pages of this registry only: what a page of another site has them send is refused, and no
  header lets it read an answer.

\`\`\`sh
curl --cacert certs/ca.crt -u admin https://192.168.0.12:5000/api/v1/accounts
curl --cacert certs/ca.crt -u admin https://192.168.0.12:5000/api/v1/tokens \\
  -H 'Content-Type: application/json' -d '{"user": "ci", "allow": ["pull:team/**"]}'
\`\`\`
`;

/** The text of docs/api.md. */
export function apiPage(): string {
  const document = apiDocument(ROUTES, '');
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => section(method.toUpperCase(), path, operation, document)),
  );
  return [INTRODUCTION, ...operations].join('\n');
}

function section(method: string, path: string, operation: Operation, document: ApiDocument): string {
  const parameters = operation.parameters.map(
    ({ name, in: where, required, description = '' }) =>
      `- \`${name}\` (${where}${required ? '' : ', optional'})${description && `: ${description}`}\n`,
  );
  const body = operation.requestBody?.content['application/json']?.schema;
  const [status = '', success] = Object.entries(operation.responses).find(([status]) => status < '400') ?? [];
  const schema = success?.content?.['application/json']?.schema;
  const answer = schema && members(schema, document);
  const errors = Object.keys(operation.responses).filter(status => status >= '400');
  return [
    `## ${method} /api/v1${path}\n\n${operation.description}\n`,
    ...(parameters.length > 0 ? [`${parameters.join('')}`] : []),
    ...(body ? [`Body:\n\n${members(body, document)}`] : []),
    `Answer: ${status}${answer ? `:\n\n${answer}` : '.\n'}`,
    `Errors: ${errors.join(', ')}.\n`,
  ].join('\n');
}

/** The members of an object, and of the objects in its lists. */
function members(schema: Schema, document: ApiDocument, indent = ''): string {
  const { properties = {}, required = [] } = resolved(schema, document) as {
    properties?: Record<string, Schema>;
    required?: readonly string[];
  };
  return Object.entries(properties)
    .map(([name, property]) => {
      const { description } = property;
      const optional = required.includes(name) ? '' : ', optional';
      const items = property.items as Schema | undefined;
      const below = items ? members(items, document, `${indent}  `) : '';
      const about = typeof description === 'string' ? `: ${description}` : '';
      return `${indent}- \`${name}\` (${typeOf(property, document)}${optional})${about}\n${below}`;
    })
    .join('');
}

function resolved(schema: Schema, { components }: ApiDocument): Schema {
  const name = /^#\/components\/schemas\/(\w+)$/.exec(String(schema.$ref))?.[1];
  return name === undefined ? schema : components.schemas[name]!;
}

function typeOf(schema: Schema, document: ApiDocument): string {
  const { type, items, anyOf, enum: words } = resolved(schema, document);
  if (Array.isArray(words)) return words.map(word => `\`${word}\``).join(', ');
  if (Array.isArray(anyOf)) return anyOf.map(one => typeOf(one as Schema, document)).join(' or ');
  if (type === 'array') return `list of ${typeOf(items as Schema, document)}s`;
  return String(type ?? 'anything');
}
