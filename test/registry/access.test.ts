import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import type { Identity } from '../../src/auth/identity.js';
import { policyMay } from '../../src/auth/policy.js';
import { parsePolicy } from '../../src/auth/policy-file.js';
import { Realms } from '../../src/auth/realms.js';
import {
  type Answer,
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

const RULES = `
groups:
  dev: [alice, bob]
rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [group:dev], may: [push], on: ["team/**"]}
  - {who: [user:bob], may: [delete], on: ["team/**"]}
  - {who: [user:ci], may: [create-only], on: ["team/**", "public/**"]}
  - {who: [authenticated], may: [push, delete], on: ["users/{user}/*"]}
  - {who: [user:root], may: [admin], on: ["**"]}
`;

const USERS = ['', 'alice', 'bob', 'carol', 'ci', 'root', 'team', '*', 'dora', 'eve', 'faye', 'gwen', 'hugo'];
const REPOSITORIES = ['hidden/app', 'public/app', 'team/app', 'team/deep/app', 'users/alice/app', 'users/carol/app'];

/** Two realms: one has the repositories of the team, the other the rest. */
const REALMS = new Realms(
  [
    { name: 'team', covers: (name: string) => name.startsWith('team/') },
    { name: 'rest', covers: () => true },
  ].map(realm => ({ ...realm, passwords: [], requests: [] })),
);

/** In which realms some users are known, with the groups that a directory has for them there. The others are of all realms. */
const KNOWN: Record<string, Record<string, string[]>> = {
  dora: { team: ['dev'], rest: [] },
  eve: { team: ['others'], rest: ['dev'] },
  faye: { team: ['dev'] },
  gwen: { rest: ['dev'] },
  // Has the name of nobody, and the group of everybody who is asked for by it in neither.
  hugo: { elsewhere: ['dev'] },
};

function identityOf(name: string): Identity {
  const known = Object.entries(KNOWN[name] ?? {});
  if (known.length === 0) return { kind: 'user', name };
  return { kind: 'user', name, realms: new Map(known.map(([realm, groups]) => [realm, { groups, version: '' }])) };
}

/** Who may do what, written down by hand and not computed: letters are pull, create, overwrite, delete. */
const TABLE: Record<string, Record<string, string>> = {
  'public/app': {
    ...Object.fromEntries(USERS.map(user => [user, 'p'])),
    ci: 'pc',
    root: 'pcod',
  },
  'team/app': { alice: 'pco', bob: 'pcod', ci: 'pc', root: 'pcod', dora: 'pco', faye: 'pco' },
  'team/deep/app': { alice: 'pco', bob: 'pcod', ci: 'pc', root: 'pcod', dora: 'pco', faye: 'pco' },
  'users/alice/app': { alice: 'pcod', root: 'pcod' },
  'users/carol/app': { carol: 'pcod', root: 'pcod' },
  'hidden/app': { root: 'pcod' },
};
const allowed = (user: string, repository: string, right: string) => (TABLE[repository]?.[user] ?? '').includes(right);

/** What a request on a route needs. `absent` in the place of a reference means nothing like it is stored. */
const ROUTES: ReadonlyArray<readonly [right: string, method: string, path: string]> = [
  ...['GET', 'HEAD'].flatMap(method =>
    [
      'manifests/v1',
      'manifests/absent',
      'manifests/DIGEST',
      'blobs/LAYER',
      'blobs/ABSENT',
      'tags/list',
      'tags/list?n=1&last=a',
      'referrers/DIGEST',
      'referrers/ABSENT?artifactType=a/b',
    ].map(path => ['p', method, path] as const),
  ),
  ['c', 'POST', 'blobs/uploads/'],
  ['c', 'POST', 'blobs/uploads/?mount=LAYER&from=public/app'],
  ['c', 'POST', 'blobs/uploads/?mount=LAYER'],
  ['c', 'POST', 'blobs/uploads/?digest=ABSENT'],
  ['c', 'GET', 'blobs/uploads/00000000-0000-4000-8000-000000000000'],
  ['c', 'PATCH', 'blobs/uploads/00000000-0000-4000-8000-000000000000'],
  ['c', 'PUT', 'blobs/uploads/00000000-0000-4000-8000-000000000000?digest=ABSENT'],
  ['c', 'DELETE', 'blobs/uploads/00000000-0000-4000-8000-000000000000'],
  ['c', 'PUT', 'manifests/v1'],
  ['c', 'PUT', 'manifests/absent'],
  ['c', 'PUT', 'manifests/DIGEST?tag=v1'],
  ['d', 'DELETE', 'manifests/absent'],
  ['d', 'DELETE', 'manifests/ABSENT'],
  ['d', 'DELETE', 'blobs/ABSENT'],
];

const ABSENT = digestOf(Buffer.from('nothing like it'));

for (const everythingByFramework of [false, true])
  describe(`rights, by the ${everythingByFramework ? 'framework' : 'shorter way'}`, () => {
    let registry: RegistryFixture;
    const images = new Map<string, { data: Buffer; layer: string }>();
    before(async () => {
      const policy = parsePolicy(RULES, 'policy.yml');
      registry = await RegistryFixture.start({
        everythingByFramework,
        authorise: REALMS.decide(policyMay(policy, { open: false })),
        identityOf,
      });
      for (const repository of REPOSITORIES) images.set(repository, await push(repository, 'v1', 'root'));
    });
    after(async () => {
      process.stdout.write(`${cells} cells of the rights matrix hold\n`);
      assert.ok(cells >= 3000, `${cells} cells`);
      assert.deepEqual(registry.faults, []);
      await registry.stop();
    });

    async function image(repository: string, user: string): Promise<{ data: Buffer; layer: string }> {
      const [config, layer] = [
        Buffer.from(JSON.stringify({ unique: randomBytes(8).toString('hex') })),
        randomBytes(20),
      ];
      for (const body of [config, layer]) {
        const path = `/v2/${repository}/blobs/uploads/?digest=${digestOf(body)}`;
        assert.equal((await registry.call('POST', path, { body, user })).status, 201);
      }
      return { data: manifestOf(config, [layer]), layer: digestOf(layer) };
    }
    const put = (repository: string, reference: string, data: Buffer, user: string, type = OCI_MANIFEST) =>
      registry.call('PUT', `/v2/${repository}/manifests/${reference}`, {
        body: data,
        user,
        headers: { 'content-type': type },
      });
    async function push(repository: string, tag: string, user: string) {
      const made = await image(repository, user);
      assert.equal((await put(repository, tag, made.data, user)).status, 201);
      return made;
    }
    const told = ({ status, headers, body }: Answer) => [status, headers['content-type'], body.toString()];

    /** Questions of (user, repository, action, route) that were asked. */
    let cells = 0;

    test('decide on every route, and on an absent repository as on a hidden one', async () => {
      for (const user of USERS)
        for (const repository of REPOSITORIES) {
          const { data, layer } = images.get(repository)!;
          const absent = repository.replace(/app$/, 'nothing');
          const ask = (name: string, method: string, route: string) => {
            const path = route.replace('DIGEST', digestOf(data)).replace('LAYER', layer).replace('ABSENT', ABSENT);
            // What is put is what is there already, so that the cells leave each other alone.
            const body = method === 'PUT' && route.startsWith('manifests') ? data : undefined;
            const headers = body ? { 'content-type': OCI_MANIFEST } : {};
            return registry.call(method, `/v2/${name}/${path}`, { user, headers, ...(body && { body }) });
          };
          await Promise.all(
            ROUTES.map(async ([right, method, route]) => {
              const answer = await ask(repository, method, route);
              const cell = `${user || 'anonymous'} ${method} ${repository} ${route}`;
              const may = allowed(user, repository, right);
              assert.equal(answer.status === 403, !may, `${cell}: ${told(answer)}`);
              assert.ok(answer.status < 500, cell);
              cells++;
              if (may) return;
              assert.deepEqual(told(await ask(absent, method, route)), told(answer), `${cell}: an absent one`);
              cells++;
            }),
          );
        }
    });

    test('decide on the removal of whole repositories, and on what somebody may learn by a token', async () => {
      for (const user of USERS)
        for (const repository of REPOSITORIES) {
          const absent = repository.replace(/app$/, 'nothing');
          const remove = (name: string) => registry.call('DELETE', `/api/v1/repositories/${name}`, { user });
          const token = (name: string) =>
            registry.call('GET', `/token?service=registry-secure&scope=repository:${name}:pull,push`, { user });
          cells += 3;
          assert.deepEqual(told(await token(repository)), told(await token(absent)), `${user} /token ${repository}`);
          if (allowed(user, repository, 'd')) assert.equal((await remove(absent)).status, 404, `${user} ${absent}`);
          else {
            const answer = await remove(repository);
            assert.equal(answer.status, 403, `${user} ${repository}`);
            assert.deepEqual(told(await remove(absent)), told(answer), `${user} ${absent}`);
          }
        }
    });

    test("give nobody another's upload, nor one's own in another repository", async () => {
      const verbs = [
        ['GET', ''],
        ['PATCH', ''],
        ['PUT', `?digest=${ABSENT}`],
        ['DELETE', ''],
      ] as const;
      for (const owner of USERS)
        for (const repository of REPOSITORIES) {
          if (!allowed(owner, repository, 'c')) continue;
          const started = await registry.call('POST', `/v2/${repository}/blobs/uploads/`, { user: owner });
          const uuid = started.headers['docker-upload-uuid'] as string;
          for (const user of USERS)
            for (const other of REPOSITORIES)
              for (const [verb, query] of verbs) {
                if (user === owner && other === repository) continue;
                const ask = (id: string) =>
                  registry.call(verb, `/v2/${other}/blobs/uploads/${id}${query}`, { user, body: 'x' });
                const answer = await ask(uuid);
                const cell = `${verb} ${other} by ${user}: the upload of ${owner} in ${repository}`;
                assert.equal(answer.status, allowed(user, other, 'c') ? 404 : 403, `${cell}: ${answer.status}`);
                cells++;
              }
          const kept = await registry.call('GET', `/v2/${repository}/blobs/uploads/${uuid}`, { user: owner });
          assert.deepEqual([kept.status, kept.headers.range], [204, '0-0'], 'nobody has touched it');
          await registry.call('DELETE', `/v2/${repository}/blobs/uploads/${uuid}`, { user: owner });
        }
    });

    test('lists show what may be pulled, and nothing else', async () => {
      for (const user of USERS) {
        const visible = REPOSITORIES.filter(repository => allowed(user, repository, 'p'));
        const catalog = await registry.call('GET', '/v2/_catalog?n=1000', { user });
        assert.deepEqual((catalog.json() as { repositories: string[] }).repositories, visible, user);
        const search = await registry.call('GET', '/v1/search', { user });
        const { results, num_results } = search.json() as { results: Array<{ name: string }>; num_results: number };
        assert.deepEqual(results.map(({ name }) => name).sort(), [...visible].sort(), user);
        assert.equal(num_results, visible.length, user);
        // The pages of the catalog too: nothing between two visible names is counted.
        const pages: string[] = [];
        for (let last = ''; ; last = pages.at(-1)!) {
          const page = await registry.call('GET', `/v2/_catalog?n=1&last=${encodeURIComponent(last)}`, { user });
          pages.push(...(page.json() as { repositories: string[] }).repositories);
          if (page.headers.link === undefined) break;
        }
        assert.deepEqual(pages, visible, user);
      }
    });

    test('a mount from what may not be pulled is the same as one from nothing', async () => {
      const { layer } = images.get('hidden/app')!;
      const mount = (digest: string, from?: string, user = 'alice') =>
        registry.call('POST', `/v2/team/app/blobs/uploads/?mount=${digest}${from ? `&from=${from}` : ''}`, { user });
      for (const from of ['hidden/app', 'hidden/nothing', undefined])
        assert.equal((await mount(layer, from)).status, 202, from);
      assert.equal((await mount(ABSENT, 'hidden/app')).status, 202);
      assert.equal((await mount(images.get('public/app')!.layer, 'public/app')).status, 201);
      assert.equal((await registry.call('HEAD', `/v2/team/app/blobs/${layer}`, { user: 'alice' })).status, 404);
      assert.equal((await mount(layer, 'hidden/app', 'root')).status, 201);
    });

    test('who may only create makes tags and moves none, by whatever route', async () => {
      const one = await push('team/made', 'v1', 'ci');
      const two = await image('team/made', 'ci');
      const refused = async (reference: string, data: Buffer) => {
        const answer = await put('team/made', reference, data, 'ci');
        assert.deepEqual([answer.status, answer.code], [403, 'DENIED'], reference);
        assert.match(answer.body.toString(), /the tag v1 is there, and you may make tags, not move them/);
      };
      await refused('v1', two.data);
      await refused(`${digestOf(two.data)}?tag=new&tag=v1`, two.data);
      const tagged = async (tag: string) =>
        (await registry.call('HEAD', `/v2/team/made/manifests/${tag}`, { user: 'ci' })).headers[
          'docker-content-digest'
        ];
      assert.deepEqual([await tagged('v1'), await tagged('new')], [digestOf(one.data), undefined]);
      assert.equal((await put('team/made', 'v1', one.data, 'ci')).status, 201, 'the same again');
      assert.equal((await put('team/made', 'v2', two.data, 'ci')).status, 201);
      assert.equal((await put('team/made', 'v1', two.data, 'alice')).status, 201, 'who may push moves it');
      await refused('v1', one.data);
    });

    test('of two who may only create a tag, and who push it at once, one does', async () => {
      const made = await Promise.all(Array.from({ length: 8 }, () => image('team/race', 'ci')));
      const answers = await Promise.all(made.map(({ data }) => put('team/race', 'v1', data, 'ci')));
      assert.deepEqual(answers.map(({ status }) => status).sort(), [201, ...Array(7).fill(403)]);
      const { headers } = await registry.call('HEAD', '/v2/team/race/manifests/v1', { user: 'ci' });
      const winner = made[answers.findIndex(({ status }) => status === 201)]!;
      assert.equal(headers['docker-content-digest'], digestOf(winner.data));
    });

    test('who may only create pushes an index as BuildKit does, and a tag that was deleted anew', async () => {
      const [child, other] = [await image('team/multi', 'ci'), await image('team/multi', 'ci')];
      assert.equal((await put('team/multi', 'v1', child.data, 'ci')).status, 201);
      assert.equal((await put('team/multi', 'v1', indexOf([child.data]), 'ci', OCI_INDEX)).status, 201);
      assert.equal((await put('team/multi', 'v1', other.data, 'ci')).status, 403);
      assert.equal((await registry.call('DELETE', '/v2/team/multi/manifests/v1', { user: 'ci' })).status, 403);
      assert.equal((await registry.call('DELETE', '/v2/team/multi/manifests/v1', { user: 'bob' })).status, 202);
      assert.equal((await put('team/multi', 'v1', other.data, 'ci')).status, 201);
    });
  });
