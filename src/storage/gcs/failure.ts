import { OperatorError, systemCode } from '../../errors.js';
import { isDistrust, MAY_PASS, noToken, ServiceError, wayError } from '../object/requests.js';
import type { GcsOptions } from './options.js';

/** What the login of Google's client throws, and the way to the service. Leaves the request behind. */
export function gcsError(error: unknown): ServiceError | OperatorError {
  const { message = '', response } = (error ?? {}) as {
    message?: string;
    response?: { status?: number; data?: { error?: unknown; error_description?: string } };
  };
  const code = systemCode(error) ?? '';
  if (response?.status !== undefined) {
    const { error: word, error_description: words = message } = response.data ?? {};
    const reason = typeof word === 'string' ? word : code;
    if (response.status < 500 && !MAY_PASS.includes(response.status))
      return loginProblem(`Google gives no token: ${[reason, words].filter(Boolean).join(': ')}`);
    return noToken(reason, `no token: ${words} (HTTP ${response.status})`);
  }
  if (/default credentials/.test(message)) return loginProblem('there are no credentials for Google Cloud Storage');
  if (code === 'ENOENT' || code === 'EACCES') return loginProblem(`the key file cannot be read: ${code}`);
  if (/DECODER|private_key|client_email|PEM|JSON/.test(`${code} ${message}`))
    return loginProblem('the key of the service account is no such key');
  return wayError(error);
}

function loginProblem(what: string): OperatorError {
  return new OperatorError(what.replaceAll(/\s+/g, ' '), {
    fix: 'set storage.gcs.keyfile (REGISTRY_STORAGE_GCS_KEYFILE) to the JSON key of a service account, or give the machine one; and check the clock',
  });
}

/** @param body of an answer that is no success */
export function answerOf(status: number, body: string, retryAfter: string | null | undefined): ServiceError {
  let code = '';
  let message = body.slice(0, 300);
  try {
    const { error } = JSON.parse(body) as { error?: { message?: string; errors?: Array<{ reason?: string }> } };
    code = error?.errors?.[0]?.reason ?? '';
    message = error?.message ?? message;
  } catch {
    // A download's errors are plain text.
  }
  const seconds = Number(retryAfter);
  return new ServiceError({ status, code, message, retryAfter: seconds > 0 ? seconds * 1000 : undefined });
}

/** Why a bucket cannot be opened, and the way out. */
export function gcsRefusal({ bucket }: GcsOptions, error: ServiceError): OperatorError {
  const { status, code, message } = error;
  const refuse = (what: string, fix: string) => new OperatorError(what, { fix, cause: error });
  if (status === 404)
    return refuse(
      `there is no bucket ${bucket} in Google Cloud Storage`,
      `make it (gcloud storage buckets create gs://${bucket}), or check storage.gcs.bucket`,
    );
  if (status === 401)
    return refuse(
      `Google Cloud Storage refuses the credentials: ${message}`,
      'check storage.gcs.keyfile, whether the key was revoked, and the clock of this machine',
    );
  if (status === 403)
    return refuse(
      `Google Cloud Storage refuses access to the bucket ${bucket}: ${message}`,
      'give the service account the role Storage Object User on the bucket; where it is to read only: Storage Object Viewer, and REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true',
    );
  if (isDistrust(code))
    return refuse(
      `the certificate of Google Cloud Storage is not trusted (${code})`,
      'name its authority, or the one of a proxy between: NODE_EXTRA_CA_CERTS=FILE',
    );
  if (status === undefined)
    return refuse(`Google Cloud Storage cannot be reached (${code || message})`, 'check the network');
  return refuse(
    `the bucket ${bucket} in Google Cloud Storage cannot be used: ${[code, message].filter(Boolean).join(': ')} (HTTP ${status})`,
    'check storage.gcs.* and the bucket',
  );
}
