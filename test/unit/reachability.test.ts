import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { OperatorError } from '../../src/errors.js';
import { parseGlob } from '../../src/glob.js';
import type { Digest } from '../../src/reference.js';
import { DigestSet } from '../../src/store/digest-set.js';
import { type ManifestNode, Reachability } from '../../src/store/reachability.js';
import { referencesOf } from '../../src/store/references.js';

const digest = (text: string | number): Digest => `sha256:${createHash('sha256').update(`${text}`).digest('hex')}`;

describe('a set of digests', () => {
  test('has what was added, and nothing else', () => {
    const set = new DigestSet();
    for (let n = 0; n < 20_000; n++) set.add(digest(n));
    for (let n = 0; n < 20_000; n += 7) set.add(digest(n));
    assert.equal(set.size, 20_000);
    for (let n = 0; n < 20_000; n++) assert.ok(set.has(digest(n)));
    for (let n = 20_000; n < 40_000; n++) assert.ok(!set.has(digest(n)));
  });

  test('takes the lowest and the highest digest', () => {
    const set = new DigestSet();
    const ends: Digest[] = [`sha256:${'0'.repeat(64)}`, `sha256:${'f'.repeat(64)}`];
    for (const end of ends) assert.ok(!set.has(end));
    for (const end of ends) set.add(end);
    for (const end of ends) assert.ok(set.has(end));
  });

  test('holds a million in less than 20 MiB', () => {
    const before = process.memoryUsage().arrayBuffers;
    const set = new DigestSet();
    // Keys as even as those of real digests, without the time to hash them.
    for (let n = 0; n < 1_000_000; n++) set.addKey(1 + Math.floor(Math.random() * 2 ** 52));
    assert.ok(set.size > 999_000);
    const bytes = process.memoryUsage().arrayBuffers - before;
    assert.ok(set.has(digest('none')) === false && bytes < 40 * 1024 * 1024, `${bytes} bytes, with what it grew from`);
  });
});

describe('references of a stored manifest', () => {
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const [one, two, three] = [digest(1), digest(2), digest(3)];

  test('are found in every kind of manifest', () => {
    const image = { config: { digest: one }, layers: [{ digest: two }, { digest: three, urls: ['http://x'] }] };
    assert.deepEqual(referencesOf(json(image)), { blobs: [one, two, three], manifests: [], subject: undefined });
    const index = { manifests: [{ digest: one }, { digest: two }], subject: { digest: three } };
    assert.deepEqual(referencesOf(json(index)), { blobs: [], manifests: [one, two], subject: three });
    assert.deepEqual(referencesOf(json({ blobs: [{ digest: one }] }))?.blobs, [one], 'an OCI artifact');
    const signed = { schemaVersion: 1, fsLayers: [{ blobSum: one }, { blobSum: two }] };
    assert.deepEqual(referencesOf(json(signed))?.blobs, [one, two], 'Docker schema 1');
    const sloppy = { Config: { Digest: one }, LAYERS: [{ digest: two }] };
    assert.deepEqual(referencesOf(json(sloppy))?.blobs, [one, two], 'as Go would read it');
  });

  test('do not fail for what is odd', () => {
    const odd = { config: null, layers: 'no', manifests: [null, 1, { digest: 2 }, { digest: 'sha256:short' }] };
    assert.deepEqual(referencesOf(json(odd)), { blobs: [], manifests: [], subject: undefined });
    for (const data of ['', '[]', 'null', '"text"', '{"a":']) assert.equal(referencesOf(Buffer.from(data)), undefined);
  });
});

describe('what is needed of the manifests of a repository', () => {
  const node = (name: string, { lists = [] as string[], subject = '', blobs = [] as string[] } = {}): ManifestNode => ({
    canonical: digest(name),
    names: [digest(name)],
    references: { manifests: lists.map(digest), subject: subject === '' ? undefined : digest(subject) },
    referenceKeys: [...blobs, ...lists].map(digest).map(DigestSet.key),
  });

  test('is what a kept one lists, and what has that as its subject, at any depth', () => {
    const nodes = [
      node('index', { lists: ['image', 'gone'] }),
      node('image', { blobs: ['layer'] }),
      node('signature', { subject: 'image', blobs: ['signed'] }),
      node('of-signature', { subject: 'signature' }),
      node('other', { blobs: ['other-layer'] }),
      node('of-other', { subject: 'other' }),
    ];
    const graph = new Reachability(nodes);
    graph.keep(nodes[0]!);
    assert.deepEqual(
      nodes.map(node => graph.isKept(node)),
      [true, true, true, true, false, false],
    );
    for (const needed of ['layer', 'signed', 'image', 'gone']) assert.ok(graph.references.has(digest(needed)), needed);
    assert.ok(!graph.references.has(digest('other-layer')));
    assert.deepEqual(
      [...graph.unneeded()].map(({ canonical }) => canonical),
      [digest('other'), digest('of-other')],
    );
  });

  test('does not contain the subject of a kept one', () => {
    const nodes = [node('image'), node('signature', { subject: 'image' })];
    const graph = new Reachability(nodes);
    graph.keep(nodes[1]!);
    assert.deepEqual(
      nodes.map(node => graph.isKept(node)),
      [false, true],
    );
  });

  test('grows when one turns out to be needed while the rest is removed', () => {
    const nodes = [node('child', { blobs: ['layer'] }), node('signature', { subject: 'child' })];
    const graph = new Reachability([...nodes, node('index', { lists: ['child'] })]);
    const removed: Digest[] = [];
    for (const next of graph.unneeded())
      if (next.canonical === digest('index')) graph.keep(next);
      else removed.push(next.canonical);
    assert.deepEqual(removed, []);
    assert.ok(graph.references.has(digest('layer')));
  });

  test('holds an index whose subject is what it lists', () => {
    const nodes = [node('image', { blobs: ['layer'] }), node('index', { lists: ['image'], subject: 'image' })];
    const order = [...new Reachability(nodes).unneeded()].map(({ canonical }) => canonical);
    assert.deepEqual(order, [digest('index'), digest('image')]);
  });

  test('comes without depth: a chain of 100,000 does not exhaust the stack', () => {
    const chain = Array.from({ length: 100_000 }, (_, n) => node(`${n}`, n > 0 ? { subject: `${n - 1}` } : {}));
    const graph = new Reachability(chain);
    assert.equal([...graph.unneeded()].length, chain.length);
    graph.keep(chain[0]!);
    assert.ok(graph.isKept(chain.at(-1)!));
  });

  test('names what is unreadable, where it is kept', () => {
    const unreadable: ManifestNode = { ...node('x'), references: undefined };
    const graph = new Reachability([unreadable, { ...node('y'), references: undefined }]);
    graph.keep(unreadable);
    assert.deepEqual(graph.unreadable, [digest('x')]);
  });

  test('never loses what a survivor leads to, whichever survives', () => {
    const edges = fc.array(fc.record({ lists: fc.array(fc.nat(9), { maxLength: 3 }), subject: fc.option(fc.nat(9)) }), {
      minLength: 10,
      maxLength: 10,
    });
    fc.assert(
      fc.property(edges, fc.uniqueArray(fc.nat(9)), (edges, survivors) => {
        // Each names later ones only, since nothing can hold its own digest.
        const nodes = edges.map(({ lists, subject }, n) =>
          node(`${n}`, {
            lists: lists.filter(child => child > n).map(String),
            subject: subject === null || subject <= n ? '' : `${subject}`,
          }),
        );
        const graph = new Reachability(nodes);
        const removed = new Set<Digest>();
        let visits = 0;
        for (const next of graph.unneeded()) {
          visits++;
          if (survivors.some(n => nodes[n] === next)) graph.keep(next);
          else removed.add(next.canonical);
        }
        assert.ok(visits <= nodes.length);
        for (const node of nodes) {
          assert.ok(graph.isKept(node) || removed.has(node.canonical), 'each is kept or removed');
          if (removed.has(node.canonical)) continue;
          for (const child of node.references!.manifests) assert.ok(!removed.has(child), 'a listed one is kept');
        }
      }),
    );
  });
});

describe('patterns of names', () => {
  test('match with * inside of a component and ** across them', () => {
    const table: Array<[string, string[], string[]]> = [
      ['team/*', ['team/a', 'team/a-b'], ['team', 'team/a/b', 'other/a', 'xteam/a']],
      ['team/**', ['team/a', 'team/a/b'], ['team']],
      ['**', ['a', 'a/b/c'], []],
      ['v*.*', ['v1.2', 'v1.2.3'], ['v1', '1.2']],
      ['a.b', ['a.b'], ['axb', 'a.bc']],
      ['*-rc', ['1-rc'], ['rc', '1-rc2']],
    ];
    for (const [pattern, matching, others] of table) {
      for (const name of matching) assert.ok(parseGlob(pattern)(name), `${pattern} ${name}`);
      for (const name of others) assert.ok(!parseGlob(pattern)(name), `${pattern} ${name}`);
    }
  });

  test('are refused where they can match nothing, and are never slow', () => {
    for (const pattern of ['', 'a b', 'a?', '[ab]', '^a$', 'ä', 'a'.repeat(256)])
      assert.throws(() => parseGlob(pattern), OperatorError, pattern);
    const started = process.cpuUsage();
    assert.ok(!parseGlob(`${'*a'.repeat(100)}b`)('a'.repeat(128)));
    assert.ok(process.cpuUsage(started).user < 5_000_000, 'microseconds');
  });
});
