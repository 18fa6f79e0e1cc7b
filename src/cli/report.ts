import { OperatorError, systemCode } from '../errors.js';

/** Tells on standard error, in one line, why the program ends. @returns its exit code @throws what no operator can mend */
export function report(error: unknown): number {
  if (!(error instanceof OperatorError)) throw error;
  process.stderr.write(`registry-secure: ${error.message}${error.fix ? `; ${error.fix}` : ''}\n`);
  return error.exitCode;
}

/** Whoever reads the output may have seen enough, as `head` has. */
export function toleratePipes(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', error => {
      if (systemCode(error) !== 'EPIPE') throw error;
    });
}
