import type { AzureIdentity } from './identity.js';

/** What a container is, and how it is reached. */
export interface AzureOptions {
  /** Of the blob service of the account, such as `https://ACCOUNT.blob.core.windows.net`. */
  readonly serviceUrl: string;
  readonly account: string;
  readonly container: string;
  readonly login: { readonly key: string } | AzureIdentity;
  /** What all keys begin with, without a slash at either end. */
  readonly root: string;
  readonly skipVerify: boolean;
  /** How many names a list has at once. */
  readonly pageSize?: number;
  /** Where tokens come from; Microsoft's own unless told. */
  readonly authority?: string | undefined;
}
