import type { Grown } from './growth.js';
import { short } from './numbers.js';
import { series as colour, PANEL_WIDTH, type Panel, picture, xml } from './svg.js';

const [TOP, HEIGHT, LEFT, RIGHT] = [30, 200, 70, 110];

/** A panel for each series of each curve, both axes logarithmic, so that a straight line at 45 degrees is linear growth. */
export function lines(grown: readonly Grown[], title: string): string {
  return picture(
    title,
    grown.flatMap(curve => curve.series.map((_, index) => panel(curve, index))),
  );
}

function panel({ name, of, series, points }: Grown, index: number): Panel {
  const values = points.map(point => point.values[index]!);
  const x = axis(
    points.map(point => point.at),
    LEFT,
    PANEL_WIDTH - RIGHT,
  );
  const y = axis(values, TOP + HEIGHT, TOP);
  const at = points.map((point, n) => [x.at(point.at).toFixed(1), y.at(values[n]!).toFixed(1)] as const);
  const grid = [
    ...y.ticks.map(
      tick => `<line class="g" x1="${LEFT}" x2="${PANEL_WIDTH - RIGHT}" y1="${y.at(tick)}" y2="${y.at(tick)}"/>
<text class="m e" x="${LEFT - 6}" y="${y.at(tick) + 4}">${xml(short(tick))}</text>`,
    ),
    ...points.map(
      point =>
        `<text class="m" text-anchor="middle" x="${x.at(point.at)}" y="${TOP + HEIGHT + 16}">${xml(compact(point.at))}</text>`,
    ),
  ];
  const path = `<path class="l${colour(index)}" d="M${at.map(([px, py]) => `${px} ${py}`).join('L')}"/>`;
  const dots = at.map(([px, py]) => `<circle class="s${colour(index)}" cx="${px}" cy="${py}" r="3"/>`);
  const heading = `<text class="t" y="12">${xml(name)}</text>
<text class="m e" x="${PANEL_WIDTH}" y="12">${xml(`${series[index]} by ${of}`)}</text>`;
  return { height: TOP + HEIGHT + 24, content: [heading, ...grid, path, ...dots].join('\n') };
}

/** A logarithmic scale that begins and ends at powers of ten around the numbers. */
function axis(numbers: readonly number[], from: number, to: number): { at(value: number): number; ticks: number[] } {
  const low = Math.floor(Math.log10(Math.min(...numbers)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...numbers))));
  return {
    at: value => from + ((Math.log10(value) - low) / (high - low)) * (to - from),
    ticks: Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index)),
  };
}

const compact = (value: number): string => {
  const unit = value % 1024 === 0 ? 1024 : 1000;
  const power = Math.min(3, Math.floor(Math.log(value) / Math.log(unit) + 1e-9));
  return `${Math.round((value / unit ** power) * 10) / 10}${unit === 1024 ? ['', ' Ki', ' Mi', ' Gi'][power] : ['', 'k', 'M', 'G'][power]}`;
};
