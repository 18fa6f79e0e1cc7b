import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Sample } from '../bench/runner.js';
import { run } from '../support/process.js';

const [BENCH, PROGRAM] = ['bench', 'registry-secure'].map(name =>
  fileURLToPath(new URL(`../../../bin/${name}.js`, import.meta.url)),
) as [string, string];

/** A registry that the benchmark does not know, in its words. */
const PEER = [
  'env REGISTRY_HTTP_ADDR={address} REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY={data} REGISTRY_AUTH_HTPASSWD_PATH={htpasswd}',
  `REGISTRY_HTTP_TLS_CERTIFICATE={cert} REGISTRY_HTTP_TLS_KEY={key} ${process.execPath} ${PROGRAM} serve --dir . --workers 1`,
].join(' ');

// The figures are not looked at, only that there are all of them: this machine may be busy.
describe('npm run bench', { timeout: 240_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'registry-secure-bench-'));
  const [json, svg] = [join(dir, 'run.json'), join(dir, 'run.svg')];
  const bench = (...args: string[]) => run([process.execPath, BENCH, ...args], { timeout: 220_000 });
  after(() => rmSync(dir, { recursive: true }));

  test('measures each server that a workload fits, and keeps what it found', async () => {
    const size = ['--rounds', '1', '--seconds', '1', '--megabytes', '4'];
    const only = ['--only', 'manifest by tag', '--only', 'whole push, 1', '--without', 'docker-registry, htpasswd'];
    const kept = ['--json', json, '--svg', svg];
    const { status, stdout, stderr } = await bench(...size, ...only, '--peer', `another=${PEER}`, ...kept);
    assert.equal(status, 0, stderr);
    const { results } = JSON.parse(readFileSync(json, 'utf8'));
    const files = ['nginx', 'bare node:https'];
    const found = results.map((one: { workload: { name: string }; samples: object }) => [
      one.workload.name,
      Object.keys(one.samples),
    ]);
    assert.deepEqual(found, [
      ['manifest by tag', ['ours', 'docker-registry', ...files, 'another']],
      ['manifest by tag, a connection each', ['ours', 'docker-registry', ...files, 'another']],
      ['whole push, 1 at once', ['ours', 'docker-registry', 'bare node:https', 'another']],
    ]);
    for (const { samples } of results)
      for (const [sample] of Object.values(samples) as Array<Array<Record<string, number>>>)
        assert.ok(sample!.value! > 0 && sample!.pss! > 0 && sample!.rss! > 0, JSON.stringify(sample));
    assert.match(stdout, /^manifest by tag\n {2}ours +[\d,.]+ .*requests\/s/m);
    assert.match(readFileSync(svg, 'utf8'), /^<svg .*manifest by tag.*<\/svg>\n$/s);
  });

  test('measures a bucket beside a folder, and tells what was asked of the object store', async () => {
    const size = ['--rounds', '1', '--seconds', '1', '--megabytes', '4', '--workers', '1'];
    const kept = join(dir, 'bucket.json');
    const { status, stdout, stderr } = await bench('bucket', ...size, '--only', 'whole push, 1', '--json', kept);
    assert.equal(status, 0, stderr);
    const { results } = JSON.parse(readFileSync(kept, 'utf8'));
    const requests = new Map<string, Array<number | undefined>>();
    for (const { workload, samples } of results) {
      assert.deepEqual(Object.keys(samples), ['ours', 'ours in a folder', 'docker-registry']);
      const first = (Object.values(samples) as Sample[][]).map(([sample]) => sample!);
      for (const sample of first) assert.ok(sample.value > 0 && sample.pss! > 0, JSON.stringify(sample));
      requests.set(
        workload.name,
        first.map(({ store }) => store?.requests),
      );
    }
    assert.deepEqual([...requests.keys()], ['whole push, 1 at once', 'whole push, 16 at once']);
    for (const [ours, folder, theirs] of requests.values()) {
      assert.equal(folder, undefined);
      // As many at least as docs/storage.md says of a push of few bytes: they go about their own business too.
      assert.ok(ours! >= 6 && theirs! >= 6, stdout);
    }
    assert.match(stdout, /^ .* store: CPU +requests\nwhole push, 1 at once\n {2}ours /m);
  });

  test('prints the table of a run that was kept', async () => {
    const { status, stdout } = await bench('--from', json, '--markdown');
    assert.equal(status, 0);
    assert.match(
      stdout,
      /^\| {2}\| ours \| docker-registry \| nginx \| bare node:https \| another \|\n(\| --- ){6}\|\n\| manifest by tag<br>/m,
    );
  });

  test('says what there is, for a name of nothing', async () => {
    const { status, stderr } = await bench('--only', 'manifests');
    assert.equal(status, 2);
    assert.match(stderr, /^bench: --only manifests: nothing of that name; there are: manifest by tag; /m);
  });
});
