/**
 * The error codes of the OCI distribution specification (section "Error Codes"), for server faults the two that
 * Distribution adds (UNKNOWN, UNAVAILABLE), and the last four for `/api/v1/`, each with its usual HTTP status and message.
 */
const CODES = {
  BLOB_UNKNOWN: [404, 'blob unknown to registry'],
  BLOB_UPLOAD_INVALID: [400, 'blob upload invalid'],
  BLOB_UPLOAD_UNKNOWN: [404, 'blob upload unknown to registry'],
  DIGEST_INVALID: [400, 'provided digest did not match uploaded content'],
  MANIFEST_BLOB_UNKNOWN: [400, 'manifest references a manifest or blob unknown to registry'],
  MANIFEST_INVALID: [400, 'manifest invalid'],
  MANIFEST_UNKNOWN: [404, 'manifest unknown to registry'],
  NAME_INVALID: [400, 'invalid repository name'],
  NAME_UNKNOWN: [404, 'repository name not known to registry'],
  SIZE_INVALID: [400, 'provided length did not match content length'],
  UNAUTHORIZED: [401, 'authentication required'],
  DENIED: [403, 'requested access to the resource is denied'],
  UNSUPPORTED: [405, 'the operation is unsupported'],
  TOOMANYREQUESTS: [429, 'too many requests'],
  UNKNOWN: [500, 'internal error'],
  UNAVAILABLE: [503, 'service unavailable'],
  INVALID: [400, 'invalid request'],
  NOT_FOUND: [404, 'not found'],
  CONFLICT: [409, 'conflict'],
  CHANGED: [412, 'changed meanwhile'],
} as const satisfies Record<string, readonly [number, string]>;

export const ERROR_CODES = Object.keys(CODES) as ErrorCode[];

export type ErrorCode = keyof typeof CODES;

/** What one error adds to its code: all optional. */
export interface ErrorOptions {
  /** Replaces the code's usual message. Shown to the client: no path, no secret. */
  readonly message?: string;
  /** Machine-readable `detail` of the JSON body. */
  readonly detail?: unknown;
  /** Replaces the code's usual HTTP status, as 416 does for a chunk out of order. */
  readonly status?: number;
  /** Response headers that belong to this error, such as WWW-Authenticate or Retry-After. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/** An answer to a client of the registry: thrown anywhere below a handler, written in one place. */
export class RegistryError extends Error {
  override readonly name = 'RegistryError';
  readonly status: number;
  readonly detail: unknown;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    readonly code: ErrorCode,
    options: ErrorOptions = {},
  ) {
    super(options.message ?? CODES[code][1], options.cause === undefined ? {} : { cause: options.cause });
    this.status = options.status ?? CODES[code][0];
    this.detail = options.detail;
    this.headers = options.headers ?? {};
  }

  /** The body of the specification: `{"errors":[{code, message, detail}]}`. */
  toJSON(): { errors: [{ code: ErrorCode; message: string; detail?: unknown }] } {
    const { code, message, detail } = this;
    return { errors: [detail === undefined ? { code, message } : { code, message, detail }] };
  }
}

/**
 * Something the operator did or must mend: a file, an option, a port. The command line prints it as one line,
 * `registry-secure: WHAT; FIX`, without a stack, and exits with `exitCode`.
 */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
  readonly fix: string | undefined;
  readonly exitCode: number;

  constructor(what: string, options: { fix?: string; exitCode?: number; cause?: unknown } = {}) {
    super(what, options.cause === undefined ? {} : { cause: options.cause });
    this.fix = options.fix;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** The `code` of a Node system error (`ENOENT`, `EADDRINUSE`, …), or undefined for any other value. */
export function systemCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}
