import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Random } from '../support/random.js';
import type { RegistryClient } from '../support/registry-client.js';
import { Ledger } from './ledger.js';
import { Rig, SEED } from './rig.js';
import { noFindings, verify } from './verify.js';
import { newImage, pushImage, STYLES } from './workload.js';

const PUSHES = 16;
const PULLS = 100;
/** So slow that who waits for a single flush is told from who is slow himself, however busy the machine. */
const FLUSH_MS = 60_000;
/** Of each thread: more than a start needs, and far fewer than the pushes do. */
const QUICK = 10;
/** All of the pushes are at their flushes by then. */
const BESIDE_MS = 3000;

describe('a slow disk', () => {
  let rig: Rig;
  const random = new Random(SEED);
  const ledger = new Ledger();
  before(() => {
    rig = new Rig();
  });
  after(() => rig.close());

  const pushMany = (client: RegistryClient, name: string) =>
    Array.from({ length: PUSHES }, (_, n) =>
      pushImage(client, ledger.repository(`${name}/${n}`), 'tag', newImage(random, [10_000]), [STYLES[n % 4]!]),
    );

  test(`${PUSHES} pushes at once are slow, and right`, async t => {
    t.diagnostic(`SEED=${SEED} repeats the choices`);
    const server = await rig.start({ flushes: 20 });
    const start = performance.now();
    await Promise.all(pushMany(server.client, 'slow'));
    t.diagnostic(JSON.stringify({ ms: Math.round(performance.now() - start) }));
    await verify(server.client, ledger.repositories.values(), noFindings());
    await rig.kill(server);
  });

  test('pulls do not wait behind the flushes of others', async t => {
    const server = await rig.start({ flushes: FLUSH_MS, quick: QUICK });
    const { client } = server;
    const [repository] = [...ledger.repositories.values()];
    const [digest, blob] = [[...repository!.manifests.keys()][0], [...repository!.blobs.keys()][0]];
    const pull = async () => {
      const start = performance.now();
      for (const path of ['manifests/tag', `manifests/${digest}`, `blobs/${blob}`])
        await client.must(200, 'GET', `/v2/${repository!.name}/${path}`);
      return performance.now() - start;
    };
    let areStuck = true;
    const ended = Promise.allSettled(pushMany(client, 'stuck')).then(() => {
      areStuck = false;
    });
    const times: number[] = [];
    const until = performance.now() + BESIDE_MS;
    while (times.length < PULLS || performance.now() < until) {
      times.push(await pull());
      assert.ok(times.at(-1)! < FLUSH_MS / 2, `a pull took ${times.at(-1)} ms`);
    }
    assert.ok(areStuck, 'some push is at its flushes still');
    times.sort((one, other) => one - other);
    const share = (part: number) => Math.round(times[Math.floor((times.length - 1) * part)]!);
    t.diagnostic(JSON.stringify({ pulls: times.length, p50: share(0.5), p99: share(0.99), max: share(1) }));
    await rig.kill(server);
    await ended;
    const again = await rig.start();
    await verify(again.client, ledger.repositories.values(), noFindings());
    await rig.kill(again);
  });
});
