import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { z } from 'zod';
import { OperatorError, systemCode } from '../errors.js';
import { isBlank, parseYaml, type Raw, type RawMap } from '../yaml.js';
import { Draft } from './draft.js';
import { applyEnvironment } from './environment.js';
import type { FlagValue } from './flags.js';
import { plainDirectories } from './realms.js';
import { type Config, schema } from './schema.js';
import { chosen, NODES, type Node, nodeAt, TREE } from './tree.js';
import { nearest, parseBoolean } from './values.js';
import { usualWorkers } from './workers.js';

/** Where Distribution's image, and Debian's and later packages of it, keep their configuration. */
const STANDARD_FILES = ['/etc/docker/registry/config.yml', '/etc/distribution/config.yml'];

export interface LoadOptions {
  /** The folder with `certs/`, `auth/` and `data/`, absolute. */
  readonly dir: string;
  /** Whether the operator named that folder, instead of leaving it at the working directory. */
  readonly dirGiven?: boolean;
  /** The file named on the command line; without it REGISTRY_CONFIGURATION_PATH, then the standard places. */
  readonly file?: string | undefined;
  /**
   * The standard places: none where the operator named a folder, for that means what is in it and not what some package has put
   * into /etc. `false` also leaves them alone without one: for commands that make their own setting, such as `up`.
   */
  readonly standardFiles?: readonly string[] | false;
  readonly env: NodeJS.ProcessEnv;
  readonly flags?: readonly FlagValue[];
}

export interface Loaded {
  readonly config: Config;
  /** Dotted path of each value → `default`, `file PATH`, `REGISTRY_…` or `--flag`. */
  readonly sources: ReadonlyMap<string, string>;
  /** Each one line, without an end. */
  readonly warnings: readonly string[];
  /** The configuration file that was read. */
  readonly file?: string;
}

interface Problem {
  readonly what: string;
  readonly fix?: string | undefined;
}

/** What `inspectConfig` found: a configuration, or the problems that forbid one. */
export interface Inspected extends Omit<Loaded, 'config'> {
  readonly config?: Config;
  readonly problems: readonly Problem[];
}

/** The configuration in force: flags over variables over the file over defaults. @throws OperatorError for the first problem */
export function loadConfig(options: LoadOptions): Loaded {
  const { config, problems, ...rest } = inspectConfig(options);
  const [first, ...others] = problems;
  if (config) return { config, ...rest };
  throw new OperatorError(
    others.length === 0 ? first!.what : `${first!.what} (and ${others.length} more: see registry-secure config check)`,
    first!.fix === undefined ? {} : { fix: first!.fix },
  );
}

/** As `loadConfig`, but answers all problems at once. */
export function inspectConfig(options: LoadOptions): Inspected {
  const loader = new Loader(options);
  try {
    return loader.run();
  } catch (error) {
    // What keeps the rest from being looked at: a file that cannot be read, a variable that is no YAML.
    if (!(error instanceof OperatorError)) throw error;
    return loader.failed({ what: error.message, fix: error.fix });
  }
}

class Loader {
  private readonly draft = new Draft();
  private readonly problems: Problem[] = [];
  private readonly warnings: string[] = [];
  private readonly file: string | undefined;
  private positions: ReadonlyMap<string, string> = new Map();

  constructor(private readonly options: LoadOptions) {
    this.file = fileOf(options);
  }

  run(): Inspected {
    if (this.file) this.readFile(this.file);
    this.warnings.push(...applyEnvironment(this.draft, this.options.env));
    // Logins at a provider are no kind of their own.
    const authNamed = Object.keys(this.draft.get(['auth']) ?? {}).some(kind => kind !== 'oidc');
    for (const { flag, key, value } of this.options.flags ?? []) this.draft.set(key.split('.'), value, flag);
    this.prune(TREE, this.draft.tree);
    this.move();
    this.fillIn(authNamed);
    this.caution();
    const parsed = schema.safeParse(this.draft.tree);
    for (const issue of parsed.error?.issues ?? []) this.reject(issue);
    if (!parsed.success || this.problems.length > 0) return this.failed();
    if (parsed.data.auth.none)
      this.warn('auth.none', 'leaves the registry open: everybody who reaches it may pull and push');
    for (const { path, message } of plainDirectories(parsed.data.auth.realms)) this.warn(path, message);
    if (parsed.data.http.insecureplainhttp)
      this.warn(
        'http.insecureplainhttp',
        'turns TLS off: passwords and images travel in the clear unless a proxy or tunnel encrypts them',
      );
    return { ...this.found(), config: parsed.data, problems: [] };
  }

  failed(problem?: Problem): Inspected {
    return { ...this.found(), problems: problem ? [...this.problems, problem] : this.problems };
  }

  private found() {
    const { warnings, file } = this;
    return { warnings, sources: this.sources(), ...(file !== undefined && { file }) };
  }

  private readFile(file: string): void {
    const content = readText(file);
    try {
      const { value, positions } = parseYaml(content);
      this.positions = positions;
      if (isBlank(value)) return;
      if (typeof value !== 'object' || Array.isArray(value))
        throw new OperatorError('1:1: this is no configuration', {
          fix: 'write keys such as http: with values below them',
        });
      for (const [name, child] of Object.entries(value))
        this.draft.set([name], chosen(nodeAt(name) ?? TREE, child), `file ${file}`);
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      throw new OperatorError(`${file}:${error.message}`, { ...(error.fix && { fix: error.fix }), cause: error });
    }
  }

  /** Takes out of the draft what the schema does not hold, so that what is left can be parsed strictly. */
  private prune(section: Node, values: RawMap): void {
    for (const [name, value] of Object.entries(values)) {
      const place = [...(section.path ? section.path.split('.') : []), name];
      const node = section.children.get(name);
      if (!node) this.unknown(section, place.join('.'));
      else if ((node.status === 'refused' || node.status === 'warned') && (section.choice || !isUsual(node, value)))
        this.unsupported(node);
      const blank = isBlank(value);
      if (!node || node.shape === 'opaque' || (blank && node.shape !== 'section')) this.draft.remove(place);
      else if (node.shape !== 'section') continue;
      else if (blank) values[name] = {};
      else if (typeof value === 'object' && !Array.isArray(value)) this.prune(node, value);
      else {
        this.problem(node.path, `expects further keys: ${[...node.children.keys()].join(', ')}`);
        this.draft.remove(place);
      }
    }
  }

  private unknown(section: Node, path: string): void {
    const candidates = section.choice ? [...section.children.values()] : NODES;
    const known = nearest(
      path,
      candidates.map(node => node.path),
    );
    const hint = known && `did you mean ${known}?`;
    if (section.choice) this.problem(path, `is no known ${section.choice}`, hint);
    else this.warn(path, `is no known key and is ignored${hint ? `; ${hint}` : ''}`);
  }

  private unsupported(node: Node): void {
    if (node.status === 'refused') this.problem(node.path, 'is not supported', node.instead ?? 'remove it');
    else this.warn(node.path, `has no effect; ${node.instead ?? 'remove it'}`);
  }

  /** Old names give their values to the new ones, which win where both are set. */
  private move(): void {
    for (const { path, movedTo } of NODES) {
      const value = movedTo === undefined ? undefined : this.draft.get(path.split('.'));
      if (movedTo === undefined || value === undefined) continue;
      const source = this.draft.sourceOf(path)!;
      if (nodeAt(movedTo)?.status === 'supported') this.warn(path, `is an old name; write ${movedTo}`);
      if (this.draft.get(movedTo.split('.')) === undefined) this.draft.set(movedTo.split('.'), value, source);
      this.draft.remove(path.split('.'));
    }
  }

  /** The defaults that depend on where we are. An open registry is never one of them. */
  private fillIn(authNamed: boolean): void {
    const { dir, dirGiven } = this.options;
    const own = join(dir, 'auth', 'htpasswd');
    const given = (kind: string) => this.draft.get(['auth', kind]) !== undefined;
    if (!given('none') && !given('token') && (!given('realms') || given('htpasswd')))
      this.fill('auth.htpasswd.path', !authNamed || dirGiven || existsSync(own) ? own : '/auth/htpasswd');
    const [first, second] = ['filesystem', 's3', 'azure', 'gcs', 'swift'].filter(
      kind => this.draft.get(['storage', kind]) !== undefined,
    );
    if (second !== undefined)
      this.problem(
        `storage.${second}`,
        `is set beside storage.${first}`,
        `keep one of them; REGISTRY_STORAGE=${second} picks that kind over a file`,
      );
    // Beside the data where the folder is ours to arrange; else where there is sure to be a volume.
    const arranged = !this.file && this.draft.sourceOf('storage.filesystem.rootdirectory') === undefined;
    this.fill('storage.filesystem.rootdirectory', this.file ? '/var/lib/registry' : join(dir, 'data'));
    const root = this.draft.get(['storage', 'filesystem', 'rootdirectory']);
    if (arranged) this.fill('audit.folder', join(dir, 'audit'));
    else if (typeof root === 'string') this.fill('audit.folder', join(root, 'registry-secure', 'audit-log'));
    this.fill('workers', String(usualWorkers()));
  }

  private fill(path: string, value: string): void {
    if (this.draft.get(path.split('.')) === undefined) this.draft.set(path.split('.'), value, 'default');
  }

  private caution(): void {
    for (const { path, caution } of NODES) {
      const value = this.draft.get(path.split('.'));
      const words = typeof value === 'string' ? caution?.(value) : undefined;
      if (words) this.warn(path, words);
    }
  }

  private reject(issue: z.core.$ZodIssue): void {
    const fix = issue.code === 'custom' ? (issue.params?.fix as string | undefined) : undefined;
    const message = issue.code === 'invalid_key' ? issue.issues[0]?.message : undefined;
    const unknown = issue.code === 'unrecognized_keys' ? `, and not ${issue.keys.join(', ')}` : '';
    this.problem(issue.path.join('.'), `${message ?? issue.message}${unknown}`, fix);
  }

  private problem(path: string, what: string, fix?: string): void {
    this.problems.push({ what: `${this.where(path)}${path} ${what}`, fix });
  }

  private warn(path: string, what: string): void {
    this.warnings.push(`${this.where(path)}${path} ${what}`);
  }

  /** `FILE:LINE:COLUMN: `, `REGISTRY_…: ` or `--flag: `. */
  private where(path: string): string {
    const source = this.draft.sourceOf(path);
    if (source === undefined || source === 'default') return '';
    if (source !== `file ${this.file}`) return `${source}: `;
    let key = path;
    while (key.includes('.') && !this.positions.has(key)) key = key.slice(0, key.lastIndexOf('.'));
    const position = this.positions.get(key);
    return `${this.file}:${position ? `${position}:` : ''} `;
  }

  private sources(): Map<string, string> {
    const sources = new Map(this.draft.sources);
    for (const { path, fallback } of NODES)
      if (fallback !== undefined && this.draft.sourceOf(path) === undefined) sources.set(path, 'default');
    return sources;
  }
}

function fileOf({ file, env, dirGiven, standardFiles = STANDARD_FILES }: LoadOptions): string | undefined {
  const named = file || env.REGISTRY_CONFIGURATION_PATH;
  if (named) return resolve(named);
  return standardFiles && !dirGiven ? standardFiles.find(path => existsSync(path)) : undefined;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const fixes: Record<string, [what: string, fix: string]> = {
      ENOENT: ['there is no such configuration file', 'check the path, or in a container the mount'],
      EISDIR: [
        'this configuration file is a folder',
        'name the file; docker makes a folder where the file to mount does not exist',
      ],
      EACCES: ['this configuration file may not be read', 'give its reader the right: chmod or chown it'],
    };
    const [what, fix] = fixes[systemCode(cause) ?? ''] ?? [`cannot be read (${systemCode(cause)})`, 'check the file'];
    throw new OperatorError(`${file}: ${what}`, { fix, cause });
  }
}

/** Whether a value asks for nothing but the default, or turns off what it is for: nothing is lost by its having no effect. */
function isUsual(node: Node, value: Raw): boolean {
  if (node.shape !== 'section' || typeof value !== 'object') return isOff(value) || value === String(node.fallback);
  return Object.entries(value).every(([name, child]) => {
    const below = node.children.get(name);
    return below !== undefined && isUsual(below, child);
  });
}

function isOff(value: Raw): boolean {
  if (typeof value === 'object') return Object.values(value).every(isOff);
  if (isBlank(value)) return true;
  try {
    return !parseBoolean(value);
  } catch {
    return false;
  }
}
