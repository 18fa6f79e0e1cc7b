import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { hashSync } from 'bcryptjs';
import { LocalRegistry } from '../support/local-registry.js';
import { digestOf, manifestOf, OCI_MANIFEST } from '../support/registry-fixture.js';
import type { Flood, Flooded } from './login-flood.js';

/**
 * `npm run bench -- login`: what logins do to others, and what can be learnt from the time that a refusal takes. The real
 * program on loopback, with clients of 127.0.0.0/8, since failed logins are bounded by address. `--only flood`, `users`,
 * `repositories` or `revocation`, as often as wanted, measures those only.
 */
const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    rate: { type: 'string', default: '500' },
    seconds: { type: 'string', default: '20' },
    samples: { type: 'string', default: '2000' },
    rounds: { type: 'string', default: '10' },
    cost: { type: 'string', default: '10' },
  },
});
const cost = Number(values.cost);
const samples = Number(values.samples);
const wanted = (name: string) => values.only.length === 0 || values.only.includes(name);
const dir = mkdtempSync(join(tmpdir(), 'registry-secure-bench-'));
const file = (name: string) => join(dir, name);
const alice = 'alice:correct horse';

const line = (name: string, password: string) => `${name}:${hashSync(password, cost)}\n`;
const USERS = line('alice', 'correct horse') + line('known', randomBytes(12).toString('hex'));

const GROUPS = 'dev: alice\n';
const POLICY = `rules:
  - {who: [user:root, group:dev], may: [admin], on: ["bench/**"]}
  - {who: [user:root], may: [admin], on: ["hidden/**"]}
`;

function replace(name: string, content: string): void {
  writeFileSync(file(`${name}.new`), content);
  renameSync(file(`${name}.new`), file(name));
}

async function start(): Promise<LocalRegistry> {
  replace('htpasswd', USERS + line('root', 'root'));
  replace('groups', GROUPS);
  replace('policy.yml', POLICY);
  const registry = await LocalRegistry.start(dir, ['up'], {
    env: {
      REGISTRY_AUTH_HTPASSWD_PATH: file('htpasswd'),
      REGISTRY_ACCESS_POLICY: file('policy.yml'),
      REGISTRY_ACCESS_GROUPS: file('groups'),
      REGISTRY_LIMITS_UPLOADS: '0',
    },
  });
  for (const repository of ['bench/app', 'hidden/app']) {
    const config = Buffer.from('{}');
    const blob = `/v2/${repository}/blobs/uploads/?digest=${digestOf(config)}`;
    await registry.call('POST', blob, { auth: 'root:root', body: config });
    const put = `/v2/${repository}/manifests/v1`;
    const { status } = await registry.call('PUT', put, { auth: 'root:root', body: manifestOf(config, []) });
    if (status !== 201) throw new Error(`${put}: ${status}`);
  }
  return registry;
}

/** Requests one after the other on a connection that stays open, each with the time from its first byte to its answer (ms). */
class Client {
  readonly #agent: https.Agent;

  constructor(
    private readonly registry: LocalRegistry,
    localAddress = '127.0.0.1',
  ) {
    this.#agent = new https.Agent({ keepAlive: true, maxSockets: 1, localAddress });
  }

  async get(path: string, auth: string): Promise<{ status: number; ms: number }> {
    const { port } = this.registry;
    const options = { host: '127.0.0.1', port, path, ca, auth, agent: this.#agent, headers: { accept: OCI_MANIFEST } };
    return new Promise((resolve, reject) => {
      let began = 0;
      const request = https.get(options, response => {
        const ms = performance.now() - began;
        response.resume().once('end', () => resolve({ status: response.statusCode!, ms }));
      });
      request.once('error', reject);
      began = performance.now();
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

const MANIFEST = '/v2/bench/app/manifests/v1';

/** A pull with credentials that are known, every 10 ms, while `during` runs. */
async function pulling(registry: LocalRegistry, during: Promise<unknown>): Promise<number[]> {
  const client = new Client(registry);
  await client.get(MANIFEST, alice);
  const times: number[] = [];
  let over = false;
  void during.finally(() => {
    over = true;
  });
  while (!over) {
    const { status, ms } = await client.get(MANIFEST, alice);
    if (status !== 200) throw new Error(`a pull was answered with ${status}`);
    times.push(ms);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  client.close();
  return times;
}

async function flooding(registry: LocalRegistry, sources: number): Promise<Flooded> {
  const flood: Flood = {
    port: registry.port,
    ca: ca.toString('latin1'),
    rate: Number(values.rate),
    seconds: Number(values.seconds),
    sources,
  };
  const child = spawn(process.execPath, [fileURLToPath(new URL('./login-flood.js', import.meta.url))], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.end(JSON.stringify(flood));
  const [output] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  return JSON.parse(output) as Flooded;
}

const share = (times: readonly number[], q: number) =>
  [...times].sort((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))]!;
const told = (times: readonly number[]) =>
  `p50 ${share(times, 0.5).toFixed(1)} ms, p99 ${share(times, 0.99).toFixed(1)} ms, most ${Math.max(...times).toFixed(1)} ms`;

/** How often one of `b` took longer than one of `a`, ties half: 0.5 where the times tell nothing. */
function auc(a: readonly number[], b: readonly number[]): number {
  const sorted = [...a].sort((x, y) => x - y);
  const below = (value: number, orEqual: boolean) => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle]! < value || (orEqual && sorted[middle] === value)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const wins = b.reduce((sum, value) => sum + (below(value, false) + below(value, true)) / 2, 0);
  return wins / (a.length * b.length);
}

/** Whoever guesses by it may guess either way. */
const separation = (a: readonly number[], b: readonly number[]) => {
  const area = auc(a, b);
  return Math.max(area, 1 - area).toFixed(3);
};

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function flood(registry: LocalRegistry): Promise<void> {
  const idle = await pulling(registry, new Promise(resolve => setTimeout(resolve, Number(values.seconds) * 1000)));
  say(`cached pull, idle: ${told(idle)} (${idle.length} pulls)`);
  for (const sources of [1, 256]) {
    const running = flooding(registry, sources);
    const times = await pulling(registry, running);
    const { sent, answers } = await running;
    const what = Object.entries(answers).map(([status, count]) => `${count} x ${status}`);
    say(
      `cached pull, ${Math.round(sent / Number(values.seconds))} wrong logins a second from ${sources} addresses: ${told(times)} (${times.length} pulls; logins: ${what.join(', ')})`,
    );
  }
}

/** Samples of two kinds in an order of chance. */
async function interleaved(sample: (kind: 0 | 1, n: number) => Promise<number>): Promise<[number[], number[]]> {
  const times: [number[], number[]] = [[], []];
  for (let n = 0; n < samples; n++)
    for (const kind of Math.random() < 0.5 ? ([0, 1] as const) : ([1, 0] as const))
      times[kind].push(await sample(kind, n));
  return times;
}

async function users(registry: LocalRegistry): Promise<void> {
  const [known, unknown] = await interleaved(async (kind, n) => {
    // An address of its own for each, or the bound on failed logins would answer; the connection is made before.
    const at = 2 * n + kind;
    const client = new Client(registry, `127.2.${at >> 8}.${at & 255 || 1}`);
    await client.get('/healthz', '');
    const password = randomBytes(8).toString('hex');
    const { status, ms } = await client.get('/v2/', `${kind === 0 ? 'known' : 'nobod'}:${password}`);
    client.close();
    if (status !== 401) throw new Error(`a wrong login was answered with ${status}`);
    return ms;
  });
  say(`wrong password of a user: ${told(known)}`);
  say(`password of nobody: ${told(unknown)}`);
  say(`AUC, ${samples} samples each at bcrypt cost ${cost}: ${separation(known, unknown)}`);
}

async function repositories(registry: LocalRegistry): Promise<void> {
  const client = new Client(registry);
  for (const path of ['manifests/v1', 'tags/list', `blobs/${digestOf(Buffer.from('{}'))}`]) {
    const [hidden, absent] = await interleaved(async kind => {
      const { status, ms } = await client.get(`/v2/${kind === 0 ? 'hidden' : 'absent'}/app/${path}`, alice);
      if (status !== 403) throw new Error(`${path}: ${status}`);
      return ms;
    });
    say(
      `a hidden repository against an absent one, ${path.slice(0, 12)}: AUC ${separation(hidden, absent)} (${told(hidden)})`,
    );
  }
  client.close();
}

async function revocation(registry: LocalRegistry): Promise<void> {
  const without = USERS.replace(/^alice:.*\n/, '') + line('root', 'root');
  const whole = USERS + line('root', 'root');
  const cases: ReadonlyArray<readonly [what: string, status: number, file: string, away: string, back: string]> = [
    ['a user is removed', 401, 'htpasswd', without, whole],
    ['a rule is removed', 403, 'policy.yml', POLICY.replace(', group:dev', ''), POLICY],
    ['a member leaves a group', 403, 'groups', 'dev: bob\n', GROUPS],
  ];
  for (const [what, status, name, away, back] of cases) {
    const times: number[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      // Another address each time, for what fails meanwhile counts against the address.
      const client = new Client(registry, `127.3.${cases.findIndex(([other]) => other === what)}.${round + 1}`);
      while ((await client.get(MANIFEST, alice)).status !== 200) await new Promise(resolve => setTimeout(resolve, 700));
      replace(name, away);
      const began = performance.now();
      let got = 200;
      while (got === 200) {
        await new Promise(resolve => setTimeout(resolve, 2));
        got = (await client.get(MANIFEST, alice)).status;
      }
      if (got !== status) throw new Error(`${what}: ${got}`);
      times.push(performance.now() - began);
      client.close();
      replace(name, back);
    }
    say(`until it bites that ${what}: ${told(times)} (${times.length} times)`);
  }
}

let ca: Buffer;
let registry: LocalRegistry | undefined;
try {
  registry = await start();
  ca = readFileSync(file('certs/ca.crt'));
  if (wanted('flood')) await flood(registry);
  if (wanted('users')) await users(registry);
  if (wanted('repositories')) await repositories(registry);
  if (wanted('revocation')) await revocation(registry);
} finally {
  await registry?.stop();
  rmSync(dir, { recursive: true, force: true });
}
