/**
 * What the table of clients says about each: where its files are, what is to be done, how to take it back, how to see that
 * the client is there. Look-ups are literal in all clients: a host is HOST[:PORT] just as it stands in image references.
 *
 * A place is an absolute path, or begins with a folder that depends on the user: `$HOME`, `${XDG_CONFIG_HOME:-$HOME/.config}`
 * or `${XDG_RUNTIME_DIR}`, as a POSIX shell expands them, or with `$env:ProgramData` as PowerShell does (places.ts).
 */
export type Place = string;

/** The folder of a user's own configuration. */
export const CONFIG_HOME = `\${XDG_CONFIG_HOME:-$HOME/.config}`;

/** `unix`: Linux and macOS alike, by a POSIX shell. Of Windows the shell is PowerShell. */
export type System = 'linux' | 'macos' | 'unix' | 'windows';

/** What is known when instructions are made. Sources are words for the shell of the client, quoted where they need it. */
export interface Target {
  /** HOST[:PORT]. */
  readonly host: string;
  /** The file to install: during a rotation it holds two authorities. */
  readonly ca: string;
  /** What is in it. */
  readonly pem: string;
  /** One for each authority in it, for stores that take one certificate a file. */
  readonly authorities: readonly Authority[];
  /** The client's own certificate, where the registry asks for one. */
  readonly pair: { readonly certificate: string; readonly key: string } | undefined;
  /** Of the container that writes the files on the nodes of a cluster: it has a POSIX shell. */
  readonly image: string;
}

export interface Authority {
  /** What its file and entry are called in a store, so that it can be found and removed: from its fingerprint. */
  readonly id: string;
  /** A file that holds it alone. */
  readonly file: string;
}

/** One thing to do on the client. `root`: only root may. */
export type Step =
  /** A file comes to its place: 0644, a key 0600. */
  | {
      readonly copy: 'ca' | 'certificate' | 'key';
      readonly from: string;
      readonly to: Place;
      readonly root: boolean;
    }
  /** A file that is the registry's alone. */
  | { readonly write: string; readonly to: Place; readonly root: boolean }
  /** A part of a file that may hold more: a map of YAML or JSON, or tables that are put behind what TOML has. */
  | {
      readonly add: string;
      readonly as: 'yaml' | 'toml' | 'json';
      readonly host: string;
      readonly to: Place;
      readonly root: boolean;
    }
  /** A command. `input` comes from standard input. What has no undo leaves nothing behind. */
  | { readonly run: string; readonly input?: string; readonly undo?: string };

export interface TrustClient {
  /** As `--client` takes it. */
  readonly name: string;
  readonly title: string;
  readonly system: System;
  /**
   * When the client counts as present: all of one of the lists are there. A word is a command in the search path, anything
   * else a place. Empty: it cannot be seen, or there is nothing that `trust install` could do once and for all.
   */
  readonly present: ReadonlyArray<readonly string[]>;
  /** A store of the whole machine, or of a program that is no container client: only where somebody chose it. */
  readonly store?: true;
  /** What gives security up: never listed, only shown when it is asked for by name. */
  readonly unsafe?: true;
  /** The steps take `target.authorities`, not `target.ca`. */
  readonly perAuthority?: true;
  /** What is done is no state of this machine's own: only a person can do it, or undo it. */
  readonly byHand?: true;
  /** The file has to stay: it, or what is made beside it, is named again with each use. */
  readonly keepsFile?: true;
  /** The commands are executed as they are printed in test/e2e, and the real client then trusts the registry. */
  readonly proven?: true;
  readonly steps: (target: Target) => readonly Step[];
  /** What has to be restarted, and when, as a sentence. */
  readonly restart: string;
  /** The command for it, where one is always right. */
  readonly restartBy?: string;
  /** What else people trip over, as sentences. */
  readonly notes?: (target: Target) => readonly string[];
}

/** The authority, and the client's own pair where there is one, into one folder. */
export function folderSteps(
  { ca, pair }: Target,
  folder: Place,
  names: { readonly certificate: string; readonly key: string } = CLIENT_PAIR,
  root = folder.startsWith('/'),
): Step[] {
  return [
    { copy: 'ca', from: ca, to: `${folder}/ca.crt`, root },
    ...(pair
      ? ([
          { copy: 'certificate', from: pair.certificate, to: `${folder}/${names.certificate}`, root },
          { copy: 'key', from: pair.key, to: `${folder}/${names.key}`, root },
        ] as const)
      : []),
  ];
}

/** Whether a place is in a folder that is one registry's alone, so that it may go when it is empty. */
export function inOwnFolder(place: Place): boolean {
  return /(^|[/\\])certs\.d[/\\][^/\\]+[/\\][^/\\]+$/.test(place);
}

/** What docker and podman look for: NAME.cert with NAME.key; any *.crt is an authority. */
const CLIENT_PAIR = { certificate: 'client.cert', key: 'client.key' } as const;
