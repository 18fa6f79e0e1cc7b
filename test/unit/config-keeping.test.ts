import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inspectConfig } from '../../src/config/load.js';
import { collectOptionsOf } from '../../src/server/housekeeping.js';

const inspect = (env: Record<string, string>) =>
  inspectConfig({ dir: '/nowhere', standardFiles: false, env, flags: [] });
const problems = (name: string, value: string) => inspect({ [name]: value }).problems.map(({ what }) => what);

const POLICIES = 'REGISTRY_STORAGE_MAINTENANCE_RETENTION_POLICIES';
const IMMUTABLE = 'REGISTRY_STORAGE_TAG_IMMUTABLE';

describe('what the configuration says about keeping', () => {
  test('has the defaults of a day, and of no policy', () => {
    const { storage } = inspect({}).config!;
    assert.deepEqual(storage.maintenance.gc, {
      enabled: true,
      interval: 86_400_000,
      grace: 86_400_000,
      untagged: false,
    });
    assert.deepEqual(storage.maintenance.retention, { policies: [], dryrun: false });
    assert.deepEqual(storage.tag.immutable, []);
  });

  test('becomes the options of the collector', () => {
    const { config } = inspect({
      REGISTRY_STORAGE_MAINTENANCE_GC_GRACE: '1h',
      REGISTRY_STORAGE_MAINTENANCE_RETENTION_DRYRUN: 'yes',
      [POLICIES]: '[{repositories: [team/*], tags: ["pr-*", dev], keeplast: 3, keepdays: 7}, {untagged: true}]',
      [IMMUTABLE]: '[{tags: ["v*"]}, {repositories: "release/**"}]',
    });
    const { grace, retention, isImmutable } = collectOptionsOf(config!);
    assert.equal(grace, 3_600_000);
    assert.equal(retention!.dryRun, true);
    const [first, second] = retention!.policies;
    assert.deepEqual([first!.keepLast, first!.keepDays, first!.untagged], [3, 7, false]);
    assert.deepEqual([first!.repositories[0]!('team/a'), first!.repositories[0]!('team/a/b')], [true, false]);
    assert.deepEqual([second!.keepLast, second!.keepDays, second!.untagged], [undefined, undefined, true]);
    assert.ok(second!.repositories[0]!('any/where') && second!.tags[0]!('any'));
    const immutable = [
      ['any', 'v1'],
      ['release/app', 'latest'],
      ['any', 'latest'],
    ] as const;
    assert.deepEqual(
      immutable.map(([repository, tag]) => isImmutable!(repository, tag)),
      [true, true, false],
    );
  });

  test('refuses a policy that would take everything, or nothing', () => {
    assert.match(problems(POLICIES, '[{tags: ["*"]}]')[0]!, /policies\.0 is a policy that says nothing/);
    assert.match(problems(POLICIES, '[{keeplast: 0}]')[0]!, /keeplast "0" is not a whole number from 1/);
    assert.match(problems(POLICIES, '[{keepdays: -1}]')[0]!, /keepdays "-1" is not a whole number/);
    assert.match(problems(POLICIES, '[{keepdays: 30d}]')[0]!, /keepdays "30d" is not a whole number/);
    assert.match(problems(POLICIES, '[{keeplast: 1, tag: x}]')[0]!, /expects the keys repositories, tags/);
    assert.match(problems(POLICIES, 'all')[0]!, /expects the keys/);
    assert.match(problems(IMMUTABLE, '[{tags: ["v?"]}]')[0]!, /"v\?" is no pattern for names/);
  });
});
