/** What both plots share: text that is safe, colours for a light and a dark page, and a picture of panels. */

export const xml = (text: string): string => text.replace(/[&<>"]/g, char => `&#${char.charCodeAt(0)};`);

/** Colours that differ in lightness too, for those who see few. */
const SERIES = ['#0969da', '#bc4c00', '#8250df', '#1a7f37', '#6e7781', '#a40e26', '#9a6700'];
const SERIES_DARK = ['#58a6ff', '#f0883e', '#bc8cff', '#3fb950', '#8b949e', '#ff7b72', '#d29922'];

const rules = (colours: readonly string[]) =>
  colours.map((colour, index) => `.s${index}{fill:${colour}}.l${index}{stroke:${colour}}`).join('');

const STYLE = `text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600}.m{fill:#59636e}.e{text-anchor:end}
.b{fill:#fff}.g{stroke:#d1d9e0}.w{stroke:#1f2328}path{fill:none;stroke-width:2}${rules(SERIES)}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9198a1}.b{fill:#0d1117}.g{stroke:#3d444d}.w{stroke:#e6edf3}${rules(SERIES_DARK)}}`;

export interface Panel {
  readonly height: number;
  /** Elements whose origin is the upper left corner of the panel. */
  readonly content: string;
}

export const PANEL_WIDTH = 560;
const GAP = 24;

/** How many colours there are, by the classes s0 (to fill) and l0 (to draw) and on. */
export const series = (index: number): number => index % SERIES.length;

/** A picture of its own: panels in two columns, each new one where there is more room. */
export function picture(title: string, panels: readonly Panel[]): string {
  const columns = [48, 48];
  const placed = panels.map(({ height, content }) => {
    const column = columns[0]! <= columns[1]! ? 0 : 1;
    const at = `translate(${GAP + column * (PANEL_WIDTH + GAP)} ${columns[column]})`;
    columns[column] = columns[column]! + height + GAP;
    return `<g transform="${at}">${content}</g>`;
  });
  const [width, height] = [2 * PANEL_WIDTH + 3 * GAP, Math.max(...columns)];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${xml(title)}">
<style>${STYLE}</style>
<rect class="b" width="${width}" height="${height}"/>
<text class="m" x="${GAP}" y="28">${xml(title)}</text>
${placed.join('\n')}
</svg>
`;
}
