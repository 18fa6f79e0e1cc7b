import { basename, posix } from 'node:path';
import { OperatorError } from '../errors.js';
import { parseImageHost } from './names.js';

/**
 * How each container client is told to trust the registry: one table, from which come the printed commands. Look-ups
 * are literal in all clients: `H` is HOST[:PORT] just as it stands in image references.
 */

type System = 'linux' | 'macos' | 'windows';

/** What is known when commands are made: `host` as in image references, and the file to install. */
interface Target {
  readonly host: string;
  readonly caFile: string;
}

/** One thing done on the client. Paths are absolute or below a folder that a shell expands (`$HOME/…`). */
type Step =
  | { readonly install: 'ca'; readonly to: string; readonly root: boolean }
  | { readonly write: string; readonly to: string; readonly root: boolean }
  | { readonly run: string; readonly undo: string };

interface TrustClient {
  readonly name: string;
  readonly title: string;
  readonly system: System;
  readonly steps: (target: Target) => readonly Step[];
  /** What to restart and when, as a sentence. */
  readonly restart: string;
  /** What else people trip over, as sentences. */
  readonly notes?: (target: Target) => readonly string[];
}

const CONTAINERD = '/etc/containerd/certs.d';

const CLIENTS: readonly TrustClient[] = [
  {
    name: 'docker',
    title: 'Docker Engine on Linux',
    system: 'linux',
    steps: ({ host }) => [{ install: 'ca', to: `/etc/docker/certs.d/${host}/ca.crt`, root: true }],
    restart:
      'No restart for login, push and pull; builds with FROM this registry need one: sudo systemctl restart docker',
  },
  {
    name: 'docker-rootless',
    title: 'Docker Engine on Linux, rootless',
    system: 'linux',
    steps: ({ host }) => [
      { install: 'ca', to: `\${XDG_CONFIG_HOME:-$HOME/.config}/docker/certs.d/${host}/ca.crt`, root: false },
    ],
    restart:
      'No restart for login, push and pull; builds with FROM this registry need one: systemctl --user restart docker',
  },
  {
    name: 'docker-desktop-macos',
    title: 'Docker Desktop on macOS, for all users',
    system: 'macos',
    steps: ({ caFile }) => [
      {
        run: `sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ${caFile}`,
        undo: `sudo security remove-trusted-cert -d ${caFile}`,
      },
    ],
    restart: 'Then restart Docker Desktop.',
    notes: () => ['macOS asks for the consent of an administrator, also under sudo.'],
  },
  {
    name: 'docker-desktop-macos-user',
    title: 'Docker Desktop on macOS, for this user',
    system: 'macos',
    steps: ({ caFile }) => [
      {
        run: `security add-trusted-cert -d -r trustRoot -k ~/Library/Keychains/login.keychain ${caFile}`,
        undo: `security remove-trusted-cert -d ${caFile}`,
      },
    ],
    restart: 'Then restart Docker Desktop.',
    notes: ({ host }) => [
      'Newer systems call the file login.keychain-db.',
      `Without a keychain: put it at ~/.docker/certs.d/${host}/ca.crt instead.`,
    ],
  },
  {
    name: 'docker-desktop-windows',
    title: 'Docker Desktop on Windows (PowerShell, as administrator)',
    system: 'windows',
    steps: ({ caFile }) => [
      {
        run: `certutil -addstore -f ROOT ${caFile}`,
        undo: `Remove-Item "Cert:\\LocalMachine\\Root\\$((Get-PfxCertificate ${caFile}).Thumbprint)"`,
      },
    ],
    restart: 'Then restart Docker Desktop.',
  },
  {
    name: 'podman',
    title: 'Podman, Buildah, Skopeo, CRI-O',
    system: 'linux',
    steps: ({ host }) => [{ install: 'ca', to: `/etc/containers/certs.d/${host}/ca.crt`, root: true }],
    restart: 'No restart.',
    notes: ({ host }) => [
      `A folder ~/.config/containers/certs.d/${host} would be used instead of this one, even when empty.`,
      'Podman machine (macOS, Windows): run it inside of podman machine ssh.',
    ],
  },
  {
    name: 'containerd',
    title: 'containerd, nerdctl',
    system: 'linux',
    steps: ({ host }) => [
      { install: 'ca', to: `${CONTAINERD}/${host}/ca.crt`, root: true },
      {
        write: [
          `server = "https://${host}"`,
          '',
          `[host."https://${host}"]`,
          '  capabilities = ["pull", "resolve", "push"]',
          `  ca = "${CONTAINERD}/${host}/ca.crt"`,
        ].join('\n'),
        to: `${CONTAINERD}/${host}/hosts.toml`,
        root: true,
      },
    ],
    restart: 'No restart for these files; one after a change of config.toml: sudo systemctl restart containerd',
    notes: () => [
      `Kubernetes reads them when /etc/containerd/config.toml says config_path = "${CONTAINERD}" below`,
      '[plugins."io.containerd.cri.v1.images".registry] (version = 3, containerd 2.x), or below',
      '[plugins."io.containerd.grpc.v1.cri".registry] (version = 2, containerd 1.x).',
      `ctr wants --hosts-dir ${CONTAINERD} each time.`,
    ],
  },
];

export const TRUST_CLIENTS: ReadonlyArray<{ readonly name: string; readonly title: string }> = CLIENTS;

/** What to do on one kind of client. Commands are complete: pasted into a shell, they do it. */
interface ClientInstructions {
  readonly client: string;
  readonly title: string;
  readonly system: System;
  readonly commands: readonly string[];
  readonly undo: readonly string[];
  readonly restart: string;
  readonly notes: readonly string[];
}

export interface TrustInstructions {
  /** HOST[:PORT] as it stands in image references. */
  readonly host: string;
  readonly caFile: string;
  readonly clients: readonly ClientInstructions[];
}

/**
 * The instructions for the named kinds of client, or for all. `caFile` is where the file to install lies on this
 * machine; clients of another operating system find it by its bare name in their working directory.
 * @throws OperatorError for a host that no image reference can hold, or an unknown kind of client.
 */
export function trustInstructions(options: {
  readonly host: string;
  readonly caFile: string;
  readonly clients?: readonly string[] | undefined;
}): TrustInstructions {
  const host = parseImageHost(options.host).imageHost;
  const names = options.clients ?? CLIENTS.map(client => client.name);
  const clients = names.map(name => {
    const client = CLIENTS.find(known => known.name === name);
    if (client) return instructions(client, host, options.caFile);
    throw new OperatorError(`there are no instructions for a client ${JSON.stringify(name)}`, {
      fix: `use one of ${CLIENTS.map(known => known.name).join(', ')}`,
    });
  });
  return { host, caFile: options.caFile, clients };
}

function instructions(client: TrustClient, host: string, caFile: string): ClientInstructions {
  const quote = client.system === 'windows' ? windowsQuoted : quoted;
  const target = { host, caFile: quote(client.system === thisSystem() ? caFile : basename(caFile)) };
  const steps = client.steps(target);
  return {
    client: client.name,
    title: client.title,
    system: client.system,
    commands: steps.flatMap(step => commandsOf(step, target)),
    undo: [...steps].reverse().flatMap(undoOf),
    restart: client.restart,
    notes: client.notes?.(target) ?? [],
  };
}

function commandsOf(step: Step, { caFile }: Target): string[] {
  if ('run' in step) return [step.run];
  const sudo = step.root ? 'sudo ' : '';
  if ('install' in step) return [`${sudo}install -Dm644 ${caFile} ${quoted(step.to)}`];
  return [`${sudo}tee ${quoted(step.to)} >/dev/null <<'EOF'\n${step.write}\nEOF`];
}

function undoOf(step: Step): string[] {
  if ('run' in step) return [step.undo];
  const sudo = step.root ? 'sudo ' : '';
  // The folder goes as well: some clients stop at the first one they find, even when it is empty.
  const folder = quoted(posix.dirname(step.to));
  return [
    `${sudo}rm -f ${quoted(step.to)}`,
    ...('install' in step ? [`${sudo}rmdir --ignore-fail-on-non-empty ${folder}`] : []),
  ];
}

function thisSystem(): System {
  return process.platform === 'win32' ? 'windows' : process.platform === 'darwin' ? 'macos' : 'linux';
}

/** One word for a POSIX shell. A leading variable is left for the shell to expand, between double quotes. */
export function quoted(word: string): string {
  const [, variable = '', rest = ''] = /^(\$HOME|\$\{[^}]+\})?(.*)$/s.exec(word) ?? [];
  const plain = /^[\w@%+=:,./-]+$/.test(rest) ? rest : `'${rest.replaceAll("'", `'\\''`)}'`;
  return variable === '' ? plain : `"${variable}"${plain}`;
}

/** One word for PowerShell. */
function windowsQuoted(word: string): string {
  return /^[\w.:\\/-]+$/.test(word) ? word : `'${word.replaceAll("'", "''")}'`;
}

/** The instructions as text that a POSIX shell takes as it is: all but the commands are comments. */
export function renderTrust({ clients }: TrustInstructions): string {
  return clients
    .map(({ title, commands, undo, restart, notes }) =>
      [
        `# ${title}:`,
        ...commands,
        ...[restart, ...notes].map(line => `#   ${line}`),
        ...undo.map(line => `#   undo: ${line}`),
      ].join('\n'),
    )
    .join('\n\n')
    .concat('\n');
}
