import { Option } from 'commander';
import { OperatorError } from '../errors.js';
import type { Passphrase } from '../pki/folder.js';
import { checkPassphrase } from '../pki/key-file.js';
import { readPassword } from './password.js';

const VARIABLE = 'REGISTRY_SECURE_CA_PASSPHRASE_FILE';

export interface PassphraseOptions {
  readonly passphraseFile?: string;
}

/** `--passphrase-file`, the same for every command that signs with the authority's key. */
export function passphraseOption(): Option {
  return new Option(
    '--passphrase-file <file>',
    `the passphrase of an encrypted ca.key (default: the file that ${VARIABLE} names)`,
  );
}

/**
 * Where the passphrase of `ca.key` comes from: the file of the option or of the variable. It is never an argument or the
 * value of a variable, which other users of the machine can see.
 */
export function passphraseFileOf(options: PassphraseOptions): string | undefined {
  return options.passphraseFile ?? (process.env[VARIABLE] || undefined);
}

/** The passphrase from its file. Undefined where none is named. @throws OperatorError for a file that has none */
export async function passphraseFromFile(options: PassphraseOptions): Promise<string | undefined> {
  const file = passphraseFileOf(options);
  return file === undefined ? undefined : readPassphrase(file);
}

/** The present passphrase, from its file or asked for on the terminal, once and only where it is needed. */
export function openingPassphrase(options: PassphraseOptions): Passphrase {
  let asked: Promise<string | undefined> | undefined;
  return () => {
    asked ??= passphraseFileOf(options) === undefined && process.stdin.isTTY ? ask() : passphraseFromFile(options);
    return asked;
  };
}

/** As for a server that nobody sits before: read once at the start, and again where the file can still be read. */
export async function servingPassphrase(options: PassphraseOptions): Promise<Passphrase> {
  const first = await passphraseFromFile(options);
  return () => passphraseFromFile(options).catch(() => first);
}

/** A new passphrase: from this file, or typed twice. @throws OperatorError where there is neither file nor terminal */
export async function newPassphrase(file: string | undefined): Promise<string> {
  if (file !== undefined) return readPassphrase(file);
  if (!process.stdin.isTTY)
    throw new OperatorError('there is no terminal to ask for a new passphrase on', {
      fix: 'name a file that holds it',
    });
  const passphrase = await readPassword({}, ['New passphrase of ca.key: ', 'The same again: ']);
  checkPassphrase(passphrase);
  return passphrase;
}

async function ask(): Promise<string> {
  return readPassword({}, ['Passphrase of ca.key: ']);
}

async function readPassphrase(file: string): Promise<string> {
  const passphrase = await readPassword({ passwordFile: file }, []);
  if (passphrase === '')
    throw new OperatorError(`${file} is empty`, { fix: 'put the passphrase into it, on one line' });
  return passphrase;
}
