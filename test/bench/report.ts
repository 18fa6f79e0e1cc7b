import { median, quantile, short } from './numbers.js';
import type { Measured, Sample } from './runner.js';
import { OURS } from './servers.js';

interface Row {
  readonly workload: string;
  readonly server: string;
  readonly min: number;
  readonly median: number;
  readonly max: number;
  readonly unit: string;
  readonly better: 'more' | 'less';
  /** Ours to this server: the median of the ratios of each round, since the machine may be busier in the next. */
  readonly ratio: number | undefined;
  readonly cost: number | undefined;
  readonly costUnit: string | undefined;
  readonly costRatio: number | undefined;
  readonly pss: number | undefined;
  readonly rss: number | undefined;
  readonly generator: number;
  readonly store: Sample['store'];
}

export function rowsOf(measured: readonly Measured[]): Row[] {
  return measured.flatMap(({ workload, samples }) => {
    const ours = samples[OURS.name];
    return Object.entries(samples).map(([server, of]) => {
      const values = of.map(sample => sample.value);
      return {
        workload: workload.name,
        server,
        min: Math.min(...values),
        median: median(values),
        max: Math.max(...values),
        unit: workload.unit,
        better: workload.better,
        ratio: ratio(ours, of, sample => sample.value),
        cost: overRounds(of, sample => sample.cost, median),
        costUnit: workload.cost,
        costRatio: ratio(ours, of, sample => sample.cost),
        pss: overRounds(of, sample => sample.pss, most),
        rss: overRounds(of, sample => sample.rss, most),
        generator: median(of.map(sample => sample.generator)),
        store: storeOf(of),
      };
    });
  });
}

function storeOf(of: readonly Sample[]): Sample['store'] {
  const cost = overRounds(of, ({ store }) => store?.cost, median);
  const requests = overRounds(of, ({ store }) => store?.requests, median);
  return cost === undefined || requests === undefined ? undefined : { cost, requests };
}

const most = (numbers: readonly number[]) => quantile(numbers, 1);

function overRounds(
  of: readonly Sample[],
  pick: (sample: Sample) => number | undefined,
  join: (numbers: readonly number[]) => number,
): number | undefined {
  const numbers = of.map(pick);
  return numbers.every(number => number !== undefined) ? join(numbers as number[]) : undefined;
}

function ratio(
  ours: readonly Sample[] | undefined,
  theirs: readonly Sample[],
  pick: (sample: Sample) => number | undefined,
): number | undefined {
  if (!ours || ours === theirs) return undefined;
  const ratios = ours.map((sample, round) => (pick(sample) ?? Number.NaN) / (pick(theirs[round]!) ?? Number.NaN));
  return ratios.every(Number.isFinite) ? median(ratios) : undefined;
}

const or = <T>(value: T | undefined, text: (value: T) => string) => (value === undefined ? '' : text(value));
const times = (number: number) => `${short(number)}x`;

/** For a terminal: a line for each server. */
export function textTable(measured: readonly Measured[]): string {
  const stored = measured.some(({ samples }) => Object.values(samples).some(of => of.some(({ store }) => store)));
  const head = [
    '',
    'min',
    'median',
    'max',
    '',
    'ours to it',
    'CPU',
    '',
    'ours to it',
    'peak MiB',
    '(RSS)',
    'generator',
    ...(stored ? ['store: CPU', 'requests'] : []),
  ];
  const blocks = measured.map(({ workload, leftOut }, index) => {
    const lines = rowsOf([measured[index]!]).map(row => [
      `  ${row.server}`,
      short(row.min),
      short(row.median),
      short(row.max),
      row.unit,
      or(row.ratio, times),
      or(row.cost, short),
      row.costUnit ?? '',
      or(row.costRatio, times),
      or(row.pss, mib => mib.toFixed(0)),
      or(row.rss, mib => mib.toFixed(0)),
      short(row.generator),
      ...(row.store ? [short(row.store.cost), short(row.store.requests)] : []),
    ]);
    const absent = Object.entries(leftOut).map(([server, why]) => [`  ${server}`, `left out: ${why}`]);
    return [[workload.name], ...lines, ...absent];
  });
  return aligned([head, ...blocks.flat()]);
}

/** Words to the left, numbers to the right; a line of one or two cells is a sentence and widens nothing. */
export function aligned(lines: readonly (readonly string[])[]): string {
  const widths = lines
    .filter(line => line.length > 2)
    .reduce<number[]>((most, line) => line.map((cell, index) => Math.max(most[index] ?? 0, cell.length)), []);
  return lines
    .map(line => {
      if (line.length <= 2) return line.join('  ');
      const cells = line.map((cell, index) =>
        /^[\d–]/.test(cell) ? cell.padStart(widths[index]!) : cell.padEnd(widths[index]!),
      );
      return cells.join('  ').trimEnd();
    })
    .join('\n');
}

/**
 * For docs/performance.md: a line for each workload and a column for each server, in its cells the median with the least
 * and the most, the CPU time, the peak of memory, and how much ours has of it.
 */
export function markdownTable(measured: readonly Measured[]): string {
  const servers = [...new Set(measured.flatMap(({ samples }) => Object.keys(samples)))];
  const lines = measured.map(one => {
    const rows = new Map(rowsOf([one]).map(row => [row.server, row]));
    const cells = servers.map(server => {
      const row = rows.get(server);
      if (!row) return one.leftOut[server] ?? '';
      const ratios = or(
        row.ratio,
        value => `<br>**${times(value)}**${or(row.costRatio, cpu => `, CPU ${times(cpu)}`)}`,
      );
      const used = [
        or(row.cost, cost => `${short(cost)} ${row.costUnit}`),
        or(row.pss, mib => `${mib.toFixed(0)} MiB`),
      ];
      const store = or(row.store, ({ cost, requests }) =>
        [`<br>store: ${short(cost)} ${row.costUnit}`, `${short(requests)} requests`].join(', '),
      );
      const spread = row.min === row.max ? '' : ` (${short(row.min)}–${short(row.max)})`;
      return `${short(row.median)}${spread}<br>${used.filter(Boolean).join(', ')}${store}${ratios}`;
    });
    return [`${one.workload.name}<br>${one.workload.unit}`, ...cells];
  });
  return [['', ...servers], servers.map(() => '---').concat('---'), ...lines]
    .map(cells => `| ${cells.join(' | ')} |`)
    .join('\n');
}
