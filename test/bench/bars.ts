import { short } from './numbers.js';
import { rowsOf } from './report.js';
import type { Measured } from './runner.js';
import { PANEL_WIDTH, type Panel, picture, series, xml } from './svg.js';

const [BAR, LINE, LEFT, RIGHT] = [14, 22, 165, 150];

/** A panel for each workload: a bar to the median, a line from the least to the most, and how much ours has of each. */
export function bars(measured: readonly Measured[], title: string): string {
  const servers = [...new Set(measured.flatMap(({ samples }) => Object.keys(samples)))];
  return picture(
    title,
    measured.map(one => panel(one, servers)),
  );
}

function panel(one: Measured, servers: readonly string[]): Panel {
  const rows = rowsOf([one]);
  const most = Math.max(...rows.map(row => row.max), Number.MIN_VALUE);
  const x = (value: number) => LEFT + (value / most) * (PANEL_WIDTH - LEFT - RIGHT);
  const { name, unit, better } = one.workload;
  const lines = rows.map((row, index) => {
    const y = 26 + index * LINE;
    const [middle, text] = [y + BAR / 2, y + BAR - 3];
    const ratio = row.ratio === undefined ? '' : `  (ours ${short(row.ratio)}x)`;
    return `<text class="e" x="${LEFT - 8}" y="${text}">${xml(row.server)}</text>
<rect class="s${series(servers.indexOf(row.server))}" x="${LEFT}" y="${y}" width="${(x(row.median) - LEFT).toFixed(1)}" height="${BAR}"/>
<line class="w" x1="${x(row.min).toFixed(1)}" x2="${x(row.max).toFixed(1)}" y1="${middle}" y2="${middle}"/>
<text x="${(x(row.max) + 8).toFixed(1)}" y="${text}">${xml(short(row.median) + ratio)}</text>`;
  });
  const heading = `<text class="t" y="12">${xml(name)}</text><text class="m e" x="${PANEL_WIDTH}" y="12">${xml(`${unit}, ${better} is better`)}</text>`;
  return { height: 26 + rows.length * LINE, content: heading + lines.join('\n') };
}
