import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { systemCode } from '../../src/errors.js';
import { Random } from '../support/random.js';
import { digestOf } from '../support/registry-fixture.js';
import { Ledger } from './ledger.js';
import { LONG, Rig, SEED, type Server } from './rig.js';
import { noFindings, verify } from './verify.js';
import { newImage, pushImage, STYLES } from './workload.js';

const ABORTS = LONG ? 10_000 : 2000;
/** Before the memory is looked at for the first time. */
const WARM_UP = 500;
const AT_ONCE = 32;
const LAYER = 4_000_000;
/** Less than the time after which the server would drop a client by itself. */
const GONE_WITHIN_MS = 4000;
/** What a heap may grow by without a leak: of the 10,000 each may leave less than 10 KiB. */
const MEMORY = 96 * 1024 * 1024;
/** Uploads that are open at a time, below what one user may have. */
const OPEN_UPLOADS = 300;

const AUTH = `Authorization: Basic ${Buffer.from('robot:robot').toString('base64')}\r\n`;

describe('aborted requests', () => {
  let rig: Rig;
  before(() => {
    rig = new Rig();
  });
  after(() => rig.close());

  test(`after ${ABORTS} of them no descriptor, no file and no memory is left behind`, async t => {
    t.diagnostic(`SEED=${SEED} repeats the choices`);
    const random = new Random(SEED);
    const server = await rig.start({ env: { REGISTRY_STORAGE_MAINTENANCE_GC_ENABLED: 'false' } });
    const ledger = new Ledger();
    const app = ledger.repository('app');
    await pushImage(server.client, app, 'tag', newImage(random, [LAYER]), STYLES);
    server.client.close();
    const idle = await steady(server);
    // While the audit log replaces its seal there is one more.
    const files = await server.process.until(() => {
      const found = filesBelow(server.root);
      return found?.some(file => file.includes('/registry-secure/tmp/')) ? undefined : found;
    });
    const lines = await Lines.open(server.process.port);
    t.after(() => lines.close());
    const aborter = new Aborter(server, lines, random, [...app.blobs.keys()][0]!);

    await aborter.abort(WARM_UP);
    const start = { descriptors: idle, memory: memory(server.pid) };
    const begun = performance.now();
    await aborter.abort(ABORTS);
    const took = performance.now() - begun;
    server.client.close();
    const closed = performance.now();
    await server.process.until(() => descriptors(server.pid) <= idle);
    const gone = performance.now() - closed;
    const end = { descriptors: descriptors(server.pid), memory: memory(server.pid) };
    t.diagnostic(JSON.stringify({ ...aborter.figures, ms: Math.round(took), gone: Math.round(gone), start, end }));
    assert.ok(gone < GONE_WITHIN_MS, `descriptors were back after ${gone} ms only`);
    assert.ok(end.memory < start.memory + MEMORY, JSON.stringify({ start, end }));

    await aborter.cancelUploads();
    await server.process
      .until(() => isDeepStrictEqual(filesBelow(server.root), files))
      .catch(() => assert.deepEqual(filesBelow(server.root), files));
    await verify(server.client, [app], noFindings());
    assert.doesNotMatch(server.process.stderr, /level=error/);
    await rig.kill(server);
  });
});

/** A client that leaves in the middle of everything, in all ways. */
class Aborter {
  readonly figures: Record<string, number> = {};
  readonly #uploads: string[] = [];
  readonly #ca: Buffer;

  constructor(
    private readonly server: Server,
    private readonly lines: Lines,
    private readonly random: Random,
    private readonly blob: string,
  ) {
    this.#ca = server.client.options.ca;
  }

  async abort(count: number): Promise<void> {
    let left = count;
    const lane = async () => {
      while (left-- > 0) await this.#one();
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }

  async #one(): Promise<void> {
    const line = await this.lines.connect(this.#ca);
    const { secure } = line;
    secure.on('data', () => {});
    const moments = {
      handshake: () => this.#handshake(),
      headers: () => this.#headers(secure),
      upload: () => this.#upload(secure),
      patch: () => this.#patch(secure),
      download: () => this.#download(secure),
      unread: () => this.#unread(secure),
    };
    const moment = this.random.pick(Object.keys(moments) as (keyof typeof moments)[]);
    const way = this.random.pick(Object.keys(WAYS) as (keyof typeof WAYS)[]);
    this.figures[moment] = (this.figures[moment] ?? 0) + 1;
    if (moment !== 'handshake') await once(secure, 'secureConnect');
    await moments[moment]();
    await WAYS[way](line);
    if (!line.far.closed) await once(line.far, 'close');
    secure.destroy();
  }

  async #handshake(): Promise<void> {
    await pause(this.random.between(0, 4));
  }

  async #headers(secure: TLSSocket): Promise<void> {
    const head = `GET /v2/app/manifests/tag HTTP/1.1\r\nHost: x\r\n${AUTH}Accept: */*\r\n`;
    await this.#send(secure, head.slice(0, this.random.between(1, head.length)));
  }

  /** A blob in one request of which a part arrives. */
  async #upload(secure: TLSSocket): Promise<void> {
    const digest = digestOf(Buffer.from(String(this.random.next())));
    const chunked = this.random.chance(0.5);
    const size = this.random.between(10, 300_000);
    const length = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${size + 1}`;
    const path = `/v2/app/blobs/uploads/?digest=${digest}`;
    await this.#send(secure, `POST ${path} HTTP/1.1\r\nHost: x\r\n${AUTH}${length}\r\n\r\n`);
    await this.#send(secure, chunked ? `${(size + 1).toString(16)}\r\n${'x'.repeat(size)}` : 'x'.repeat(size));
  }

  /** An upload of which a chunk arrives in part. */
  async #patch(secure: TLSSocket): Promise<void> {
    if (this.#uploads.length > OPEN_UPLOADS) await this.cancelUploads();
    const { headers } = await this.server.client.must(202, 'POST', '/v2/app/blobs/uploads/');
    this.#uploads.push(headers.location!);
    const head = `PATCH ${headers.location} HTTP/1.1\r\nHost: x\r\n${AUTH}Content-Length: 100000\r\n\r\n`;
    await this.#send(secure, `${head}${'x'.repeat(this.random.between(0, 99_999))}`);
  }

  /** A layer of which a part is taken. */
  async #download(secure: TLSSocket): Promise<void> {
    const wanted = this.random.between(1, LAYER);
    let taken = 0;
    const enough = new Promise<void>(resolve => {
      secure.on('data', chunk => {
        taken += chunk.length;
        if (taken >= wanted) resolve();
      });
      secure.once('close', resolve);
    });
    await this.#send(secure, `GET /v2/app/blobs/${this.blob} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n`);
    await enough;
  }

  /** A whole request whose answer nobody waits for. */
  async #unread(secure: TLSSocket): Promise<void> {
    secure.pause();
    const target = this.random.pick([`blobs/${this.blob}`, 'manifests/tag', 'tags/list', 'manifests/none']);
    await this.#send(secure, `GET /v2/app/${target} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n`);
    await pause(this.random.between(0, 5));
  }

  async #send(secure: TLSSocket, text: string): Promise<void> {
    if (secure.destroyed) return;
    await new Promise<void>(resolve => {
      secure.once('close', resolve);
      secure.write(text, () => resolve());
    });
  }

  async cancelUploads(): Promise<void> {
    for (const path of this.#uploads.splice(0)) await this.server.client.must([204, 404], 'DELETE', path);
  }
}

/** How a client leaves. */
const WAYS: Record<string, (line: Line) => unknown> = {
  reset: ({ far }) => far.resetAndDestroy(),
  close: ({ far }) => far.destroy(),
  /** It says so, and is gone before it is answered. */
  'end and reset': async ({ secure, far }) => {
    secure.end();
    await pause(0);
    far.resetAndDestroy();
  },
  /** It says so, and reads on to the end. */
  end: ({ secure }) => secure.resume().end(),
};

/** A client's TLS, and the connection that carries it to the server. */
interface Line {
  readonly secure: TLSSocket;
  readonly far: Socket;
}

/**
 * Between clients and the server, so that each connection can be cut while TLS goes on above it: of a socket that TLS has
 * taken over Node closes no descriptor when it is reset.
 */
class Lines {
  readonly #server = createServer().setMaxListeners(0);
  readonly #far = new Map<number, Socket>();

  private constructor(port: number) {
    this.#server.on('connection', near => {
      const far = connect(port, '127.0.0.1');
      this.#far.set(near.remotePort!, far);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const)
        from.on('error', () => {}).once('close', () => to.destroy());
      near.pipe(far).pipe(near);
    });
  }

  static async open(port: number): Promise<Lines> {
    const lines = new Lines(port);
    await once(lines.#server.listen(0, '127.0.0.1'), 'listening');
    return lines;
  }

  async connect(ca: Buffer): Promise<Line> {
    const { port } = this.#server.address() as AddressInfo;
    const secure = connectTls({ port, host: '127.0.0.1', ca }).on('error', () => {});
    await once(secure, 'connect');
    const near = secure.localPort!;
    while (!this.#far.has(near)) await once(this.#server, 'connection');
    const far = this.#far.get(near)!;
    this.#far.delete(near);
    if (far.connecting) await once(far, 'connect');
    return { secure, far };
  }

  close(): void {
    this.#server.close();
  }
}

function descriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Resident, in bytes. */
function memory(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
}

/** How many descriptors a server has that nobody uses: as soon as their number stays the same for a second. */
async function steady(server: Server): Promise<number> {
  for (let last = descriptors(server.pid); ; ) {
    await pause(1000);
    const now = descriptors(server.pid);
    if (now === last) return now;
    last = now;
  }
}

/** Undefined where a folder has gone just then. */
function filesBelow(root: string): string[] | undefined {
  try {
    const entries = readdirSync(root, { recursive: true, withFileTypes: true });
    const files = entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name));
    return files.sort();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
