import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { GROUPS, group, PEOPLE, person, READER, Slapd } from '../support/directory.js';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Registry } from '../support/registry.js';

const ADMIN = 'of the file behind the directory';
/** How long an answer of the directory is believed, and how long one is waited for. In milliseconds. */
const CACHE = 2_000;
const TIMEOUT = 6_000;
/** Until when an answer is no longer believed, however busy the machine: before the time of a cache that nobody has set. */
const LATEST = CACHE + 40_000;

const POLICY = `rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [group:dev], may: [push, delete], on: ["team/**", "direct/**"]}
  - {who: [user:alice], may: [pull], on: ["rest/**"]}
  - {who: [user:admin], may: [admin], on: ["**"]}
`;

/** Lines are written a moment after the answer. */
const wrote = ({ daemon }: Registry, line: RegExp) => daemon.ready(async () => line.test(daemon.output));

/** Users and groups of a real OpenLDAP, by StartTLS and by LDAPS. */
describe('users of a directory', { timeout: 300_000 }, () => {
  let namespace: Namespace;
  let slapd: Slapd;
  let registry: Registry;
  let docker: Docker;

  before(async () => {
    namespace = await Namespace.create();
    const dir = join(namespace.dir, 'registry');
    mkdirSync(dir);
    writeFileSync(join(dir, 'policy.yml'), POLICY);
    writeFileSync(join(dir, 'bind'), `${READER.password}\n`, { mode: 0o600 });
    slapd = await Slapd.start(
      namespace,
      ['alice', 'bob', 'carol', 'dave', 'erin'].map(person).join('') +
        group('dev', 'alice', 'dave', 'erin') +
        group('ops', 'bob'),
    );
    const up = ['up', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip];
    const admins = join(dir, 'admins');
    [registry, docker] = await Promise.all([
      namespace
        .must(['htpasswd', '-ciB', admins, 'admin'], { input: ADMIN })
        .then(() => Registry.start(namespace, up, { env: env(dir, slapd.authority) })),
      Docker.start(namespace),
    ]);
    await registry.trust('docker');
  });
  after(() => namespace?.close());

  /** Realms of one directory: by StartTLS with an account of its own, and by LDAPS without one. */
  function env(dir: string, authority: string): Record<string, string> {
    const account = { binddn: READER.name, bindpasswordfile: join(dir, 'bind') };
    const times = { cache: `${CACHE}ms`, timeout: `${TIMEOUT}ms` };
    const realms = [
      {
        name: 'Staff',
        repositories: ['team/**', 'public/**'],
        sources: [
          {
            ldap: {
              url: slapd.plain,
              starttls: 'true',
              ca: authority,
              ...account,
              userbase: PEOPLE,
              userfilter: '(&(objectClass=inetOrgPerson)(uid={user})(!(employeeType=gone)))',
              groupbase: GROUPS,
              groupfilter: '(member={dn})',
              ...times,
            },
          },
          { htpasswd: { path: join(dir, 'admins') } },
        ],
      },
      {
        name: 'Direct',
        repositories: ['direct/**'],
        sources: [
          { ldap: { url: slapd.secure, ca: authority, userdn: `uid={user},${PEOPLE}`, groupbase: GROUPS, ...times } },
        ],
      },
    ];
    return {
      REGISTRY_AUTH_REALMS: JSON.stringify(realms),
      REGISTRY_AUTH_HTPASSWD_REALM: 'Rest',
      REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'auth', 'htpasswd'),
      REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
    };
  }

  const secretOf = (user: string) => `secret of ${user}`;
  async function curl(path: string, ...args: string[]): Promise<{ status: number; body: string; ms: number }> {
    const started = performance.now();
    const argv = [
      'curl',
      '-s',
      '--max-time',
      '60',
      '--cacert',
      join(registry.dir, 'certs/ca.crt'),
      '-w',
      '\n%{http_code}',
    ];
    const said = await namespace.must([...argv, ...args, `https://${registry.host}${path}`]);
    const end = said.lastIndexOf('\n');
    return { status: Number(said.slice(end)), body: said.slice(0, end), ms: performance.now() - started };
  }
  const as = (user: string, password = secretOf(user)) => ['-u', `${user}:${password}`];
  const status = async (path: string, ...args: string[]) => (await curl(path, ...args)).status;
  /** 404 for who may pull there, 401 for nobody, 403 for a user without the right. */
  const TEAM = '/v2/team/nothing/manifests/v1';
  const DIRECT = '/v2/direct/nothing/manifests/v1';
  /** Until the answer is this one; the time that took, in ms. */
  async function until(wanted: number, ...asked: [string, ...string[]]): Promise<number> {
    const started = performance.now();
    let last = 0;
    for (const end = started + 60_000; performance.now() < end; await sleep(100)) {
      last = await status(...asked);
      if (last === wanted) return performance.now() - started;
    }
    return assert.fail(`${asked.join(' ')}: still ${last}, not ${wanted}`);
  }

  test('docker logs in with a password of the directory, and pushes where the group may', async () => {
    const [image, other] = [`${registry.host}/team/app:1`, `${registry.host}/rest/app:1`];
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [10_000, 10]);
    await docker.build(folder, image);
    await docker.must(['tag', image, other]);
    const login = (user: string) => ['login', '-u', user, '--password-stdin', registry.host];
    assert.match(await docker.refused(login('alice'), { input: 'wrong' }), /unauthorized/i);
    assert.match(await docker.must(login('alice'), { input: secretOf('alice') }), /Login Succeeded/);
    await docker.must(['push', '-q', image]);
    await docker.must(['image', 'rm', image]);
    await docker.must(['pull', '-q', image]);
    // alice of the directory is nobody where the file of passwords decides, whatever the policy says of a user by that name.
    assert.match(await docker.refused(['push', other]), /unauthorized|denied/);
    assert.match(await docker.must(login('bob'), { input: secretOf('bob') }), /Login Succeeded/);
    assert.match(await docker.refused(['push', image]), /denied: you have no right to push here/);
    await docker.must(['logout', registry.host]);
  });

  test('groups come by a search, and by memberOf as the user sees it', async () => {
    for (const path of [TEAM, DIRECT]) {
      assert.equal(await status(path, ...as('alice')), 404, path);
      assert.equal(await status(path, ...as('bob')), 403, path);
      assert.equal(await status(path, ...as('alice', 'wrong')), 401, path);
      assert.equal(await status(path, ...as('nobody')), 401, path);
    }
  });

  test('an empty password is none, although the directory would take it', async () => {
    for (const path of ['/v2/', TEAM, DIRECT]) assert.equal(await status(path, ...as('alice', '')), 401, path);
  });

  test('the name is that of the directory, however it is typed', async () => {
    for (const path of [TEAM, DIRECT]) assert.equal(await status(path, ...as('ALICE', secretOf('alice'))), 404, path);
    await wrote(registry, /user=alice method=GET path=\/v2\/direct/);
    assert.doesNotMatch(registry.daemon.output, /user=ALICE/);
  });

  test('a name is never a part of a filter or of the name of an entry', async () => {
    const names = [
      '*',
      'al*',
      'alice)(uid=*',
      'alice)(objectClass=*',
      'x)(|(uid=alice',
      '*)(uid=alice))(|(uid=*',
      `alice,${PEOPLE}`,
      'alice+cn=alice',
      'alice\\2c',
      'alice#',
      ' alice',
      'alice\\',
      '{dn}',
    ];
    for (const name of names)
      for (const path of [TEAM, DIRECT]) {
        const basic = Buffer.from(`${name}:${secretOf('alice')}`).toString('base64');
        const answer = await curl(path, '-H', `Authorization: Basic ${basic}`);
        // Spaces around a value mean nothing to a directory, and then it is alice.
        assert.equal(answer.status, name === ' alice' ? answer.status : 401, `${name}: ${answer.body}`);
        assert.ok([401, 404].includes(answer.status), name);
      }
    assert.equal(await status(TEAM, ...as('alice')), 404, 'and the directory is still asked');
  });

  test('who leaves a group, or joins one, has other rights after the time of the cache', async () => {
    assert.equal(await status(TEAM, ...as('dave')), 404);
    assert.equal(await status(TEAM, ...as('carol')), 403);
    await slapd.change(
      `dn: cn=dev,${GROUPS}\nchangetype: modify\ndelete: member\nmember: uid=dave,${PEOPLE}\n-\nadd: member\nmember: uid=carol,${PEOPLE}\n`,
    );
    for (const [wanted, user] of [
      [403, 'dave'],
      [404, 'carol'],
    ] as const) {
      const took = await until(wanted, TEAM, ...as(user));
      assert.ok(took < LATEST, `${user}: ${took} ms`);
    }
  });

  test('who is removed or switched off is out after that time, by password and by token', async () => {
    const tokenOf = async (user: string) => {
      const { body } = await curl('/token?service=registry-secure&scope=repository:team/nothing:pull', ...as(user));
      return ['-H', `Authorization: Bearer ${JSON.parse(body).token}`];
    };
    const [dave, erin] = [await tokenOf('dave'), await tokenOf('erin')];
    assert.equal(await status(TEAM, ...dave), 403);
    assert.equal(await status(TEAM, ...erin), 404);
    await slapd.change(
      `dn: uid=dave,${PEOPLE}\nchangetype: delete\n\ndn: uid=erin,${PEOPLE}\nchangetype: modify\nadd: employeeType\nemployeeType: gone\n`,
    );
    for (const credentials of [dave, erin, as('dave'), as('erin')]) {
      const took = await until(401, TEAM, ...credentials);
      assert.ok(took < LATEST, `${took} ms`);
    }
  });

  test('the server of another authority is not believed', async () => {
    const dir = join(namespace.dir, 'other');
    mkdirSync(dir);
    const [host, up] = [`${namespace.ip}:5001`, ['up', '--addr', `${namespace.ip}:5001`, '--ip', namespace.ip]];
    const trusting = await Registry.start(namespace, up, {
      name: 'other',
      host,
      env: {
        ...env(registry.dir, join(registry.dir, 'certs', 'ca.crt')),
        REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'users'),
      },
    });
    for (const path of [TEAM, DIRECT]) {
      const argv = ['curl', '-sk', '-w', '%{http_code}', '-o', '/dev/null', ...as('alice'), `https://${host}${path}`];
      assert.equal(await namespace.must(argv), '503', path);
    }
    for (const scheme of ['ldap', 'ldaps'])
      await wrote(
        trusting,
        new RegExp(`directory ${scheme}:\\S+ cannot be used, so nobody can log in by it: self-signed`),
      );
    await trusting.stop();
  });

  test('while it is down logins fail at once, and those of the file go on; then all is well again', async () => {
    await slapd.stop();
    await sleep(CACHE);
    assert.equal(await status(TEAM, ...as('alice')), 503);
    const answers = await Promise.all(Array.from({ length: 9 }, () => curl(TEAM, ...as('bob'))));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([503]));
    assert.equal(await status(TEAM, ...as('admin', ADMIN)), 404);
    assert.equal(await status('/v2/public/nothing/manifests/v1'), 404, 'and what needs no login');
    await wrote(registry, new RegExp(`the directory ${slapd.plain} cannot be used`));
    await slapd.run();
    await until(404, TEAM, ...as('alice'));
    await wrote(registry, new RegExp(`the directory ${slapd.plain} answers again`));
  });

  test('while it is slow one login waits for it, and no other', async () => {
    slapd.signal('SIGSTOP');
    try {
      await sleep(CACHE);
      const first = await curl(TEAM, ...as('alice'));
      assert.equal(first.status, 503);
      assert.ok(first.ms >= TIMEOUT, `${first.ms} ms`);
      const ids = Array.from({ length: 9 }, (_, n) => `while-it-is-slow-${n}`);
      const answers = await Promise.all(ids.map(id => curl(TEAM, ...as('carol'), '-H', `X-Request-Id: ${id}`)));
      assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([503]));
      // One of them may have been the one that looks whether it is back. By the log: on a busy machine curl itself takes long.
      const waited: string[] = [];
      for (const id of ids) {
        const line = new RegExp(`id=${id} .* ms=([\\d.]+)`);
        await wrote(registry, line);
        const [, ms] = line.exec(registry.daemon.output)!;
        if (Number(ms) >= TIMEOUT) waited.push(`${id}: ${ms} ms`);
      }
      assert.ok(waited.length <= 1, waited.join(', '));
      assert.equal(await status(TEAM, ...as('admin', ADMIN)), 404);
    } finally {
      slapd.signal('SIGCONT');
    }
    await until(404, TEAM, ...as('alice'));
  });

  test('no password is in what it has written, and it ends as it is told', async () => {
    assert.equal(await registry.stop(), 0);
    for (const secret of [READER.password, secretOf('alice'), secretOf('bob'), ADMIN])
      assert.ok(!registry.daemon.output.includes(secret), secret);
  });
});
