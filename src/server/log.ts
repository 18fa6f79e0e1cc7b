import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { format, transports, createLogger as winston } from 'winston';
import { clientCertificateOf } from '../auth/client-certificate.js';
import { OperatorError, systemCode } from '../errors.js';
import { LineWriter } from './lines.js';

/** What a line says beside its message. An Error is shown with its stack, an OperatorError as what it says. */
export type Fields = Readonly<Record<string, unknown>>;

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/**
 * `text` is logfmt, the others one JSON object a line; `time`, `level` and `msg` are named as the original registry names
 * them.
 */
export type LogFormat = 'text' | 'json' | 'logstash';

/** The application's log. Nothing secret may be given to it. */
export type Log = Readonly<Record<LogLevel, (message: string, fields?: Fields) => void>>;

/** The application's log on standard error, where the original has it too; standard output is for the access log. */
export function createLogger(options: {
  level: LogLevel;
  formatter: LogFormat;
  /** Stand in every line (`log.fields`). */
  fields?: Fields;
  stream?: NodeJS.WritableStream;
}): Log & {
  /** Resolves when everything is written. */
  close(): Promise<void>;
} {
  const { level, formatter, fields, stream = process.stderr } = options;
  const transport = new transports.Stream({ stream, eol: '\n' });
  const logger = winston({
    level,
    format: format.printf(({ level, message, fields: own }) => {
      const head = { time: now(), level, msg: message };
      return render(formatter, { ...head, ...fields, ...(own as Fields), ...head });
    }),
    transports: [transport],
  });
  let open = true;
  // A log that nobody can read any more is no reason to stop serving.
  stream.on('error', () => {});
  const at = (level: LogLevel) => (message: string, fields?: Fields) => {
    // One object: of separate ones winston would merge a field named `message` into the message.
    if (open) logger.log({ level, message, fields });
  };
  return {
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    close: () =>
      new Promise(resolve => {
        open = false;
        transport.once('finish', () => stream.write('', () => resolve()));
        logger.end();
      }),
  };
}

export interface AccessLog {
  /** Notes when and from where a request came. @param id of `requestId` */
  begin(request: IncomingMessage, id: string): void;
  /** Writes the line of a request that has begun, once that is over, however it ended. */
  end(request: IncomingMessage, response: ServerResponse): void;
  /** Resolves when every line is written. */
  close(): Promise<void>;
}

/**
 * The access log, on standard output unless `fd` says otherwise. It does not go through winston: see
 * docs/decisions/0005-access-log-beside-winston.md.
 */
export function createAccessLog(options: {
  formatter: LogFormat;
  /** The user that a request turned out to be from; asked when it is over. */
  principal: (request: IncomingMessage) => string | undefined;
  /** Where it began, where that is not the other end of the connection. */
  address?: (request: IncomingMessage) => string | undefined;
  fields?: Fields;
  fd?: number;
}): AccessLog {
  const { formatter, principal, address, fields = {}, fd = 1 } = options;
  const writer = new LineWriter(
    fd,
    lines => `${render(formatter, { time: now(), level: 'warning', msg: 'access lines dropped', lines })}\n`,
  );
  const line = formatter === 'text' ? textLine : jsonLine;
  const own = render(formatter, fields);
  const end = formatter === 'text' ? `${own && ' '}${own}\n` : `${own === '{}' ? '' : ','}${own.slice(1)}\n`;
  return {
    begin(request, id) {
      // Behind the connection's end it does not tell any more.
      const peer = request.socket.remoteAddress ?? '';
      (request as Begun)[BEGUN] = { id, peer, remote: address?.(request) ?? peer, started: performance.now() };
    },
    end(request, response) {
      const begun = (request as Begun)[BEGUN];
      if (!begun) return;
      const { id, peer, remote, started } = begun;
      const { socket } = request;
      const { bytesRead, bytesWritten } = socket;
      const before = (socket as Counted)[CARRIED] ?? NOTHING;
      (socket as Counted)[CARRIED] = { bytesRead, bytesWritten };
      const certificate = clientCertificateOf(request);
      const exchange = {
        id,
        remote,
        user: principal(request) ?? '-',
        method: request.method!,
        path: withoutSecrets(request.url!),
        status: response.headersSent ? response.statusCode : GONE,
        bytes: bytesWritten - before.bytesWritten,
        received: bytesRead - before.bytesRead,
        ms: Math.round((performance.now() - started) * 10) / 10,
        agent: request.headers['user-agent']?.slice(0, 200) ?? '-',
        aborted: !response.writableFinished,
        proxy: remote === peer ? undefined : peer,
        client: certificate && (certificate.commonName ?? '-'),
        serial: certificate?.serial,
      };
      writer.write(line(exchange) + end);
    },
    close: () => writer.close(),
  };
}

/** What one access line says. */
interface Exchange {
  readonly id: string;
  readonly remote: string;
  readonly user: string;
  readonly method: string;
  readonly path: string;
  readonly status: number;
  /** Heads and bodies of both directions, without TLS. */
  readonly bytes: number;
  readonly received: number;
  readonly ms: number;
  readonly agent: string;
  readonly aborted: boolean;
  /** Who has handed it on, where `remote` is what that says. */
  readonly proxy: string | undefined;
  /** Of a client certificate that was verified: its common name and serial number. */
  readonly client: string | undefined;
  readonly serial: string | undefined;
}

// Written out, for one is made for every request: a loop over names and values takes three times as long.
function textLine(x: Exchange): string {
  return `time=${now()} level=info msg=request id=${x.id} remote=${x.remote} user=${word(x.user)} method=${x.method} path=${word(x.path)} status=${x.status} bytes=${x.bytes} received=${x.received} ms=${x.ms} agent=${word(x.agent)}${x.aborted ? ' aborted=true' : ''}${x.proxy === undefined ? '' : ` proxy=${x.proxy}`}${x.client === undefined ? '' : ` client=${word(x.client)} serial=${x.serial}`}`;
}

function jsonLine(x: Exchange): string {
  return `{"time":"${now()}","level":"info","msg":"request","id":"${x.id}","remote":"${x.remote}","user":${quote(x.user)},"method":"${x.method}","path":${quote(x.path)},"status":${x.status},"bytes":${x.bytes},"received":${x.received},"ms":${x.ms},"agent":${quote(x.agent)}${x.aborted ? ',"aborted":true' : ''}${x.proxy === undefined ? '' : `,"proxy":"${x.proxy}"`}${x.client === undefined ? '' : `,"client":${quote(x.client)},"serial":"${x.serial}"`}`;
}

/** What is known of a request from its beginning. */
const BEGUN = Symbol('begun');

type Begun = IncomingMessage & { [BEGUN]?: { id: string; peer: string; remote: string; started: number } };

/** What a connection had carried at the end of its last exchange. */
const CARRIED = Symbol('carried');
const NOTHING = { bytesRead: 0, bytesWritten: 0 };

type Counted = object & { [CARRIED]?: { bytesRead: number; bytesWritten: number } };

/** The client left before there was an answer: no status of HTTP, but the one that proxies write for it. */
const GONE = 499;

const boot = randomBytes(4).toString('hex');
let count = 0;

/** The client's `X-Request-Id` where it is a plain word, so that a line can be found behind a proxy; else a new one. */
export function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  const id = typeof given === 'string' && /^[\w.-]{8,64}$/.test(given) ? given : `${boot}-${(++count).toString(36)}`;
  (request as Numbered)[ID] = id;
  return id;
}

/** What `requestId` has said of this request. */
export function requestIdOf(request: IncomingMessage): string | undefined {
  return (request as Numbered)[ID];
}

/** By a symbol: an entry of a WeakMap for each request costs as much as to write its line. */
const ID = Symbol('request id');

type Numbered = IncomingMessage & { [ID]?: string };

let second = 0;
let prefix = '';

/** RFC 3339 in UTC, with milliseconds. */
function now(): string {
  const time = Date.now();
  if (Math.floor(time / 1000) !== second) {
    second = Math.floor(time / 1000);
    prefix = new Date(time).toISOString().slice(0, -4);
  }
  return `${prefix}${String(time % 1000).padStart(3, '0')}Z`;
}

/** The query parameters of the registry's own interface. Whatever else stands in a query may be a secret. */
const SHOWN = new Set(
  'account artifactType digest digest-algorithm from last mount n page q scope service tag'.split(' '),
);

/** A request target as a log may show it. */
export function withoutSecrets(url: string): string {
  const query = url.indexOf('?') + 1;
  if (query === 0) return url;
  const parts = url.slice(query).split('&');
  return url.slice(0, query) + parts.map(part => maskValue(part, part.indexOf('='))).join('&');
}

function maskValue(part: string, equals: number): string {
  if (equals < 0) return part === '' ? '' : '***';
  const name = part.slice(0, equals);
  return SHOWN.has(name) ? part : `${name}=***`;
}

/** One line without its newline: printable ASCII, whatever the values hold, so that nobody can forge a line. */
function render(formatter: LogFormat, fields: Fields): string {
  const json = formatter !== 'text';
  let line = '';
  for (const name in fields) {
    const value = fields[name];
    if (value === undefined) continue;
    line += json ? `${line && ','}${quote(name)}:` : `${line && ' '}${name}=`;
    line += typeof value === 'number' || typeof value === 'boolean' ? value : text(value, json);
  }
  return json ? `{${line}}` : line;
}

function text(value: unknown, json: boolean): string {
  const string = typeof value === 'string' ? value : describe(value);
  return json ? quote(string) : word(string);
}

/** A value of logfmt: bare where it is one plain word. */
function word(string: string): string {
  return /^[!#-<>-[\]-~]+$/.test(string) ? string : quote(string);
}

function describe(value: unknown): string {
  if (value instanceof OperatorError) return value.fix ? `${value.message}; ${value.fix}` : value.message;
  if (value instanceof Error) return `${value.stack ?? value.message}${causesOf(value)}`;
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value);
}

/**
 * What was in the way, such as `ECONNREFUSED`, at most four causes deep: what answers a client does not say it. By codes
 * alone, for the message of a cause may cite what others have sent.
 */
function causesOf(error: Error): string {
  const codes = new Set<string>();
  let { cause } = error;
  for (let depth = 0; depth < 4 && cause instanceof Error; depth += 1) {
    const code = systemCode(cause);
    if (code !== undefined) codes.add(code);
    ({ cause } = cause);
  }
  return [...codes].map(code => `\ncaused by ${code}`).join('');
}

function quote(string: string): string {
  if (/^[ !#-[\]-~]*$/.test(string)) return `"${string}"`;
  return JSON.stringify(string).replace(/[^\x20-\x7e]/g, character => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}
