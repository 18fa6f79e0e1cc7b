import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BcryptPool } from '../../src/auth/bcrypt-pool.js';
import { parseHtpasswd } from '../../src/auth/htpasswd.js';
import { type LegacyHash, legacyKind, legacyMatches } from '../../src/auth/legacy-hash.js';

/** What Apache's htpasswd made of these passwords. */
const HASHES: ReadonlyArray<readonly [kind: LegacyHash, password: string, hash: string]> = [
  ['apr1', 'schlüssel 12', '$apr1$gPXFQEBO$.IeYSSDsvyBm/bW6/8gXC1'],
  ['apr1', 'a', '$apr1$zimAYXx3$d3lxaSMOXmOQPHgEWFVSW0'],
  ['sha1', 'schlüssel 12', '{SHA}E+ZnWxtd0FE7hRAuCmzzGSp17aE='],
  ['crypt', 'schlüssel 12', '1dy0sJkl54k4g'],
  ['crypt', 'a', 'z/dQsMbJUMr1E'],
  ['sha2-crypt', 'schlüssel 12', '$5$0QVmSC556CtMLcMF$lfaweq4nIg3AGAWRh4vohuFo3wwZM0yG89Ajl0XJ9u1'],
  [
    'sha2-crypt',
    'a',
    '$6$LWffUjPbebKO9Eip$P/x4x33l/WsK1EInIH3kmR.CIjlV0FBGGAUyIxdOnHX5ef8emzKCZsQlN8oaHN6osq.IkmdfMl4ljxIw9Szl31',
  ],
];
const BCRYPT = '$2b$04$abcdefghijklmnopqrstuuWZdGnEXOpCkPXvOHcOtnQrrJIRxuYmm';

describe('the old formats of Apache', () => {
  for (const [kind, password, hash] of HASHES)
    test(`${kind} of ${JSON.stringify(password)}`, () => {
      assert.equal(legacyKind(hash), kind);
      assert.equal(legacyMatches(password, hash), true);
      // The old crypt looks at eight bytes and no more.
      for (const wrong of [`${password}x`, `x${password}`, '', password.toUpperCase()])
        if (!(kind === 'crypt' && wrong === `${password}x` && password.length > 8))
          assert.equal(legacyMatches(wrong, hash), false, wrong);
      const last = hash.at(-2) === 'x' ? 'y' : 'x';
      assert.equal(legacyMatches(password, hash.slice(0, -2) + last + hash.at(-1)), false);
    });

  test('anything else is none of them', () => {
    for (const hash of [
      BCRYPT,
      '',
      'secret',
      '$apr1$salt$short',
      '{SHA}short',
      '{SSHA}0000',
      '$1$salt$x',
      '$6$rounds=999999999$salt$x',
    ])
      assert.equal(legacyKind(hash), undefined, hash);
    assert.equal(legacyMatches('secret', 'secret'), false, 'plain text lets nobody in');
  });

  test('count only where they are asked for, each by its name, and never without a word', () => {
    const text = HASHES.map(([, , hash], index) => `u${index}:${hash}`).join('\n');
    assert.deepEqual([...parseHtpasswd(text, 'f').users], []);
    for (const kind of ['apr1', 'sha1', 'crypt', 'sha2-crypt'] as const) {
      const { users, warnings } = parseHtpasswd(text, 'f', [kind]);
      const wanted = HASHES.flatMap(([other], index) => (other === kind ? [`u${index}`] : []));
      assert.deepEqual([...users.keys()], wanted);
      assert.match(
        warnings.join('\n'),
        new RegExp(`hashes of ${kind} are accepted .* set the passwords of "${wanted[0]}"`),
      );
    }
    assert.match(parseHtpasswd(`a:${BCRYPT}\n`, 'f', ['apr1']).warnings.join(), /no user here has one/);
  });

  test('a wrong password is as much work as with bcrypt, off the event loop', async () => {
    const pool = new BcryptPool();
    const timed = async (hash: string) => {
      // Of all threads; what else the machine does is no part of it.
      const started = process.cpuUsage();
      assert.equal(await pool.check({ passwords: ['wrong'], hash, cost: 10, network: 'n' }), false);
      const { user, system } = process.cpuUsage(started);
      return (user + system) / 1000;
    };
    await timed(BCRYPT);
    const fastest = async (hash: string) => Math.min(await timed(hash), await timed(hash), await timed(hash));
    const bcrypt = await fastest(BCRYPT);
    for (const [, , hash] of HASHES) {
      const legacy = await fastest(hash);
      assert.ok(legacy > bcrypt / 3, `${legacy} ms beside ${bcrypt} ms: ${hash}`);
    }
    for (const [, password, hash] of HASHES)
      assert.equal(await pool.check({ passwords: [password], hash, cost: 4, network: 'n' }), true);
  });
});
