/** What a bucket is, and how it is reached. */
export interface GcsOptions {
  readonly bucket: string;
  /** The file of a service account, or what is in one; without them, what the environment or the machine has. */
  readonly keyFile?: string | undefined;
  readonly credentials?: Readonly<Record<string, string>> | undefined;
  /** What all keys begin with, without a slash at either end. */
  readonly root: string;
  readonly userAgent?: string | undefined;
  /** URL of a service other than Google's. */
  readonly endpoint?: string | undefined;
  /** How many names a list has at once. */
  readonly pageSize?: number;
}
