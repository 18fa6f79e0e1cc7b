import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { bars } from './bars.js';
import { Bench } from './bench.js';
import { MIB } from './content.js';
import { kinds, machine, main, requireCommands, selected, wholeNumber } from './options.js';
import { markdownTable, textTable } from './report.js';
import { type Measured, measure } from './runner.js';
import { WORKLOADS } from './workloads.js';

/** All of a run, as --json writes it and --from reads it again. */
interface Run {
  readonly machine: string;
  readonly command: string;
  readonly results: readonly Measured[];
}

const COMMANDS = { htpasswd: 'apache2-utils', curl: 'curl' };

/**
 * `npm run bench`: ours beside other registries, a server of files and a bare handler, all over TLS, as docs/performance.md
 * says. `--only NAME` and `--without NAME`, by the beginning of the name and as often as wanted, choose workloads and servers.
 */
await main(async () => {
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
  const heading = `${run.machine}; \`${run.command}\``;
  write('-', `${heading}\n\n${values.markdown ? markdownTable(run.results) : textTable(run.results)}\n`);

  async function measureAll(): Promise<Run> {
    const workloads = selected(WORKLOADS, 'only', values.only);
    const servers = kinds(values.without, values.peer);
    const rounds = wholeNumber('rounds', values.rounds);
    requireCommands([COMMANDS, ...servers.map(kind => kind.needs), ...workloads.map(({ needs }) => needs ?? {})]);
    const bench = await Bench.create({
      kinds: servers,
      seconds: wholeNumber('seconds', values.seconds),
      bytes: wholeNumber('megabytes', values.megabytes) * MIB,
      workers: values.workers === undefined ? undefined : wholeNumber('workers', values.workers),
    });
    try {
      const results: Measured[] = [];
      for (const workload of workloads) results.push(await measure(bench, workload, rounds));
      return { machine: machine(), command: commandLine(), results };
    } finally {
      await bench.close();
    }
  }
});

/** As it can be given to a shell again. */
function commandLine(): string {
  const quoted = process.argv.slice(2).map(word => (/^[\w./=-]+$/.test(word) ? word : `'${word}'`));
  return ['npm run bench', ...(quoted.length > 0 ? ['--', ...quoted] : [])].join(' ');
}
