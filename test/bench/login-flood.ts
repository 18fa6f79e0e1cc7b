import https from 'node:https';
import { text } from 'node:stream/consumers';

/** What one run of the flood does; it reads this as JSON from its standard input. */
export interface Flood {
  readonly port: number;
  readonly ca: string;
  /** Wrong logins a second, and for how long (s). */
  readonly rate: number;
  readonly seconds: number;
  /** How many addresses they come from. */
  readonly sources: number;
}

/** What it prints as JSON: how many were sent, and what they were answered with. */
export interface Flooded {
  readonly sent: number;
  readonly answers: Readonly<Record<string, number>>;
}

const { port, ca, rate, seconds, sources } = JSON.parse(await text(process.stdin)) as Flood;
const agents = Array.from({ length: sources }, (_, index) => {
  const localAddress = `127.1.${Math.floor(index / 250)}.${(index % 250) + 1}`;
  return new https.Agent({ keepAlive: true, maxSockets: 2, localAddress });
});
const answers: Record<string, number> = {};
let sent = 0;

function login(): Promise<void> {
  const n = sent++;
  const user = n % 2 === 0 ? 'alice' : `nobody${n}`;
  return new Promise(resolve => {
    const ended = (what: string) => {
      answers[what] = (answers[what] ?? 0) + 1;
      resolve();
    };
    const options = {
      host: '127.0.0.1',
      port,
      path: '/v2/',
      ca,
      agent: agents[n % sources]!,
      auth: `${user}:wrong${n}`,
    };
    const request = https.get(options, response => {
      response.resume().once('end', () => ended(String(response.statusCode)));
    });
    request.once('error', error => ended((error as NodeJS.ErrnoException).code ?? 'error'));
  });
}

const open: Promise<void>[] = [];
const start = performance.now();
while (performance.now() - start < seconds * 1000) {
  const due = ((performance.now() - start) / 1000) * rate;
  while (sent < due) open.push(login());
  await new Promise(resolve => setTimeout(resolve, 2));
}
await Promise.all(open);
process.stdout.write(JSON.stringify({ sent, answers } satisfies Flooded));
process.exit(0);
