/** What a container is, and how it is reached. */
export interface SwiftOptions {
  /** Where tokens come from: `…/v3` of Keystone, or `…/auth/v1.0`. */
  readonly authUrl: string;
  readonly authVersion: 1 | 3;
  readonly login: PasswordLogin | { readonly credential: string; readonly secret: string };
  readonly region?: string | undefined;
  readonly interface: 'public' | 'internal' | 'admin';
  readonly container: string;
  /** What all names begin with, without a slash at either end. */
  readonly root: string;
  readonly skipVerify: boolean;
  /** By which URLs are signed; without it none are. */
  readonly temporaryUrlKey?: string | undefined;
  /** How many names a list has at once. */
  readonly pageSize?: number;
}

interface PasswordLogin {
  readonly user: string;
  readonly password: string;
  readonly domain?: Named | undefined;
  /** The project whose container it is, and the domain that it belongs to. */
  readonly project?: Named | undefined;
  readonly projectDomain?: Named | undefined;
  readonly trust?: string | undefined;
}

type Named = { readonly id: string } | { readonly name: string };
