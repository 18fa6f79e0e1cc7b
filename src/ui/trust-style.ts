/** No font, picture or frame from elsewhere: the system's own fonts, in light and dark. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f5f6f4; --card: #ffffff; --ink: #1b2422; --quiet: #56625f; --line: #dce1de;
  --accent: #0b6e66; --on-accent: #ffffff; --soft: #e3f0ee; --code: #f0f3f1;
  --mono: ui-monospace, 'SF Mono', 'Cascadia Mono', 'Segoe UI Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121716; --card: #1a211f; --ink: #e6ecea; --quiet: #9fadaa; --line: #2f3a37;
    --accent: #5cc8bb; --on-accent: #06201d; --soft: #1f3532; --code: #131a18;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 3rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif;
}
h1, h2, h3, p, dl, dd, ul { margin: 0; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.25rem); line-height: 1.2; letter-spacing: -0.015em; }
h2 { font-size: 1.2rem; line-height: 1.3; margin-bottom: 0.5rem; }
h3 { font-size: 1.05rem; line-height: 1.3; }
.host { font-family: var(--mono); font-size: 0.88em; overflow-wrap: anywhere; color: var(--accent); }
.product { font-weight: 600; font-size: 0.85rem; letter-spacing: 0.02em; color: var(--quiet); margin-bottom: 0.35rem; }
.lead { max-width: 44rem; margin-top: 0.6rem; color: var(--quiet); }
header { margin-bottom: 1.75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 0.75rem; padding: 1.25rem 1.4rem; }
#clients { margin-top: 2.25rem; scroll-margin-top: 1rem; }
dl { margin: 1rem 0 0; }
dt { font-size: 0.85rem; color: var(--quiet); margin-top: 0.8rem; }
code { font-family: var(--mono); font-size: 0.86em; }
.copy { position: relative; background: var(--code); border: 1px solid var(--line); border-radius: 0.5rem; }
.copy button {
  font: 600 0.78rem/1 system-ui, sans-serif; color: var(--accent); background: var(--card);
  border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.5rem 0.7rem; min-width: 4.6rem; cursor: pointer;
}
.copy button:hover { border-color: var(--accent); }
.copy button.done { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
.digest { display: flex; align-items: center; gap: 0.75rem; padding: 0.45rem 0.5rem 0.45rem 0.8rem; margin-top: 0.3rem; }
.digest code { flex: 1; overflow-wrap: anywhere; }
.block { margin: 0.45rem 0 1rem; }
.block pre { margin: 0; padding: 0.85rem 1rem; overflow-x: auto; border-radius: 0.5rem; line-height: 1.5; tab-size: 2; }
.line pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.block button { position: absolute; top: 0.45rem; right: 0.45rem; }
.block button:not([hidden]) { display: block; }
.block:has(button:not([hidden])) pre { padding-right: 6rem; }
.actions { display: flex; flex-wrap: wrap; align-items: center; gap: 0.75rem 1.1rem; margin-top: 1.2rem; }
.button {
  display: inline-block; background: var(--accent); color: var(--on-accent); font-weight: 600; text-decoration: none;
  padding: 0.6rem 1.05rem; border-radius: 0.5rem;
}
.button:hover { filter: brightness(1.08); }
.hint { color: var(--quiet); font-size: 0.9rem; }
.clients { display: grid; grid-template-columns: 15.5rem minmax(0, 1fr); gap: 1.5rem; align-items: start; margin-top: 0.75rem; }
.group + .group { margin-top: 1.1rem; }
.group h3 { font-size: 0.78rem; font-weight: 600; color: var(--quiet); margin: 0 0 0.3rem 0.7rem; }
nav ul { list-style: none; padding: 0; }
nav a {
  display: block; padding: 0.36rem 0.7rem; border-radius: 0.4rem; color: var(--ink); text-decoration: none;
  font-size: 0.92rem; line-height: 1.35;
}
nav a:hover { background: var(--soft); }
nav a[aria-selected='true'] { background: var(--soft); color: var(--accent); font-weight: 600; }
.panel + .panel { margin-top: 1.25rem; }
.tabbed .panel { margin-top: 0; }
.panel { scroll-margin-top: 1rem; }
.tabbed .panels { position: sticky; top: 1rem; }
.panel h3 { font-size: 1.15rem; margin-bottom: 0.6rem; }
.panel p { color: var(--quiet); font-size: 0.95rem; }
.panel .restart { color: var(--ink); }
.notes { padding-left: 1.15rem; margin-top: 0.5rem; color: var(--quiet); font-size: 0.92rem; overflow-wrap: anywhere; }
.notes li + li { margin-top: 0.25rem; }
details { margin-top: 0.9rem; }
summary { cursor: pointer; color: var(--accent); font-size: 0.92rem; font-weight: 600; width: max-content; }
details .block { margin-bottom: 0; }
footer { margin-top: 2rem; color: var(--quiet); font-size: 0.92rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.skip, .said { position: absolute; left: -200vw; }
.skip:focus { left: 1rem; top: 0.5rem; background: var(--card); color: var(--accent); padding: 0.5rem 0.8rem; border-radius: 0.4rem; }
@media (max-width: 46rem) {
  body { padding: 1.5rem 1rem 2.5rem; }
  .card { padding: 1.05rem 1rem; }
  .clients { grid-template-columns: minmax(0, 1fr); gap: 1.25rem; }
  .tabbed nav { display: flex; flex-direction: column; max-height: 16.5rem; overflow-y: auto; border: 1px solid var(--line); border-radius: 0.75rem; padding: 0.75rem 0.4rem; background: var(--card); }
  .tabbed .panels { position: static; }
  .digest { align-items: flex-start; }
  .block:has(button:not([hidden])) pre { padding-right: 1rem; padding-top: 3rem; }
}
@media print { nav, .copy button, .skip { display: none !important; } .panel { break-inside: avoid; } }
`;
