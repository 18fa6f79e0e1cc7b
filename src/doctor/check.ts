import type { ClientError } from './client-errors.js';

/** One thing that was looked at: it is well, or it is wrong and this is why and how it is mended. */
export interface Diagnosis {
  /** The name of the check that says so. */
  readonly check: string;
  /** `error`: clients or the server fail for it. `warning`: some do, or will. */
  readonly severity: 'ok' | 'warning' | 'error';
  /** What was found, with its cause. */
  readonly message: string;
  /** The row of the table of errors that clients show for it. */
  readonly error?: ClientError | undefined;
  /** How it is mended, as a sentence. */
  readonly fix?: string | undefined;
  /** The same as commands for a POSIX shell, complete. */
  readonly commands?: readonly string[] | undefined;
}

/** One step of an examination. What it learns for later steps it leaves in the subject. It has to end by itself. */
export interface Check<Subject> {
  readonly name: string;
  /** Shown while it runs. */
  readonly title: string;
  readonly run: (subject: Subject, say: Say) => Promise<void> | void;
}

export interface Say {
  ok(message: string): void;
  warning(message: string, more?: Remedy): void;
  error(message: string, more?: Remedy): void;
}

export type Remedy = Pick<Diagnosis, 'error' | 'fix' | 'commands'>;

/** In ms. Each step bounds what it waits for; this is for what cannot be bounded, a dead network file system say. */
const LONGEST_STEP = 60_000;

/**
 * Runs all checks, one after the other. One that breaks or hangs is a finding, and hides none of the others.
 * @param started told of each check as it begins.
 */
export async function examine<Subject>(
  checks: ReadonlyArray<Check<Subject>>,
  subject: Subject,
  started: (check: Check<Subject>) => void = () => undefined,
  longestStep = LONGEST_STEP,
): Promise<Diagnosis[]> {
  const found: Diagnosis[] = [];
  for (const check of checks) {
    started(check);
    const said: Diagnosis[] = [];
    const { name } = check;
    const say: Say = {
      ok: message => said.push({ check: name, severity: 'ok', message }),
      warning: (message, more) => said.push({ check: name, severity: 'warning', message, ...more }),
      error: (message, more) => said.push({ check: name, severity: 'error', message, ...more }),
    };
    try {
      await within(longestStep, async () => check.run(subject, say));
    } catch (error) {
      said.push({ check: name, severity: 'warning', message: `could not be looked at: ${(error as Error).message}` });
    }
    // A copy: what still hangs may speak later.
    found.push(...said);
  }
  return found;
}

async function within(time: number, task: () => Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it took longer than ${time / 1_000} s`)), time);
  });
  await Promise.race([task(), late]).finally(() => clearTimeout(timer));
}
