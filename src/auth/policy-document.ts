import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { OperatorError } from '../errors.js';
import { withLock } from '../lock.js';
import type { AccessFiles } from './access.js';
import type { Policy } from './policy.js';
import { deadRules, type PolicyFinding, parsePolicy, readPolicyText, withGroups } from './policy-file.js';
import { replaceFile, targetOf } from './replace-file.js';

/** The text of a policy, and what is another one whenever the text is. */
export interface PolicyText {
  readonly text: string;
  readonly version: string;
}

/** What a text comes to as a policy. */
export interface CheckedPolicy {
  readonly policy: Policy;
  readonly findings: readonly PolicyFinding[];
}

/** Somebody has changed the policy since it was read. */
export class PolicyChanged extends Error {
  override readonly name = 'PolicyChanged';
}

/** The policy as the text that people write, with its comments, while a registry runs by it. */
export class PolicyDocument {
  /**
   * @param users who can log in; undefined where that is not known
   * @param reload has the files count in this process
   */
  constructor(
    private readonly files: AccessFiles,
    private readonly users: () => ReadonlySet<string> | undefined,
    private readonly reload: () => Promise<void>,
  ) {}

  /** @throws OperatorError */
  async read(): Promise<PolicyText> {
    const text = await readPolicyText(this.files.policy);
    return { text, version: versionOf(text) };
  }

  /** Places of the findings, and of an error, are `FILE:LINE:COLUMN` without the folder. @throws OperatorError for a text that is no policy */
  async check(text: string): Promise<CheckedPolicy> {
    const policy = await withGroups(parsePolicy(text, basename(this.files.policy)), this.files.groups);
    return { policy, findings: deadRules(policy, this.users()) };
  }

  /**
   * Replaces the text, atomically, on the disk and in force in this process when it resolves.
   * @param version what is to be replaced
   * @throws PolicyChanged where that is not what is there; OperatorError where the text is no policy, or the file cannot be
   *   written: then the old one stays
   */
  async replace(text: string, version: string): Promise<CheckedPolicy & PolicyText> {
    const checked = await this.check(text);
    const { policy: file } = this.files;
    try {
      const target = await targetOf(file);
      await withLock(`${target}.lock`, async held => {
        const unchanged = async () => (await this.read()).version === version;
        if (!(await unchanged())) throw new PolicyChanged();
        await replaceFile(target, text, await stat(target), async () => {
          // An editor knows nothing of the lock.
          if (!(await unchanged())) throw new PolicyChanged();
          return held();
        });
      });
    } catch (error) {
      if (error instanceof OperatorError || error instanceof PolicyChanged) throw error;
      throw new OperatorError(`${file} cannot be written: ${(error as Error).message}`, {
        fix: 'give the file and its folder to the user that runs the registry, or change it on the machine',
        cause: error,
      });
    }
    await this.reload();
    return { ...checked, text, version: versionOf(text) };
  }
}

function versionOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}
