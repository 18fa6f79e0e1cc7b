import { createHash } from 'node:crypto';
import { digestOf, OCI_MANIFEST } from '../../support/content.js';
import { ACCEPT, Blob, imageOf, MIB } from '../content.js';
import { Connection, type Target } from './connection.js';
import { byEach, during, timed, type Work } from './work.js';

const GIB = 1 << 30;

/** POST, then one PUT of all of it; or as docker does, a PATCH without a length, and a PUT that only closes it. */
export type Upload = 'whole' | 'streamed';

export interface Pull {
  readonly kind: 'pull';
  readonly path: string;
  readonly clients: number;
  readonly bytes: number;
  /** What the bytes are to have, where that is looked at; it costs a SHA-256. */
  readonly digest?: string;
}

export interface Push {
  readonly kind: 'push';
  readonly repository: string;
  readonly upload: Upload;
  readonly clients: number;
  readonly bytes: number;
}

export interface Images {
  readonly kind: 'images';
  readonly clients: number;
  readonly seconds: number;
}

export interface Mixed {
  readonly kind: 'mixed';
  readonly clients: number;
  readonly seconds: number;
  /** A manifest and a blob of 1 MiB. */
  readonly pulled: readonly [manifest: string, blob: string];
}

const OCTETS = { 'content-type': 'application/octet-stream' };

export async function pushBlob(
  connection: Connection,
  repository: string,
  blob: { readonly digest: string; readonly size: number; pieces(): Iterable<Buffer> },
  upload: Upload,
): Promise<void> {
  const started = await connection.send('POST', `/v2/${repository}/blobs/uploads/`, { status: 202 });
  let location = at(started.headers.get('location')!);
  if (upload === 'streamed') {
    const patch = { headers: OCTETS, body: blob.pieces(), chunked: true, status: 202 };
    location = at((await connection.send('PATCH', location, patch)).headers.get('location')!);
  }
  const closing = `${location}${location.includes('?') ? '&' : '?'}digest=${blob.digest}`;
  const rest = upload === 'whole' ? { body: blob.pieces(), headers: { ...OCTETS, 'content-length': blob.size } } : {};
  await connection.send('PUT', closing, { ...rest, status: 201 });
}

/** The path of a location that may be a URL. */
function at(location: string): string {
  const { pathname, search } = new URL(location, 'https://registry.invalid');
  return pathname + search;
}

/** As podman pushes: it asks for each blob, streams those that are not there, and puts the manifest. */
async function pushImage(connection: Connection, repository: string, tag: string): Promise<void> {
  const { config, layers, manifest } = imageOf(Blob.fresh);
  for (const data of [...layers, config]) {
    const blob = { digest: digestOf(data), size: data.length, pieces: () => [data] };
    await connection.send('HEAD', `/v2/${repository}/blobs/${blob.digest}`);
    await pushBlob(connection, repository, blob, 'streamed');
  }
  const headers = { 'content-type': OCI_MANIFEST };
  await connection.send('PUT', `/v2/${repository}/manifests/${tag}`, { headers, body: manifest, status: 201 });
}

export function pull(target: Target, { path, clients, bytes, digest }: Pull): Promise<Work> {
  return timed(() =>
    byEach(clients, async () => {
      const connection = new Connection(target);
      const hash = digest === undefined ? undefined : createHash('sha256');
      const count = hash ? (piece: Buffer) => hash.update(piece) : true;
      const { received } = await connection.send('GET', path, { count, status: 200 });
      connection.close();
      if (hash && `sha256:${hash.digest('hex')}` !== digest) throw new Error(`GET ${path}: other bytes`);
      if (received !== bytes) throw new Error(`GET ${path}: ${received} of ${bytes} bytes`);
      return bytes / GIB;
    }),
  );
}

export async function push(target: Target, { repository, upload, clients, bytes }: Push): Promise<Work> {
  const blobs = Array.from({ length: clients }, () => Blob.fresh(bytes));
  const work = await timed(() =>
    byEach(clients, async client => {
      const connection = new Connection(target);
      await pushBlob(connection, repository, blobs[client]!, upload);
      connection.close();
      return bytes / GIB;
    }),
  );
  return { ...work, pushed: blobs[0]!.digest };
}

export function images(target: Target, { clients, seconds }: Images): Promise<Work> {
  return timed(() =>
    byEach(clients, async client => {
      const connection = new Connection(target);
      const done = await during(seconds, () => pushImage(connection, `bench/pushed-${client}`, 'latest'));
      connection.close();
      return done;
    }),
  );
}

/** Of five operations four pull a manifest and a blob of 1 MiB, and one pushes a blob of 1 MiB. */
export function mixed(target: Target, { clients, seconds, pulled }: Mixed): Promise<Work> {
  return timed(() =>
    byEach(clients, async client => {
      const connection = new Connection(target);
      const done = await during(seconds, async index => {
        if ((index + client) % 5 === 0)
          return pushBlob(connection, `bench/pushed-${client}`, Blob.fresh(MIB), 'streamed');
        for (const path of pulled)
          await connection.send('GET', path, { headers: { accept: ACCEPT }, count: true, status: 200 });
      });
      connection.close();
      return done;
    }),
  );
}
