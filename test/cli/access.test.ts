import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { LocalRegistry } from '../support/local-registry.js';

const RULES = `rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [user:alice], may: [push], on: ["**"]}
  - {who: [group:ops], may: [pull], on: [team/app]}
`;

describe('access', () => {
  let dir: string;
  let policy: string;
  const run = (...args: string[]) => LocalRegistry.run(dir, ['access', ...args, '--dir', dir]);
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'registry-secure-access-'));
    policy = join(dir, 'policy.yml');
    writeFileSync(policy, RULES);
    writeFileSync(join(dir, 'groups'), 'ops: carol\n');
    writeFileSync(
      join(dir, 'htpasswd'),
      ['alice', 'carol', 'dave'].map(name => `${name}:${hashSync('secret', 4)}\n`).join(''),
    );
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('check: well, and with what is never used', async () => {
    const env = { REGISTRY_ACCESS_POLICY: policy, REGISTRY_ACCESS_GROUPS: join(dir, 'groups') };
    const configured = (...args: string[]) => LocalRegistry.run(dir, ['access', ...args, '--dir', dir], { env });
    const well = await configured('check');
    assert.deepEqual([well.status, well.stdout], [0, `${policy}: 3 rules, 1 groups, well\n`]);
    const without = await run('check', '--policy', policy, '--json');
    assert.equal(without.status, 1);
    const report = JSON.parse(without.stdout);
    assert.deepEqual(
      [report.rules, report.findings],
      [3, [{ place: `${policy}:4:5`, what: 'there is no group "ops"' }]],
    );
  });

  test('what is wrong is said with its place, and exit code 1', async () => {
    writeFileSync(join(dir, 'bad.yml'), 'rules:\n  - {who: [bob], may: [pull], on: [a]}\n');
    const bad = await run('check', '--policy', join(dir, 'bad.yml'));
    assert.equal(bad.status, 1);
    assert.match(bad.stderr, /bad\.yml:2:12: "bob" is nobody; write user:NAME/);
    const none = await run('check');
    assert.match(none.stderr, /no access policy is configured: .*; name one with --policy/);
    assert.match((await run('check', '--policy', join(dir, 'none.yml'))).stderr, /none\.yml does not exist/);
  });

  test('explain: yes, no, and questions that nobody can answer', async () => {
    const explain = (...args: string[]) => run('explain', ...args, '--policy', policy);
    const yes = await explain('alice', 'overwrite', 'team/app');
    assert.deepEqual([yes.status, yes.stdout], [0, `alice may overwrite:\n  ${policy}:3:5: allows\n`]);
    const no = await explain('dave', 'push', 'public/app');
    assert.deepEqual([no.status, no.stdout], [1, `dave may not push:\n  ${policy}:2:5: about another right\n`]);
    const json = JSON.parse((await explain('anonymous', 'pull', 'public/app', '--json')).stdout);
    assert.deepEqual([json.allowed, json.rules], [true, [{ place: `${policy}:2:5`, says: 'allows' }]]);
    // What a directory knows of somebody, a policy cannot: it is said.
    const stranger = await explain('erin', 'pull', 'team/app');
    const other = `  ${policy}:2:5: about another repository\n`;
    assert.deepEqual([stranger.status, stranger.stdout], [1, `erin may not pull:\n${other}`]);
    const member = await explain('erin', 'pull', 'team/app', '--group', 'others', '--group', 'ops');
    assert.deepEqual([member.status, member.stdout], [0, `erin may pull:\n  ${policy}:4:5: allows\n`]);
    // Without a policy the answer is another one, and still an answer.
    const anybody = await run('explain', 'alice', 'push', 'team/app');
    const all = 'no access policy is configured, and whoever logs in may do everything';
    assert.deepEqual([anybody.status, anybody.stdout], [0, `alice may push (${all})\n`]);
    const nobody = await run('explain', 'anonymous', 'pull', 'team/app');
    assert.deepEqual([nobody.status, nobody.stdout], [1, `anonymous may not pull (${all})\n`]);
    // Whose user that is depends on the realm.
    writeFileSync(
      join(dir, 'realms.yml'),
      `version: 0.1
auth:
  realms: [{name: Team, repositories: ["team/**"], sources: [{htpasswd: {path: ${join(dir, 'htpasswd')}}}]}]
  htpasswd: {realm: Rest, path: ${join(dir, 'htpasswd')}}
`,
    );
    const ofTeam = await explain('alice', 'overwrite', 'team/app', '--config', join(dir, 'realms.yml'));
    assert.deepEqual(
      [ofTeam.status, ofTeam.stdout],
      [0, `alice may overwrite (said of a user of the realm "Team"):\n  ${policy}:3:5: allows\n`],
    );
    // Not 1, which is an answer.
    const noAction = await explain('alice', 'write', 'a');
    assert.equal(noAction.status, 2);
    assert.match(noAction.stderr, /"write" is no action; use one of pull/);
    const noName = await explain('alice', 'pull', 'A:1');
    assert.equal(noName.status, 2);
    assert.match(noName.stderr, /no name of a repository/);
  });

  test('serve: anonymous, challenged, refused; a change counts within a second in every process, a bad one never', async () => {
    const env = {
      REGISTRY_ACCESS_POLICY: policy,
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'htpasswd'),
    };
    const start = () => LocalRegistry.start(dir, ['serve', '--dir', dir], { env });
    const first = await start();
    const registries = [first, await start()];
    try {
      const status = async (registry: LocalRegistry, path: string, user?: string, method = 'GET') =>
        (await registry.call(method, path, { ...(user && { auth: `${user}:secret` }) })).status;
      const all = (path: string, user?: string, method?: string) =>
        Promise.all(registries.map(registry => status(registry, path, user, method)));
      assert.deepEqual(await all('/v2/'), [401, 401]);
      assert.deepEqual(await all('/v2/', 'dave'), [200, 200]);
      assert.deepEqual(await all('/v2/public/app/tags/list'), [404, 404]);
      assert.deepEqual(await all('/v2/team/app/tags/list'), [401, 401]);
      assert.deepEqual(await all('/v2/team/app/tags/list', 'dave'), [403, 403]);
      assert.deepEqual(await all('/v2/team/app/blobs/uploads/', 'dave', 'POST'), [403, 403]);
      assert.deepEqual(await all('/v2/team/app/tags/list', 'alice'), [404, 404]);

      const change = (text: string) => {
        writeFileSync(`${policy}.new`, text);
        renameSync(`${policy}.new`, policy);
      };
      change(RULES.replace('user:alice', 'user:dave'));
      const begun = performance.now();
      await first.until(async () => (await all('/v2/team/app/tags/list', 'alice')).every(code => code === 403));
      const took = performance.now() - begun;
      assert.deepEqual(await all('/v2/team/app/tags/list', 'dave'), [404, 404]);
      change('rules: [{who: [nobody]');
      await first.until(() => registries.every(({ stderr }) => /kept the old access policy/.test(stderr)));
      assert.deepEqual(await all('/v2/team/app/tags/list', 'dave'), [404, 404]);
      assert.deepEqual(await all('/v2/team/app/tags/list', 'alice'), [403, 403]);
      // Looked at each half second; what is over that is this machine's load.
      assert.ok(took < 60_000, `${took} ms`);
    } finally {
      await Promise.all(registries.map(registry => registry.stop()));
    }
  });
});
