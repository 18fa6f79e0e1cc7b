import { open } from 'node:fs/promises';
import { StringDecoder } from 'node:string_decoder';
import type { ReadStream, WriteStream } from 'node:tty';
import { OperatorError, systemCode } from '../errors.js';

/** Far more than a password may have. In bytes. */
const LONGEST_INPUT = 4096;

export interface PasswordOptions {
  readonly passwordStdin?: boolean;
  readonly passwordFile?: string;
}

/**
 * The password from where the options say: standard input, a file, or else the terminal, without showing it.
 * @param prompts what is asked on the terminal, one after the other; all answers must be the same.
 * @throws OperatorError where there is no terminal to ask on, or the answers differ.
 */
export async function readPassword(options: PasswordOptions, prompts: readonly string[]): Promise<string> {
  if (options.passwordFile !== undefined)
    return passwordOf(await readFileStart(options.passwordFile), options.passwordFile);
  if (options.passwordStdin) {
    if (process.stdin.isTTY)
      throw new OperatorError('--password-stdin would show the password on this terminal', {
        fix: 'leave the option out to be asked for it, or pipe it in',
      });
    return passwordOf(await readStart(process.stdin), 'standard input');
  }
  if (!process.stdin.isTTY)
    throw new OperatorError('there is no terminal to ask for the password on', {
      fix: 'pipe it in with --password-stdin, or name a file with --password-file',
    });
  const answers = await askHidden(prompts, process.stdin, process.stderr);
  if (answers.some(answer => answer !== answers[0]))
    throw new OperatorError('the two passwords are not the same', { fix: 'nothing was changed; try again' });
  return answers[0]!;
}

/** The bytes as text without the line end that editors and `echo` put behind it. */
function passwordOf(bytes: Buffer, source: string): string {
  if (bytes.length > LONGEST_INPUT)
    throw new OperatorError(`${source} is too long for a password`, { fix: 'give the password alone, on one line' });
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes).replace(/\r?\n$/, '');
  } catch {
    throw new OperatorError(`${source} is not UTF-8`, { fix: 'give the password in UTF-8' });
  }
}

async function readStart(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > LONGEST_INPUT) break;
  }
  return Buffer.concat(chunks);
}

async function readFileStart(file: string): Promise<Buffer> {
  try {
    return await readStart((await open(file)).createReadStream());
  } catch (error) {
    const code = systemCode(error);
    const what = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? (error as Error).message})`;
    throw new OperatorError(`${file} ${what}`, {
      fix: 'give the path of a file that this user may read',
      cause: error,
    });
  }
}

/**
 * Asks on a terminal in raw mode, which shows nothing. Backspace and Ctrl-U correct, Enter ends an answer, so a pasted
 * line end does too. Cursor keys and other escape sequences count for nothing.
 * @throws OperatorError with exit code 130 on Ctrl-C, Ctrl-D and at the end of input.
 */
export function askHidden(
  prompts: readonly string[],
  input: Pick<ReadStream, 'setRawMode' | 'on' | 'off' | 'pause' | 'resume'>,
  output: Pick<WriteStream, 'write'>,
): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const answers: string[] = [];
    const decoder = new StringDecoder('utf8');
    let typed: string[] = [];
    let stopped = false;
    const ask = (): void => {
      output.write(prompts[answers.length]!);
    };
    const stop = (): void => {
      stopped = true;
      input.off('data', take).off('end', cancel);
      input.setRawMode(false);
      input.pause();
    };
    const cancel = (): void => {
      stop();
      output.write('\n');
      reject(new OperatorError('cancelled', { fix: 'nothing was changed', exitCode: 130 }));
    };
    const enter = (): void => {
      output.write('\n');
      answers.push(typed.join(''));
      typed = [];
      if (answers.length < prompts.length) {
        ask();
      } else {
        stop();
        resolve(answers);
      }
    };
    const take = (bytes: Buffer): void => {
      for (const key of keysOf(decoder.write(bytes))) {
        if (key === '\x03' || key === '\x04') {
          cancel();
        } else if (key === '\r' || key === '\n') {
          enter();
        } else if (key === '\x7f' || key === '\b') {
          typed.pop();
        } else if (key === '\x15') {
          typed = [];
        } else if (!key.startsWith('\x1b')) {
          typed.push(key);
        }
        if (stopped) break;
      }
    };
    input.setRawMode(true);
    input.on('data', take).on('end', cancel);
    input.resume();
    ask();
  });
}

/** Single characters and whole escape sequences (ECMA-48 §5.4); a pasted CRLF is one line end. */
function keysOf(text: string): string[] {
  return text.replaceAll('\r\n', '\r').match(/\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b|[^\x1b]/gsu) ?? [];
}
