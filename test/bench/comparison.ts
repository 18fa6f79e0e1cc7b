import { readFileSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { bars } from './bars.js';
import { Bench } from './bench.js';
import { MIB } from './content.js';
import { kinds, machine, main, requireCommands, selected, wholeNumber } from './options.js';
import { markdownTable, textTable } from './report.js';
import { type Measured, measure } from './runner.js';
import type { Kind } from './servers.js';
import type { Workload } from './workloads.js';

/** What can be compared in what. */
interface Comparison {
  /** How it is called, such as `npm run bench`. */
  readonly command: string;
  readonly servers: readonly Kind[];
  readonly workloads: readonly Workload[];
}

/** All of a run, as --json writes it and --from reads it again. */
interface Run {
  readonly machine: string;
  readonly command: string;
  /** How many processes wanted to run before it began, of the last minute. */
  readonly load?: number;
  readonly results: readonly Measured[];
}

const COMMANDS = { htpasswd: 'apache2-utils', curl: 'curl' };

/**
 * Ours beside other servers, all over TLS, as docs/performance.md says. `--only NAME` and `--without NAME`, by the beginning of
 * the name and as often as wanted, choose workloads and servers.
 */
export const compare = (of: Comparison) => main(() => comparison(of));

async function comparison(of: Comparison): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '5' },
      megabytes: { type: 'string', default: '300' },
      workers: { type: 'string' },
      only: { type: 'string', multiple: true, default: [] },
      without: { type: 'string', multiple: true, default: [] },
      peer: { type: 'string', multiple: true, default: [] },
      json: { type: 'string' },
      svg: { type: 'string' },
      markdown: { type: 'boolean', default: false },
      from: { type: 'string' },
    },
  });
  const write = (file: string, content: string) =>
    file === '-' ? process.stdout.write(content) : writeFileSync(file, content);
  const run = values.from === undefined ? await measureAll() : (JSON.parse(readFileSync(values.from, 'utf8')) as Run);
  if (values.json !== undefined) write(values.json, `${JSON.stringify(run, undefined, 2)}\n`);
  if (values.svg !== undefined) write(values.svg, bars(run.results, run.machine));
  if (values.json === '-' || values.svg === '-') return;
  const load = run.load === undefined ? '' : `; load before ${run.load.toFixed(1)}`;
  const heading = `${run.machine}${load}; \`${run.command}\``;
  write('-', `${heading}\n\n${values.markdown ? markdownTable(run.results) : textTable(run.results)}\n`);

  async function measureAll(): Promise<Run> {
    const workloads = selected(of.workloads, 'only', values.only);
    const servers = kinds(of.servers, values.without, values.peer);
    const rounds = wholeNumber('rounds', values.rounds);
    requireCommands([COMMANDS, ...servers.map(kind => kind.needs), ...workloads.map(({ needs }) => needs ?? {})]);
    const [load] = loadavg();
    const bench = await Bench.create({
      kinds: servers,
      seconds: wholeNumber('seconds', values.seconds),
      bytes: wholeNumber('megabytes', values.megabytes) * MIB,
      workers: values.workers === undefined ? undefined : wholeNumber('workers', values.workers),
    });
    try {
      const results: Measured[] = [];
      for (const workload of workloads) results.push(await measure(bench, workload, rounds));
      return { machine: machine(), command: commandLine(of.command), load: load!, results };
    } finally {
      await bench.close();
    }
  }
}

/** As it can be given to a shell again. */
function commandLine(command: string): string {
  const quoted = process.argv.slice(2).map(word => (/^[\w./=-]+$/.test(word) ? word : `'${word}'`));
  const separator = quoted.length > 0 && !command.includes(' -- ') ? ['--'] : [];
  return [command, ...separator, ...quoted].join(' ');
}
