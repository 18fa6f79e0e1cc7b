/** What a bucket is, and how it is reached; sizes in bytes. */
export interface S3Options {
  readonly bucket: string;
  readonly region: string;
  /** URL of a service other than Amazon's. */
  readonly endpoint?: string | undefined;
  /** Whether the bucket stands in the path of a request instead of its host. */
  readonly pathStyle: boolean;
  /** Without them, those of the environment or of the machine are used. */
  readonly credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string } | undefined;
  /** What all keys begin with, without a slash at either end. */
  readonly root: string;
  readonly secure: boolean;
  readonly skipVerify?: boolean;
  readonly accelerate?: boolean;
  readonly dualStack?: boolean;
  readonly fips?: boolean;
  readonly userAgent?: string | undefined;
  /** Of each object that is written. */
  readonly storageClass?: string | undefined;
  readonly acl?: string | undefined;
  /** Encryption by the service: by its own key, or by the one of that name. */
  readonly encrypt?: boolean;
  readonly keyId?: string | undefined;
  /** Of a part of an upload: at least `SMALLEST_PART`. */
  readonly chunkSize: number;
  readonly copy: { readonly chunkSize: number; readonly concurrency: number; readonly threshold: number };
  readonly readOnly?: boolean;
  /** Whether clients are sent to the service for what they pull. */
  readonly redirects?: boolean;
  /** How long (ms) this process may rely on having seen that nobody removes anything (removal.ts). */
  readonly calm?: number;
  /** How long (s) the service takes a removal (bucket.ts). */
  readonly timely?: number;
  /** Told what the operator should know about the service. */
  readonly onNotice?: (message: string) => void;
}
