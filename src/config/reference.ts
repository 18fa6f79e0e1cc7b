import { FLAGS } from './flags.js';
import type { KeyInfo } from './keys.js';
import { type Node, TREE } from './tree.js';

const STATUS: Record<KeyInfo['status'], string> = {
  supported: 'yes',
  accepted: 'no effect',
  warned: 'no effect, warns',
  refused: 'refused',
};

const INTRODUCTION = `# Configuration

<!-- Generated from src/config/schema.ts by \`npm run docs\`. -->

\`registry-secure\` reads the configuration of \`registry:2\` and \`registry:3\` as it is: the same file, the same variables.
Nothing needs to be configured: without any of this, it serves the folder it is started in.

A value is taken from the first of these that gives one:

1. an option of the command line,
2. a variable \`REGISTRY_…\`,
3. the configuration file: the argument, else \`REGISTRY_CONFIGURATION_PATH\`, else \`/etc/docker/registry/config.yml\` or
   \`/etc/distribution/config.yml\` where there is one and no \`--dir\` is given,
4. the default.

\`registry-secure config check [file]\` says what is wrong, \`registry-secure config print [file]\` shows every value that is
in force and where it comes from, with secrets masked. Both take the options of \`serve\`.

## Values

- **Variables** hold YAML: \`REGISTRY_HTTP_HEADERS='{X-Frame-Options: [DENY]}'\`. A list item goes by its index
  (\`REGISTRY_HTTP_TLS_CIPHERSUITES_0\`), an entry of a map by its name (\`REGISTRY_LOG_FIELDS_SERVICE\`). They are applied in
  lexical order. A variable without a value takes away what the file says.
- **Kinds**: \`REGISTRY_AUTH=htpasswd\` and \`REGISTRY_STORAGE=s3\` pick one and replace the section of the file.
- **Durations** are numbers with units: \`168h\`, \`1h30m\`, \`30s\`, \`500ms\`. A bare number is nanoseconds, as in the original.
- **Paths** are relative to the working directory. \`DIR\` is \`--dir\`, by default the working directory.
- **Words** for truth values: \`true\`, \`yes\`, \`on\`, \`y\` and \`false\`, \`no\`, \`off\`, \`n\`.

A name that is not known is ignored with a warning that names the nearest known one; an unknown kind of storage or
authentication is refused. The variables that Kubernetes makes for a service named \`registry\`, podman's
\`REGISTRY_AUTH_FILE\` and the program's own \`REGISTRY_SECURE_…\` are not configuration.

## What differs from the original

- TLS is always on: without a certificate, one of the own authority is made. TLS 1.2 is the oldest version.
- Where nothing names a kind of authentication, users and passwords are asked for; an open registry is \`auth.none\`.
- SIGTERM lets running transfers finish, for 8 seconds unless \`http.draintimeout\` says otherwise.
- Variables work for sections that the file does not have: \`REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true\`.

## Keys

The column "here" says how a key of the original fares:

- **yes**: it does what it says.
- **no effect**: accepted, and nothing is lost by it.
- **no effect, warns**: a warning says so where it is set.
- **refused**: where it is set, nothing starts; for going on would store, trust or open something else than was meant.
- **own**: a key that the original does not have.
`;

/** The text of docs/configuration.md. */
export function reference(): string {
  const sections = [...TREE.children.values()].filter(node => node.children.size > 0);
  const single = [...TREE.children.values()].filter(node => node.children.size === 0);
  return [
    INTRODUCTION,
    ...sections.map(node => `### ${node.path}\n\n${node.about}\n\n${table(leaves(node))}`),
    `### Other\n\n${table(single)}`,
    `## Options\n\n${options()}`,
  ].join('\n');
}

/** The keys below a section, each with what holds for the section as a whole. */
function leaves(node: Node): Node[] {
  if (node.children.size === 0) return [node];
  const { status, instead } = node;
  const whole = status === 'supported' ? {} : { status, ...(instead && { instead }) };
  return [...node.children.values()].flatMap(child => leaves({ ...child, ...whole }));
}

function table(nodes: readonly Node[]): string {
  return rows(
    ['key and variable', 'value', 'default', 'here', 'meaning'],
    nodes.map(node => [
      `\`${node.path}\`<br>\`${node.environment}\``,
      node.type,
      fallback(node.fallback),
      node.ours ? 'own' : STATUS[node.status],
      node.instead ? `${node.about} (${node.instead[0]!.toUpperCase()}${node.instead.slice(1)}.)` : node.about,
    ]),
  );
}

function options(): string {
  return rows(
    ['option of `serve`, `up` and `config`', 'key'],
    FLAGS.map(({ flag, value, key }) => [`\`${value ? `${flag} ${value}` : flag}\``, `\`${key}\``]),
  );
}

function rows(head: readonly string[], body: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return `${[line(head), `|${'---|'.repeat(head.length)}`, ...body.map(line)].join('\n')}\n`;
}

/** Where a default depends on something, the schema words it, with its own code marks. */
function fallback(value: unknown): string {
  if (value === undefined || value === '') return '';
  if (Array.isArray(value)) return value.length > 0 ? value.map(item => `\`${item}\``).join(' ') : '`[]`';
  if (typeof value === 'object') return '`{}`';
  return String(value).includes('`') ? String(value) : `\`${value}\``;
}
