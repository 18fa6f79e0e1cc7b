import { createHash } from 'node:crypto';
import type { ClientInstructions, TrustInstructions } from '../trust/instructions.js';
import { TRUST_GROUPS } from '../trust/table.js';
import { SCRIPT } from './trust-script.js';
import { STYLE } from './trust-style.js';

const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Nothing but this page's own style and script, known by their hashes, and the icon in it. */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  `style-src ${hash(STYLE)}`,
  `script-src ${hash(SCRIPT)}`,
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const ICON = `data:image/svg+xml,${encodeURIComponent(
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path fill="#0b6e66" d="M16 2 4 7v8c0 7.5 5 13 12 15 7-2 12-7.5 12-15V7z"/><path fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round" stroke-linejoin="round" d="m10.5 16 4 4 7-8"/></svg>',
)}`;

/** The page on which a person finds what to do: every client's section is in it, a script only shows one at a time. */
export function trustPage(instructions: TrustInstructions): string {
  const { host, url, sha256, fingerprints, clients } = instructions;
  const one = fingerprints.length === 1;
  const byName = new Map(clients.map(client => [client.client, client]));
  const groups = TRUST_GROUPS.map(({ title, clients }) => ({
    title,
    clients: clients.flatMap(({ name }) => byName.get(name) ?? []),
  }));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Trust ${escaped(host)}</title>
<link rel="icon" href="${escaped(ICON)}">
<style>${STYLE}</style>
</head>
<body>
<a class="skip" href="#clients">To the instructions</a>
<header>
<p class="product">registry-secure</p>
<h1>Trust <span class="host">${escaped(host)}</span></h1>
<p class="lead">This registry signs its certificates itself. Docker and its kin accept it once they have its authority:
one small file, installed once on each machine.</p>
</header>
<main>
<section class="card" aria-labelledby="check">
<h2 id="check">First, compare</h2>
<p>Your connection to this page is not verified yet: somebody in between could have written it. Ask the operator of the
registry for the SHA-256, and go on only if it is this one.</p>
<dl>
<dt>SHA-256 of the file</dt>
<dd>${code(sha256, 'digest', 'the SHA-256 of the file')}</dd>
${fingerprints
  .map(
    (
      fingerprint,
      index,
    ) => `<dt>${one ? 'Fingerprint of the authority in it' : index === 0 ? 'Fingerprint of the new authority' : 'Fingerprint of the old authority'}</dt>
<dd>${code(fingerprint, 'digest', 'the fingerprint')}</dd>`,
  )
  .join('\n')}
</dl>
${one ? '' : '<p>The registry is changing its authority: for a while the file holds both.</p>\n'}<p class="actions"><a class="button" href="${escaped(new URL(url).pathname)}" download="ca.crt">Download ca.crt</a>
<span class="hint">On the server, <code>registry-secure trust</code> shows the same numbers.</span></p>
</section>
<section id="clients" aria-labelledby="choose">
<h2 id="choose">Then, install it for your client</h2>
<div class="clients">
<nav aria-label="Clients">
${groups
  .map(
    ({ title, clients }) => `<div class="group"><h3>${escaped(title)}</h3>
<ul>
${clients.map(({ client, title }) => `<li><a href="#${client}" id="tab-${client}" data-tab="${client}">${escaped(title)}</a></li>`).join('\n')}
</ul></div>`,
  )
  .join('\n')}
</nav>
<div class="panels">
${groups.flatMap(({ clients }) => clients.map(panel)).join('\n')}
</div>
</div>
</section>
</main>
<footer><p>Then log in: <code>docker login ${escaped(host)}</code></p></footer>
<p class="said" role="status" aria-live="polite"></p>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function panel({ client, title, commands, line, restart, notes, undo }: ClientInstructions): string {
  const remarks =
    notes.length === 0
      ? ''
      : `<ul class="notes">\n${notes.map(note => `<li>${escaped(note)}</li>`).join('\n')}\n</ul>\n`;
  const back =
    undo.length === 0
      ? ''
      : `<details><summary>Undo</summary>\n${code(undo.join('\n'), 'block', `how to undo it for ${title}`)}\n</details>\n`;
  return `<article class="card panel" id="${client}" data-panel="${client}" aria-labelledby="title-${client}">
<h3 id="title-${client}">${escaped(title)}</h3>
<p>In one line: it fetches the file, goes on only if the SHA-256 is the one above, and installs it.</p>
${code(line, 'block line', `the line for ${title}`)}
<p>Or by hand, where you have put ca.crt:</p>
${code(commands.join('\n'), 'block', `the commands for ${title}`)}
<p class="restart">${escaped(restart)}</p>
${remarks}${back}</article>`;
}

/** Something to be copied. Its button appears with the script that makes it work. */
function code(text: string, kind: string, what: string): string {
  const [tag, end] = kind === 'digest' ? ['<code>', '</code>'] : ['<pre tabindex="0"><code>', '</code></pre>'];
  return `<div class="copy ${kind}">${tag}${escaped(text)}${end}<button type="button" hidden aria-label="Copy ${escaped(what)}">Copy</button></div>`;
}

function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`);
}
