import assert from 'node:assert/strict';
import type { Answer, CallOptions } from '../../support/registry-fixture.js';
import type { Asked } from './operations.js';
import { mayPull } from './universe.js';
import type { World } from './world.js';

/** One request, and every answer to it that would be right: there are several only where more than one thing is wrong. */
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly options?: CallOptions;
  readonly expected: readonly Expected[];
}

export interface Expected {
  readonly status: number;
  /** Of an error; `any` where the specification names none for the case. */
  readonly code?: string;
  /** Undefined for one that must not be there. */
  readonly headers?: Readonly<Record<string, string | undefined>>;
  /** Of an answer to GET; HEAD has its length. */
  readonly body?: Buffer;
  readonly check?: (answer: Answer) => void;
  /** What it changes. */
  readonly effect?: (answer: Answer) => void;
}

/** distribution-spec, "Error Codes". */
const CODES = [
  'BLOB_UNKNOWN',
  'BLOB_UPLOAD_INVALID',
  'BLOB_UPLOAD_UNKNOWN',
  'DIGEST_INVALID',
  'MANIFEST_BLOB_UNKNOWN',
  'MANIFEST_INVALID',
  'MANIFEST_UNKNOWN',
  'NAME_INVALID',
  'NAME_UNKNOWN',
  'SIZE_INVALID',
  'UNAUTHORIZED',
  'DENIED',
  'UNSUPPORTED',
  'TOOMANYREQUESTS',
];

export const refusal = (status: number, code: string, more: Partial<Expected> = {}): Expected => ({
  status,
  code,
  ...more,
});

/** What stands before anything that pulls from a repository, or changes one. */
export function closed(world: World, asked: Asked, what: { pull: string } | 'change'): Expected[] {
  if (what === 'change') return world.isReadOnly(asked) ? [refusal(405, 'UNSUPPORTED')] : [];
  return mayPull(asked.by, what.pull) ? [] : [refusal(403, 'DENIED')];
}

/** The first refusals that there are, else the answer. */
export function orElse(...refusals: ReadonlyArray<readonly Expected[]>): (answer: Expected) => readonly Expected[] {
  return answer => refusals.find(some => some.length > 0) ?? [answer];
}

/** Compares an answer with what is expected, and brings about what it changes. */
export function meet(answer: Answer, { method, path, expected }: Call): void {
  const isHead = method === 'HEAD';
  const wanted = expected.find(
    ({ status, code }) => status === answer.status && (isHead || code === 'any' || code === answer.code),
  );
  const called = `${method} ${path}`;
  const told = (status: number, code: string | undefined) => `${status} ${code ?? ''}`.trim();
  assert.ok(
    wanted,
    `${called} answers ${told(answer.status, answer.code)} instead of ${expected.map(({ status, code }) => told(status, code)).join(' or ')}`,
  );
  const version = path.startsWith('/api/') ? undefined : 'registry/2.0';
  assert.equal(answer.headers['docker-distribution-api-version'], version, called);
  for (const [name, value] of Object.entries(wanted.headers ?? {}))
    assert.equal(answer.headers[name], value, `${name} of ${called}`);
  if (answer.status >= 400) meetError(answer, isHead, called);
  else if (wanted.body) {
    assert.equal(Number(answer.headers['content-length']), wanted.body.length, called);
    assert.ok(isHead ? answer.body.length === 0 : answer.body.equals(wanted.body), `the body of ${called}`);
  }
  wanted.check?.(answer);
  wanted.effect?.(answer);
}

function meetError(answer: Answer, isHead: boolean, called: string): void {
  assert.equal(answer.headers['content-type'], 'application/json', called);
  if (isHead) {
    assert.equal(answer.body.length, 0, called);
    return;
  }
  assert.ok(CODES.includes(answer.code!), `${answer.code} of ${called}`);
  const { errors } = answer.json() as { errors: Array<Record<string, unknown>> };
  assert.equal(typeof errors[0]!.message, 'string', called);
}
