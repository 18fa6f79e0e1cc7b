import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Bench, progress } from './bench.js';
import { MIB } from './content.js';
import { CURVES, type Curve } from './curves.js';
import { lines } from './lines.js';
import { median, short } from './numbers.js';
import { machine, main, requireCommands, selected, wholeNumber } from './options.js';
import { aligned } from './report.js';
import { OURS } from './servers.js';

/** The medians of all rounds. */
export interface Grown extends Pick<Curve, 'name' | 'of' | 'series'> {
  readonly points: ReadonlyArray<{ readonly at: number; readonly values: readonly number[] }>;
}

/**
 * `npm run bench -- growth`: how time and memory grow with the size of the store, with clients, and with the size of a blob.
 * `--most N` ends each curve at N, though not before its first point; a store of 1,000,000 blobs takes 12 GiB of memory.
 */
await main(async () => {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '3' },
      most: { type: 'string', default: `${2 ** 32}` },
      workers: { type: 'string' },
      only: { type: 'string', multiple: true, default: [] },
      json: { type: 'string' },
      svg: { type: 'string' },
    },
  });
  const rounds = wholeNumber('rounds', values.rounds);
  const most = wholeNumber('most', values.most);
  const curves = selected(CURVES, 'only', values.only);
  requireCommands([{ wrk: 'wrk', curl: 'curl', htpasswd: 'apache2-utils' }]);
  const bench = await Bench.create({
    kinds: [OURS],
    seconds: wholeNumber('seconds', values.seconds),
    bytes: MIB,
    workers: values.workers === undefined ? undefined : wholeNumber('workers', values.workers),
  });
  const grown: Grown[] = [];
  try {
    for (const curve of curves) grown.push(await grow(bench, curve, rounds, most));
  } finally {
    await bench.close();
  }
  const of = machine();
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ machine: of, grown }, undefined, 2)}\n`);
  if (values.svg !== undefined) writeFileSync(values.svg, lines(grown, of));
  process.stdout.write(`${of}\n\n${table(grown)}\n`);
});

async function grow(bench: Bench, curve: Curve, rounds: number, most: number): Promise<Grown> {
  const points: Array<{ at: number; values: number[] }> = [];
  for (const at of curve.points.filter((point, index) => index === 0 || point <= most)) {
    const samples: number[][] = [];
    for (let round = 0; round < rounds; round++) {
      progress(`${curve.name}, ${at.toLocaleString('en-US')} ${curve.of}, round ${round + 1} of ${rounds}`);
      samples.push(await curve.measure(bench, at));
    }
    points.push({ at, values: curve.series.map((_, index) => median(samples.map(sample => sample[index]!))) });
  }
  const { name, of, series } = curve;
  return { name, of, series, points };
}

/** With the exponent between each point and the one before: 1 is linear, 2 is quadratic. */
function table(grown: readonly Grown[]): string {
  const blocks = grown.map(({ name, of, series, points }) => {
    const head = ['', of, ...series.flatMap(unit => [unit, 'exponent'])];
    const rows = points.map(({ at, values }, index) => {
      const before = points[index - 1];
      const cells = values.flatMap((value, at_) => [short(value), before ? exponent(before, { at, values }, at_) : '']);
      return ['', at.toLocaleString('en-US'), ...cells];
    });
    return `${name}\n${aligned([head, ...rows])}\n`;
  });
  return blocks.join('\n');
}

function exponent(before: Grown['points'][number], now: Grown['points'][number], index: number): string {
  return (Math.log(now.values[index]! / before.values[index]!) / Math.log(now.at / before.at)).toFixed(2);
}
