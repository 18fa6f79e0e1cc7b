import assert from 'node:assert/strict';
import type { Answer } from '../../support/registry-fixture.js';
import { type Call, closed, type Expected, orElse, refusal } from './call.js';
import type { Of } from './operations.js';
import type { World } from './world.js';

/** distribution-spec, "Pulling blobs" and "Deleting Blobs"; RFC 9110 §13 and §14. */

interface Span {
  readonly first?: number | undefined;
  readonly last?: number | undefined;
}

export function getBlob(world: World, operation: Of<'getBlob'>): Call {
  const { repository, method, ranges, condition, matches } = operation;
  const digest = world.blobDigest(repository, operation);
  const content = world.repository(repository).blobs.get(digest);
  const etag = `"${digest}"`;
  const whole: Expected = {
    status: 200,
    headers: {
      'content-type': 'application/octet-stream',
      'docker-content-digest': digest,
      'accept-ranges': 'bytes',
      'content-range': undefined,
      etag,
    },
    ...(content && { body: content.data }),
  };
  const isPart = method === 'GET' && ranges.length > 0 && !(condition === 'If-Range' && !matches);
  const isKnown = condition === 'If-None-Match' && matches;
  const answer = isPart && content ? ranged(content.data, ranges, whole) : whole;
  return {
    method,
    path: `/v2/${repository}/blobs/${digest}`,
    options: {
      headers: {
        ...(ranges.length > 0 && { range: `bytes=${ranges.map(written).join(',')}` }),
        ...(condition && { [condition]: matches ? etag : '"other"' }),
      },
    },
    expected: orElse(
      closed(world, operation, { pull: repository }),
      content ? [] : [refusal(404, 'BLOB_UNKNOWN')],
    )(isKnown ? { status: 304, headers: { etag } } : answer),
  };
}

export function deleteBlob(world: World, operation: Of<'deleteBlob'>): Call {
  const { repository } = operation;
  const digest = world.blobDigest(repository, operation);
  const content = world.repository(repository).blobs.get(digest);
  return {
    method: 'DELETE',
    path: `/v2/${repository}/blobs/${digest}`,
    expected: orElse(
      closed(world, operation, 'change'),
      content ? [] : [refusal(404, 'BLOB_UNKNOWN')],
    )({
      status: 202,
      effect: () => world.removeBlob(repository, content!),
    }),
  };
}

function ranged(data: Buffer, spans: readonly Span[], whole: Expected): Expected {
  const parts = spans.map(span => satisfied(span, data.length)).filter(part => part !== undefined);
  const headers = { ...whole.headers };
  const of = ([start, end]: Part) => `bytes ${start}-${end}/${data.length}`;
  const bytes = ([start, end]: Part) => data.subarray(start, end + 1);
  const [first] = parts;
  if (!first) return refusal(416, 'any', { headers: { 'content-range': `bytes */${data.length}` } });
  if (parts.length === 1)
    return { status: 206, headers: { ...headers, 'content-range': of(first) }, body: bytes(first) };
  // Of ranges that overlap or go back, a client can make nothing that it would not make of the whole.
  if (parts.some(([start], index) => index > 0 && start <= parts[index - 1]![1])) return whole;
  return {
    status: 206,
    headers: { 'docker-content-digest': whole.headers!['docker-content-digest'], etag: whole.headers!.etag },
    check: answer =>
      assert.deepEqual(
        multipart(answer),
        parts.map(part => [of(part), bytes(part).toString('latin1')]),
      ),
  };
}

type Part = readonly [start: number, end: number];

/** Both ends included; undefined where there is nothing of it. */
function satisfied({ first, last }: Span, size: number): Part | undefined {
  const [start, end] = first === undefined ? [Math.max(0, size - last!), size - 1] : [first, last ?? size - 1];
  return start < size && start <= end ? [start, Math.min(end, size - 1)] : undefined;
}

function written({ first, last }: Span): string {
  return `${first ?? ''}-${last ?? ''}`;
}

/** RFC 9110 §14.6: Content-Range and bytes of each part. */
function multipart({ headers, body }: Answer): string[][] {
  const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(headers['content-type']!)![1]!;
  assert.equal(Number(headers['content-length']), body.length);
  const [, ...parts] = body.toString('latin1').split(`--${boundary}`);
  assert.match(parts.pop()!, /^--\r\n/);
  return parts.map(part => {
    const end = part.indexOf('\r\n\r\n');
    const range = /content-range: (.+)/i.exec(part.slice(0, end))![1]!.trim();
    return [range, part.slice(end + 4, -2)];
  });
}
