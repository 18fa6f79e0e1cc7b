import assert from 'node:assert/strict';
import type { Digest } from '../../../src/reference.js';
import { type Answer, digestOf } from '../../support/registry-fixture.js';
import { type Call, closed, type Expected, orElse, refusal } from './call.js';
import type { Asked, Of } from './operations.js';
import { type Content, mayPull, REPOSITORIES, USERS, type User } from './universe.js';
import type { UploadState, World } from './world.js';

/** distribution-spec, "Pushing blobs". */

type Choice = Pick<Of<'status'>, 'upload' | 'but'>;

const NO_UPLOAD = '00000000-0000-4000-8000-000000000000';

export function start(world: World, operation: Of<'start'>): Call {
  const { repository, announced } = operation;
  const wrong = announced === 'md5' ? [refusal(400, 'DIGEST_INVALID')] : [];
  return {
    method: 'POST',
    path: `/v2/${repository}/blobs/uploads/${announced ? `?digest-algorithm=${announced}` : ''}`,
    expected: orElse(
      closed(world, operation, 'change'),
      wrong,
    )(started(world, operation, repository, world.blob(operation.blob))),
  };
}

/** POST with the whole blob. */
export function post(world: World, operation: Of<'post'>): Call {
  const { repository, claim, chunked } = operation;
  const content = world.blob(operation.blob);
  const digest = claimed(content, claim);
  const wrong = isNameOf(content, digest) ? [] : [refusal(400, 'DIGEST_INVALID')];
  return {
    method: 'POST',
    path: `/v2/${repository}/blobs/uploads/?digest=${digest}`,
    options: { body: chunked ? inPieces(content.data) : content.data },
    expected: orElse(
      closed(world, operation, 'change'),
      wrong,
    )(created(repository, digest, () => world.addBlob(repository, content, digest as Digest))),
  };
}

/** distribution-spec, "Mounting a blob from another repository". */
export function mount(world: World, operation: Of<'mount'>): Call {
  const { repository, from, by } = operation;
  const digest = world.blobDigest(from ?? 'app', operation);
  const content = world.content(digest);
  const sources: readonly string[] = from === undefined ? REPOSITORIES : [from];
  const isThere = sources.some(name => mayPull(by, name) && world.repository(name).blobs.has(digest));
  return {
    method: 'POST',
    path: `/v2/${repository}/blobs/uploads/?mount=${digest}${from === undefined ? '' : `&from=${from}`}`,
    expected: orElse(closed(world, operation, 'change'))(
      isThere
        ? created(repository, digest, () => world.addBlob(repository, content, digest))
        : started(world, operation, repository, content),
    ),
  };
}

export function patch(world: World, operation: Of<'patch'>): Call {
  const { path, user, found, unknown } = locate(world, operation);
  const sent = part(found, operation.part);
  const { headers, wrong } = contentRange(operation, found, path, sent);
  return {
    method: 'PATCH',
    path,
    options: { user, headers, body: operation.chunked ? inPieces(sent) : sent },
    expected: orElse(closed(world, operation, 'change'), [...unknown, ...wrong])({
      status: 202,
      headers: position(path, (found?.bytes.length ?? 0) + sent.length),
      effect: () => append(found!, sent),
    }),
  };
}

export function status(world: World, operation: Of<'status'>): Call {
  const { path, user, found, unknown } = locate(world, operation);
  return {
    method: 'GET',
    path,
    options: { user },
    expected: orElse(unknown)({ status: 204, headers: position(path, found?.bytes.length ?? 0) }),
  };
}

export function cancel(world: World, operation: Of<'cancel'>): Call {
  const { path, user, found, unknown } = locate(world, operation);
  return {
    method: 'DELETE',
    path,
    options: { user },
    expected: orElse(closed(world, operation, 'change'), unknown)({ status: 204, effect: () => end(found!) }),
  };
}

/** PUT of an upload, with the last bytes or without. A wrong digest ends it too. */
export function finish(world: World, operation: Of<'finish'>): Call {
  const { path, repository, user, found, unknown } = locate(world, operation);
  const sent = part(found, operation.part);
  const digest = claimed(found?.content ?? world.blob(0), operation.claim);
  const malformed = operation.claim === 'bad' ? [refusal(400, 'DIGEST_INVALID')] : [];
  const { headers, wrong } = contentRange(operation, found, path, sent);
  const data = Buffer.concat([found?.bytes ?? Buffer.alloc(0), sent]);
  const content: Content = { data, sha256: digestOf(data), sha512: digestOf(data, 'sha512') };
  return {
    method: 'PUT',
    path: `${path}?digest=${digest}`,
    options: { user, headers, body: operation.chunked ? inPieces(sent) : sent },
    expected: orElse(closed(world, operation, 'change'), [...unknown, ...wrong, ...malformed])(
      isNameOf(content, digest)
        ? created(repository, digest, () => {
            end(found!);
            world.addBlob(repository, content, digest as Digest);
          })
        : refusal(400, 'DIGEST_INVALID', { effect: () => end(found!) }),
    ),
  };
}

/** What an upload has become in the end. */
export function look(upload: UploadState): Call {
  const path = `/v2/${upload.repository}/blobs/uploads/${upload.uuid}`;
  const there = { status: 204, headers: position(path, upload.bytes.length) };
  return {
    method: 'GET',
    path,
    options: { user: upload.owner },
    expected: [upload.open ? there : refusal(404, 'BLOB_UPLOAD_UNKNOWN')],
  };
}

/** The upload that an operation is about. */
export function chosen(world: World, { upload, but }: Choice): UploadState | undefined {
  const some = world.uploads.filter(({ open }) => open === (but !== 'ended'));
  return some.at(-1 - (upload % Math.max(1, some.length)));
}

function locate(
  world: World,
  choice: Choice,
): { path: string; repository: string; user: User; found: UploadState | undefined; unknown: Expected[] } {
  const { but } = choice;
  const upload = chosen(world, choice);
  const [own, owner] = [upload?.repository ?? REPOSITORIES[0], upload?.owner ?? USERS[0]];
  const repository = but === 'elsewhere' ? REPOSITORIES.find(name => name !== own)! : own;
  // That of another user, or looked for in another repository, is the same as none.
  const found = but === undefined ? upload : undefined;
  return {
    path: `/v2/${repository}/blobs/uploads/${upload?.uuid ?? NO_UPLOAD}`,
    repository,
    user: but === 'of another' ? USERS.find(name => name !== owner)! : owner,
    found,
    unknown: found ? [] : [refusal(404, 'BLOB_UPLOAD_UNKNOWN')],
  };
}

/** The next bytes of what the upload is to become. */
function part(found: UploadState | undefined, which: Of<'patch'>['part']): Buffer {
  if (which === 'junk') return Buffer.from('junk');
  const rest = found ? found.content.data.subarray(found.bytes.length) : Buffer.from('lost');
  return rest.subarray(0, { none: 0, one: 1, half: Math.ceil(rest.length / 2), rest: rest.length }[which]);
}

function contentRange(
  { range }: Pick<Of<'patch'>, 'range'>,
  found: UploadState | undefined,
  path: string,
  { length }: Buffer,
): { headers: Record<string, string>; wrong: Expected[] } {
  const offset = found?.bytes.length ?? 0;
  // A range of nothing cannot be written.
  if (range === 'none' || length === 0) return { headers: {}, wrong: [] };
  if (range === 'bad')
    return { headers: { 'content-range': 'bytes 5-' }, wrong: [refusal(400, 'BLOB_UPLOAD_INVALID')] };
  const from = { right: offset, long: offset, early: offset > 0 ? offset - 1 : 1, late: offset + 1 }[range];
  const to = from + length - (range === 'long' ? 0 : 1);
  const wrong =
    range === 'long'
      ? refusal(400, 'SIZE_INVALID')
      : refusal(416, 'BLOB_UPLOAD_INVALID', { headers: position(path, offset) });
  return { headers: { 'content-range': `${from}-${to}` }, wrong: range === 'right' ? [] : [wrong] };
}

function claimed(content: Content, claim: Of<'post'>['claim']): string {
  if (claim === 'wrong') return digestOf(Buffer.from('something else'));
  return claim === 'bad' ? 'sha256:0123' : content[claim];
}

function isNameOf({ sha256, sha512 }: Content, digest: string): boolean {
  return digest === sha256 || digest === sha512;
}

function append(upload: UploadState, sent: Buffer): void {
  upload.bytes = Buffer.concat([upload.bytes, sent]);
}

function end(upload: UploadState): void {
  upload.open = false;
}

function started(world: World, { by }: Asked, repository: string, content: Content): Expected {
  const prefix = `/v2/${repository}/blobs/uploads/`;
  const uuidOf = ({ headers }: Answer) => String(headers['docker-upload-uuid']);
  return {
    status: 202,
    headers: { range: '0-0', 'content-length': '0' },
    check: answer => assert.equal(answer.headers.location, prefix + uuidOf(answer)),
    effect: answer => {
      world.uploads.push({ repository, owner: by, uuid: uuidOf(answer), content, bytes: Buffer.alloc(0), open: true });
    },
  };
}

function created(repository: string, digest: string, effect: () => void): Expected {
  return {
    status: 201,
    headers: { location: `/v2/${repository}/blobs/${digest}`, 'docker-content-digest': digest, 'content-length': '0' },
    effect,
  };
}

function position(path: string, offset: number): Record<string, string> {
  return {
    location: path,
    range: `0-${Math.max(0, offset - 1)}`,
    'docker-upload-uuid': path.slice(path.lastIndexOf('/') + 1),
  };
}

async function* inPieces(data: Buffer): AsyncGenerator<Buffer> {
  yield data.subarray(0, 10);
  yield data.subarray(10);
}
