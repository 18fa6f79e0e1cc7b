import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import type { Command } from 'commander';
import type { AuditEvent } from '../audit/event.js';
import type { Config } from '../config/schema.js';

/** The commands that change something, and what the audit log calls it. */
const CHANGES: Readonly<Record<string, string>> = {
  'user add': 'user.add',
  'user passwd': 'user.password',
  'user remove': 'user.remove',
  'user disable': 'user.disable',
  'user enable': 'user.enable',
  'user expire': 'user.expire',
  'token create': 'token.create',
  'token revoke': 'token.revoke',
  'init-certs': 'certificate.create',
  'certs renew': 'certificate.renew',
  'certs rotate-ca': 'certificate.rotate',
  'certs csr': 'certificate.csr',
  'certs sign': 'certificate.sign',
  'certs import': 'certificate.import',
  'certs passphrase': 'certificate.passphrase',
  'certs client add': 'client-certificate.add',
  'certs client revoke': 'client-certificate.revoke',
  'certs client crl': 'client-certificate.list',
  'maintenance on': 'maintenance.on',
  'maintenance off': 'maintenance.off',
  gc: 'maintenance.gc',
  'garbage-collect': 'maintenance.gc',
  backup: 'maintenance.backup',
  restore: 'maintenance.restore',
  verify: 'maintenance.repair',
};

/** Options that say how a command is run, and not what it does. */
const HOW = /^(?:json|dir|root|config|quiet)$|pass|stdin/i;

const further = new WeakMap<Command, Readonly<Record<string, string>>>();

/** Has the audit log told more of a command than what it was given. */
export function addToTrail(command: Command, more: Readonly<Record<string, string>>): void {
  further.set(command, more);
}

/**
 * Tells the audit log of a command that changes something, when it is done: as a chain of this process. Only where a
 * registry has begun such a log: who has never served has nothing to look after.
 */
export class Trail {
  #command: Command | undefined;

  constructor(program: Command) {
    program.hook('preAction', (_program, command) => {
      this.#command = command;
    });
  }

  /** @param failure why it failed; undefined where it did not */
  async tell(failure: string | undefined): Promise<void> {
    const command = this.#command;
    const type = command && CHANGES[pathOf(command)];
    // Of what another registry does, that one's log tells.
    if (
      !command ||
      !type ||
      command.opts().dryRun ||
      command.opts().server !== undefined ||
      (type === 'maintenance.repair' && !command.opts().repair)
    )
      return;
    try {
      const config = await servedBy(command);
      if (!config) return;
      const what = { ...whatOf(command), ...further.get(command), ...(failure !== undefined && { reason: failure }) };
      const outcome = failure === undefined ? 'done' : 'failed';
      await write(config, pathOf(command), { type, outcome, who: whoRuns(), via: 'command', what });
    } catch (error) {
      // What has kept the command from its work has been said.
      if ((error as Error).message === failure) return;
      warn(`the audit log does not tell of this: ${(error as Error).message}`);
    }
  }
}

async function write(config: Config, program: string, event: AuditEvent): Promise<void> {
  const { openAuditLog } = await import('../server/audit.js');
  const { withVolume } = await import('./volume.js');
  await withVolume(config, { readOnly: false }, async driver => {
    const log = await openAuditLog(config, driver, program, { error: warn, warn, info: () => {} });
    log.record(event);
    await log.close();
  });
}

/**
 * The configuration with which a registry serves what the command is about, and has begun an audit log. A command on the
 * data is told which one it is; users and certificates are those of a folder, or in a container of the standard file.
 */
async function servedBy(command: Command): Promise<Config | undefined> {
  const { loadConfig } = await import('../config/load.js');
  const { dir = '.', root, config: named } = command.opts<{ dir?: string; root?: string; config?: string }>();
  const dirGiven = command.getOptionValueSource('dir') === 'cli';
  const flags = root === undefined ? [] : [{ flag: '--root', key: 'storage.filesystem.rootdirectory', value: root }];
  const given = argumentsOf(command);
  const onData = 'config' in given || command.options.some(option => option.attributeName() === 'root');
  const file = (given.config as string | undefined) ?? named;
  const loaded = { dir, dirGiven, file, env: process.env, flags };
  for (const more of onData || dirGiven ? [{}] : [{ standardFiles: false as const }, {}]) {
    const { config } = loadConfig({ ...loaded, ...more });
    if (config.audit.enabled && existsSync(config.audit.folder)) return config;
  }
  return undefined;
}

/** The names of the command, without the program's. */
function pathOf(command: Command): string {
  return command.parent?.parent ? `${pathOf(command.parent)} ${command.name()}` : command.name();
}

function argumentsOf(command: Command): Record<string, unknown> {
  return Object.fromEntries(
    command.registeredArguments.map((argument, index) => [argument.name(), command.processedArgs[index]]),
  );
}

/** Arguments, and the options that were given. None of them is a secret: those are never on the command line. */
function whatOf(command: Command): Record<string, string | string[]> {
  const { config: _, ...given } = argumentsOf(command);
  for (const [name, value] of Object.entries(command.opts()))
    if (!HOW.test(name) && command.getOptionValueSource(name) === 'cli') given[name] = value;
  const told = Object.entries(given).filter(([, value]) => value !== undefined);
  return Object.fromEntries(
    told.map(([name, value]) => [name, Array.isArray(value) ? value.map(String) : textOf(value)]),
  );
}

function textOf(value: unknown): string {
  return value instanceof Date ? value.toISOString() : String(value);
}

function whoRuns(): string {
  const through = process.env.SUDO_USER;
  return `${userName()}${through === undefined ? '' : ` (sudo ${through})`}`;
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // In a container a user may have no name.
    return `uid ${process.getuid?.() ?? '?'}`;
  }
}

function warn(message: string): void {
  process.stderr.write(`registry-secure: warning: ${message}\n`);
}
