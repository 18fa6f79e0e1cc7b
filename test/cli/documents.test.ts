import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { apiPage } from '../../src/api/reference.js';
import { createProgram } from '../../src/cli/index.js';
import { clientsPage, troubleshootingPage, withCommandTable } from '../../src/cli/reference.js';
import { CHECKOUT } from '../support/checkout.js';
import { shellBlocks } from '../support/readme.js';

const read = (path: string) => readFileSync(join(CHECKOUT, path), 'utf8');
const DOCUMENTS = [
  ...readdirSync(CHECKOUT).filter(file => file.endsWith('.md')),
  ...readdirSync(join(CHECKOUT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter(file => file.endsWith('.md'))
    .map(file => join('docs', file)),
];

test('what is generated is what the program says (else: npm run docs)', async () => {
  assert.equal(read('docs/api.md'), apiPage());
  assert.equal(read('docs/clients.md'), clientsPage());
  assert.equal(read('docs/troubleshooting.md'), troubleshootingPage());
  assert.equal(read('README.md'), withCommandTable(read('README.md'), await createProgram()));
});

test('every shell block of the README is run by a test', () => {
  const counts = Object.fromEntries([...shellBlocks()].map(([heading, blocks]) => [heading, blocks.length]));
  assert.deepEqual(counts, {
    // By test/cli/start.test.ts and .ci/run.
    'registry-secure': 2,
    // By test/e2e/readme.test.ts.
    'From an IP address to a pulled image': 4,
    // By test/e2e/image.test.ts.
    'As a container': 3,
  });
  assert.deepEqual(shellBlocks().get('registry-secure'), ['npm start\n', 'npm test\n']);
  const { scripts } = JSON.parse(read('package.json'));
  for (const script of ['setup', 'start', 'test', 'test:cli', 'test:e2e', 'check', 'format', 'docs', 'bench'])
    assert.ok(scripts[script], script);
  assert.match(read('.ci/run'), /^stage npm test$/m);
});

test('every command of this program that a document names is one, with its options', async () => {
  const named = DOCUMENTS.flatMap(document =>
    codeOf(read(document)).flatMap(code =>
      [...code.matchAll(/\bregistry-secure ([a-z][^`|;"\n]*)/g)].map(([whole, words]) => ({
        where: `${document}: ${whole}`,
        words: words!.trim().split(/\s+/),
      })),
    ),
  );
  assert.ok(named.length > 10, `${named.length} were found`);
  const program = await createProgram();
  for (const { where, words } of named) checkCommand(program, words, where);
});

/** What stands in fenced blocks and between backticks, with continued lines joined. */
function codeOf(text: string): string[] {
  const blocks = [...text.matchAll(/^ *```\w*\n([\s\S]*?)^ *```$/gm)].map(([, block]) => block!);
  const spans = [...text.replaceAll(/^ *```[\s\S]*?^ *```$/gm, '').matchAll(/`([^`]+)`/g)].map(([, span]) => span!);
  return [...blocks, ...spans].map(code => code.replaceAll('\\\n', ' '));
}

function checkCommand(command: Command, words: readonly string[], where: string): void {
  const [name = '', ...rest] = words;
  const child = command.commands.find(known => known.name() === name);
  if (child) {
    checkCommand(child, rest, where);
    return;
  }
  // A group that takes arguments of its own is a command as well.
  const isCommand = command.commands.length === 0 || command.registeredArguments.length > 0;
  assert.ok(isCommand || name === '', `${where}: no ${name}`);
  const options = new Set(['--help', ...command.options.map(({ long }) => long)]);
  for (const word of words) if (word.startsWith('--')) assert.ok(options.has(word), `${where}: no ${word}`);
}

test('links lead to files and headings that are there', () => {
  const anchor = (title: string) =>
    title
      .toLowerCase()
      .replace(/[^\w\s-]/g, '')
      .replaceAll(' ', '-');
  for (const document of DOCUMENTS)
    for (const [, target] of read(document).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      const [file = '', fragment] = target!.split('#');
      const path = file === '' ? document : join(dirname(document), file);
      assert.ok(existsSync(join(CHECKOUT, path)), `${document}: ${target}`);
      if (fragment === undefined) continue;
      const titles = [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, title]) => anchor(title!));
      assert.ok(titles.includes(fragment), `${document}: ${target}`);
    }
});
