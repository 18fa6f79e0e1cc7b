import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import http, { type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { AzureStore } from '../../src/storage/azure.js';
import { type StorageDriver, StorageError } from '../../src/storage/driver.js';
import { GcsStore } from '../../src/storage/gcs.js';
import type { ObjectStore } from '../../src/storage/object/store.js';
import { ObjectDriver } from '../../src/storage/object.js';
import { S3Driver } from '../../src/storage/s3.js';
import { SwiftStore } from '../../src/storage/swift.js';

const MIB = 1024 * 1024;

interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

interface Reply {
  readonly status: number;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

/** What a service says; undefined for what one says whose bucket is empty. */
type Say = (asked: Asked) => Reply | undefined;

/** An object store as far as it is asked at a start, up to the first write. */
interface Kind {
  readonly connect: (endpoint: string) => StorageDriver;
  /** Whose bucket is empty. */
  readonly usual: (asked: Asked, endpoint: string) => Reply;
  /** An answer that is no success, as this service words it. */
  readonly error: (status: number, code: string, headers?: OutgoingHttpHeaders) => Reply;
  readonly isWrite: (asked: Asked) => boolean;
}

const isPut = ({ method }: Asked) => method === 'PUT';

const XML = { 'content-type': 'application/xml' };

const xmlError: Kind['error'] = (status, code, headers) => ({
  status,
  headers: { ...XML, ...headers },
  body: `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>No.\nReally.</Message></Error>`,
});

const PRIVATE_KEY = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
  type: 'pkcs8',
  format: 'pem',
}) as string;

const driverOf = (store: ObjectStore) => new ObjectDriver(store, { chunkSize: 10 * MIB, readOnly: false });

const S3: Kind = {
  connect: endpoint =>
    new S3Driver({
      ...{ bucket: 'images', region: 'us-east-1', endpoint, pathStyle: true, root: '', secure: true },
      credentials: { accessKeyId: 'key', secretAccessKey: 'wrong-secret' },
      chunkSize: 10 * MIB,
      copy: { chunkSize: 32 * MIB, concurrency: 4, threshold: 32 * MIB },
    }),
  usual: ({ url }) =>
    url.includes('list-type=2')
      ? { status: 200, headers: XML, body: '<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>' }
      : xmlError(404, 'NoSuchKey'),
  error: xmlError,
  isWrite: isPut,
};

const AZURE: Kind = {
  connect: endpoint =>
    driverOf(
      new AzureStore({
        ...{ serviceUrl: `${endpoint}/account`, account: 'account', container: 'images', root: '', skipVerify: false },
        login: { key: Buffer.from('wrong-secret').toString('base64') },
      }),
    ),
  usual: ({ url }) =>
    url.includes('comp=list')
      ? { status: 200, headers: XML, body: '<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>' }
      : xmlError(404, 'BlobNotFound', { 'x-ms-error-code': 'BlobNotFound' }),
  error: (status, code) => xmlError(status, code, { 'x-ms-error-code': code }),
  isWrite: isPut,
};

const JSON_TYPE = { 'content-type': 'application/json' };

const gcsError: Kind['error'] = (status, reason) => ({
  status,
  headers: JSON_TYPE,
  body: JSON.stringify({ error: { code: 403, message: 'No.\nReally.', errors: [{ reason }] } }),
});

const GCS: Kind = {
  connect: endpoint => {
    const account = { client_email: 'registry@example.iam.gserviceaccount.com', private_key: PRIVATE_KEY };
    const credentials = { type: 'service_account', private_key_id: '1', project_id: 'example', ...account };
    return driverOf(new GcsStore({ bucket: 'images', root: '', endpoint, credentials }));
  },
  usual: ({ url }) =>
    url.includes('prefix=')
      ? { status: 200, headers: JSON_TYPE, body: '{"kind":"storage#objects"}' }
      : gcsError(404, 'notFound'),
  error: gcsError,
  isWrite: ({ method }) => method === 'POST',
};

const SWIFT: Kind = {
  connect: endpoint =>
    driverOf(
      new SwiftStore({
        ...{ authUrl: `${endpoint}/auth/v1.0`, authVersion: 1, login: { user: 'alice', password: 'wrong-secret' } },
        ...{ interface: 'public', container: 'images', root: '', skipVerify: false },
      }),
    ),
  usual: ({ method, url }, endpoint) => {
    if (url.startsWith('/auth'))
      return { status: 200, headers: { 'x-auth-token': 'token', 'x-storage-url': `${endpoint}/v1/AUTH_images` } };
    if (url.includes('format=json')) return { status: 200, headers: JSON_TYPE, body: '[]' };
    return { status: method === 'HEAD' && url.endsWith('/images') ? 204 : 404 };
  },
  error: status => ({ status, headers: { 'content-type': 'text/html' }, body: '<html><h1>No.\nReally.</h1></html>' }),
  isWrite: isPut,
};

/** What is wrong of a service of some kind, and what is said of that. */
type Case = readonly [what: string, kind: Kind, say: Say, message: RegExp, fix: RegExp];

const always =
  (reply: Reply): Say =>
  ({ url }) =>
    url.startsWith('/auth') ? undefined : reply;
const toWrites =
  ({ isWrite }: Kind, reply: Reply): Say =>
  asked =>
    isWrite(asked) ? reply : undefined;

/** And logins, of what is asked by GET. */
const LISTS = /list-type=2|comp=list|[?&]prefix=|^\/auth/;

const PAGE: Reply = {
  status: 200,
  headers: { 'content-type': 'text/html', etag: '"1"', 'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT' },
  body: `<html>\n<body>${'Welcome. '.repeat(200)}</body>\n</html>`,
};

/** By their sections of the configuration. */
const KINDS = { s3: S3, azure: AZURE, gcs: GCS, swift: SWIFT } as const;

const CASES: readonly Case[] = [
  ...Object.entries(KINDS).flatMap(([name, kind]): Case[] => {
    const section = new RegExp(`^check storage\\.${name}\\.`);
    const unusable = /^the (?:bucket|container) images .*cannot be used: /;
    const page = /cannot be used: list .*: (?:UnreadableAnswer: )?the answer (?:is no list|cannot be read)/;
    return [
      [`${name} whose place is a web page`, kind, always(PAGE), page, section],
      [`${name} that answers nothing at all`, kind, always({ status: 200 }), unusable, section],
      [
        `${name} that answers writes with an error in a 200`,
        kind,
        toWrites(kind, kind.error(200, 'x')),
        unusable,
        section,
      ],
      [
        `${name} that may only be read`,
        kind,
        toWrites(kind, kind.error(403, 'AccessDenied')),
        /refuses access to the (?:bucket|container) images/,
        /REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true$/,
      ],
      [
        `${name} that answers reads with an error in a 200`,
        kind,
        asked => (asked.method === 'GET' && !LISTS.test(asked.url) ? kind.error(200, 'x') : undefined),
        /read registry-secure\/format: .*(?:the answer does not tell of an object|doesn't contain valid content length header)$/,
        section,
      ],
      [
        `${name} whose clock is another`,
        kind,
        () => undefined,
        /lie 10 minutes apart/,
        /^set the clock of this machine, best by NTP/,
      ],
    ];
  }),
  [
    's3, every answer an error in a 200',
    S3,
    always(xmlError(200, 'AccessDenied')),
    /refuses access/,
    /^allow this key/,
  ],
  [
    'azure, every answer an error in a 200',
    AZURE,
    always(xmlError(200, 'AuthorizationFailure')),
    /no list of blobs/,
    /^check storage\.azure/,
  ],
  [
    'gcs, every answer an error in a 200',
    GCS,
    always(gcsError(200, 'forbidden')),
    /the answer cannot be read: .*No\./,
    /^check storage\.gcs/,
  ],
  [
    'swift, every answer an error in a 200',
    SWIFT,
    always({ status: 200, body: '{"error":"No."}' }),
    /is no list: {"error":"No\."}/,
    /^check storage\.swift/,
  ],
  [
    's3 in another region',
    S3,
    always(xmlError(301, 'PermanentRedirect', { 'x-amz-bucket-region': 'eu-west-1' })),
    /^the bucket images is not in the region us-east-1$/,
    /^set storage\.s3\.region to eu-west-1$/,
  ],
  [
    's3 that says that the clock is wrong',
    S3,
    always(xmlError(403, 'RequestTimeTooSkewed')),
    /this machine's clock is wrong/,
    /NTP/,
  ],
  [
    'azure whose key is another',
    AZURE,
    always(AZURE.error(403, 'AuthenticationFailed')),
    /refuses the account key/,
    /accountkey and accountname, and the clock/,
  ],
  [
    'gcs whose key was revoked',
    GCS,
    always(gcsError(401, 'authError')),
    /refuses the credentials: No\. Really\.$/,
    /whether the key was revoked, and the clock/,
  ],
  ['swift that gives no token', SWIFT, () => PAGE, /auth\/v1\.0 refuses the login/, /authurl$/],
];

/** A service that says the same of everything, and what connects to it. */
async function serving(t: TestContext, kind: Kind, say: Say, skew = 0): Promise<StorageDriver> {
  const server = http.createServer(async (request, response) => {
    await buffer(request);
    const asked = { method: request.method!, url: request.url!, headers: request.headers };
    const { status, headers, body } = say(asked) ?? kind.usual(asked, endpoint);
    response.writeHead(status, { ...headers, date: new Date(Date.now() + skew).toUTCString() });
    response.end(asked.method === 'HEAD' ? undefined : body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const driver = kind.connect(endpoint);
  t.after(async () => {
    await driver.close();
    server.closeAllConnections();
    server.close();
  });
  return driver;
}

/** Which all of them wait for, between one try and the next. */
describe('what is wrong of an object store is said at the start in one line, with the way out', {
  concurrency: true,
}, () => {
  for (const [what, kind, say, message, fix] of CASES)
    test(what, async t => {
      const skew = what.endsWith('clock is another') ? 600_000 : 0;
      const driver = await serving(t, kind, say, skew);
      await assert.rejects(driver.open(), (error: unknown) => {
        assert.ok(error instanceof OperatorError, String(error));
        assert.match(error.message, message);
        assert.match(error.fix!, fix);
        const line = `${error.message}; ${error.fix}`;
        assert.ok(!line.includes('\n') && line.length < 600 && !line.includes('wrong-secret'), line);
        return true;
      });
    });
});

/** Later there is no line to read, but 503. An object by S3's API has an ETag and a length, which a page may have too. */
describe('a web page in place of an object store is no success of anything', { concurrency: true }, () => {
  const page = { ...PAGE, headers: { 'content-type': 'text/html' } };
  const data = Buffer.from('data');
  for (const [name, kind] of Object.entries(KINDS))
    for (const [what, action] of [
      ['writes', driver => driver.write('key', data)],
      ['looks', driver => driver.stat('key')],
      ['reads', driver => driver.get('key')],
      ['lists', driver => driver.list('folder')],
      [
        'uploads',
        async driver => {
          const segment = await driver.createSegment('segment');
          await segment.write(Buffer.alloc(21 * MIB));
          await segment.close();
        },
      ],
    ] as ReadonlyArray<readonly [string, (driver: StorageDriver) => Promise<unknown>]>)
      test(`of ${what} on ${name}`, async t => {
        const driver = await serving(t, kind, always(name === 's3' ? page : PAGE));
        await assert.rejects(action(driver), (error: unknown) => {
          assert.ok(error instanceof StorageError && error.kind === 'unavailable', String(error));
          return true;
        });
      });
});
