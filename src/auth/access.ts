import { type Authorise, type Policy, policyMay, welcomesAnonymous } from './policy.js';
import { PolicyDocument } from './policy-document.js';
import { loadPolicy } from './policy-file.js';

export interface AccessFiles {
  readonly policy: string;
  /** In Apache's format. */
  readonly groups: string | undefined;
}

/** The policy that counts now: that of the files as they were read last. */
export class Access {
  #policy: Policy;
  #may: Authorise;
  #anonymous: boolean;

  private constructor(
    readonly files: AccessFiles,
    private readonly open: boolean,
    policy: Policy,
  ) {
    this.#policy = policy;
    this.#may = policyMay(policy, { open });
    this.#anonymous = welcomesAnonymous(policy);
  }

  /** @param open as for `usersMay` @throws OperatorError */
  static async load(files: AccessFiles, open: boolean): Promise<Access> {
    return new Access(files, open, await loadPolicy(files.policy, files.groups));
  }

  /** @throws OperatorError when a file is bad: then what counted before goes on to count. */
  async reload(): Promise<void> {
    const policy = await loadPolicy(this.files.policy, this.files.groups);
    this.#policy = policy;
    this.#may = policyMay(policy, { open: this.open });
    this.#anonymous = welcomesAnonymous(policy);
  }

  /** Its text, for those who read and change it. @param users who can log in; undefined where that is not known */
  documentOf(users: () => ReadonlySet<string> | undefined): PolicyDocument {
    return new PolicyDocument(this.files, users, () => this.reload());
  }

  get policy(): Policy {
    return this.#policy;
  }

  readonly may: Authorise = (...question) => this.#may(...question);

  /** Whether a request without credentials can be allowed anything. */
  get welcomesAnonymous(): boolean {
    return this.#anonymous;
  }
}
