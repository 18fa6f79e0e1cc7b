import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Namespace } from '../support/namespace.js';
import type { Target } from './load/connection.js';
import type { Job, Order } from './load/load.js';
import type { Work } from './load/work.js';

const LOAD = fileURLToPath(new URL('./load/load.js', import.meta.url));
/** What a process is started by that is to end with the one that starts it, however that one ends. */
const TIED = ['setpriv', '--pdeathsig', 'KILL', '--'];
/** No generator runs for so long (ms). */
const PATIENCE = 3_600_000;

export class Generators {
  constructor(
    private readonly namespace: Namespace,
    private readonly credentials: Omit<Target, 'origin'>,
  ) {}

  /** Our own one, a process of Node. */
  async run(origin: string, job: Job): Promise<Work> {
    const order: Order = { target: { origin, ...this.credentials }, job };
    const argv = [...TIED, process.execPath, LOAD];
    return JSON.parse(await this.namespace.must(argv, { input: JSON.stringify(order), timeout: PATIENCE }));
  }

  /**
   * GETs on 16 connections that stay open, by wrk, whose share of a request is the least. The paths come in turn.
   * @throws Error when an answer is no 2xx
   */
  async keepAlive(origin: string, options: RequestOptions): Promise<Work> {
    const { paths, accept, seconds, connections = 16 } = options;
    const script = join(this.namespace.dir, 'requests.lua');
    writeFileSync(script, lua(paths, { authorization: this.credentials.authorization, accept }));
    const command = [
      'wrk',
      '-t',
      '1',
      '-c',
      `${connections}`,
      '-d',
      `${seconds}s`,
      '--timeout',
      '30s',
      '--latency',
      '-s',
      script,
      origin,
    ];
    const { output, cpu } = await this.#timed(command, seconds);
    const [, requests, time] = /(\d+) requests in ([\d.]+m?s)/.exec(output) ?? [];
    if (!requests || /Non-2xx|Socket errors/.test(output)) throw new Error(`wrk ${origin}${paths[0]}:\n${output}`);
    const p99 = milliseconds(/99%\s+([\d.]+(?:us|ms|s))/.exec(output)?.[1] ?? '0s');
    return { amount: Number(requests), seconds: milliseconds(time!) / 1000, cpu, times: [p99] };
  }

  /**
   * GETs with a new connection and a full handshake each, as docker sends them: by `openssl s_time`, for wrk resumes
   * sessions, and ab of Debian 12 speaks nothing newer than TLS 1.2. It sees no status, so the size has to tell.
   * @param options.bytes how many each answer has at least
   * @throws Error when an answer is shorter
   */
  async newConnections(
    origin: string,
    { path, accept, seconds, bytes }: { path: string; accept: string; seconds: number; bytes: number },
  ): Promise<Work> {
    const { host } = new URL(origin);
    const fields = [
      `Host: ${host}`,
      'Connection: close',
      `Authorization: ${this.credentials.authorization}`,
      `Accept: ${accept}`,
    ];
    // It puts the path between GET and " HTTP/1.0", so the request ends in a field of no meaning.
    const request = [`${path} HTTP/1.1`, ...fields, 'X-Rest:'].join('\r\n');
    const one = ['openssl', 's_time', '-connect', host, '-new', '-time', `${seconds}`, '-www', request];
    const all = ['sh', '-c', 'for client in 1 2 3 4 5 6 7 8; do "$@" & done; wait', 'sh', ...TIED, ...one];
    const started = performance.now();
    const { output, cpu } = await this.#timed(all, seconds);
    const took = (performance.now() - started) / 1000;
    const lines = [...output.matchAll(/^(\d+) connections in \d+ real seconds, (\d+) bytes read per connection/gm)];
    const short = lines.find(([, , each]) => Number(each) < bytes);
    if (lines.length !== 8 || short) throw new Error(`openssl s_time ${origin}${path}:\n${output}`);
    return { amount: lines.reduce((sum, [, count]) => sum + Number(count), 0), seconds: took, cpu };
  }

  /** Runs a command inside and adds up the CPU seconds of it and its children. */
  async #timed(argv: readonly string[], seconds: number): Promise<{ output: string; cpu: number }> {
    // `times` prints those of the shell, then those of its children, user and system: 0m0.00s 0m0.00s.
    const shell = [...TIED, 'sh', '-c', '"$@" || exit; echo; times', 'sh', ...TIED, ...argv];
    // The client's trust is no part of it: without the system's folder of authorities it need not search that each time.
    const env = { SSL_CERT_DIR: '/nonexistent', SSL_CERT_FILE: '/dev/null' };
    const output = await this.namespace.must(shell, { env, timeout: seconds * 1000 + PATIENCE });
    const spent = [
      ...output
        .trimEnd()
        .split('\n')
        .at(-1)!
        .matchAll(/(\d+)m([\d.]+)s/g),
    ];
    return { output, cpu: spent.reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0) };
  }
}

interface RequestOptions {
  readonly paths: readonly string[];
  readonly accept: string;
  readonly seconds: number;
  readonly connections?: number;
}

function milliseconds(text: string): number {
  const [, number, unit] = /^([\d.]+)(us|ms|s)$/.exec(text)!;
  return Number(number) * { us: 0.001, ms: 1, s: 1000 }[unit as 'us' | 'ms' | 's'];
}

/** Every request is made beforehand: wrk only hands them on. */
function lua(paths: readonly string[], headers: Readonly<Record<string, string>>): string {
  const fields = Object.entries(headers).map(([name, value]) => `[${JSON.stringify(name)}] = ${JSON.stringify(value)}`);
  return `
local requests, at = {}, 0
function init()
  for _, path in ipairs({ ${paths.map(path => JSON.stringify(path)).join(', ')} }) do
    requests[#requests + 1] = wrk.format("GET", path, { ${fields.join(', ')} })
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
`;
}
