import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { RegistryFixture } from '../support/registry-fixture.js';

const SERVICE = 65532;

/** Every owner of what is in a folder. */
function ownersIn(folder: string): number[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map(name => join(folder, name));
  return [...new Set([folder, ...paths].map(path => statSync(path).uid))];
}

describe('root that works on the data of another user', () => {
  let registry: RegistryFixture;
  let scratch: string;
  before(async () => {
    if (process.getuid?.() !== 0) throw new Error('this test changes owners: run it as root');
    scratch = mkdtempSync(join(tmpdir(), 'registry-owner-'));
    // The other user must get at the volumes below.
    chmodSync(scratch, 0o755);
    registry = await RegistryFixture.start();
    await registry.pushImage('team/app', 'v1');
    for (const to of ['backup', 'backup.tar']) await run(['backup', at(to), '--root', registry.root]);
  });
  after(async () => {
    await registry.stop();
    rmSync(scratch, { recursive: true, force: true });
  });

  const at = (name: string) => join(scratch, name);
  async function run(args: string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
    const { status, stdout, stderr } = await LocalRegistry.run(scratch, args, { env });
    assert.equal(status, 0, stderr);
    return stdout;
  }
  function volume(name: string, owner: number): string {
    mkdirSync(at(name));
    chownSync(at(name), owner, owner);
    return at(name);
  }

  test('restores an archive that only root can read, for that user', async () => {
    const root = volume('theirs', 1234);
    assert.match(await run(['restore', at('backup.tar'), '--root', root]), /^1 tags restored/);
    assert.deepEqual(ownersIn(root), [1234]);
  });

  test('says how to restore a folder that only root can read', async () => {
    const root = volume('piped', 1234);
    const { status, stderr } = await LocalRegistry.run(scratch, ['restore', at('backup'), '--root', root]);
    assert.equal(status, 1);
    assert.match(
      stderr,
      /backup may not be read by the owner of the data folder, user 1234; pass it on: registry-secure backup - --root \S+backup \| registry-secure restore -\n$/,
    );
    chmodSync(at('backup'), 0o755);
    assert.match(await run(['restore', at('backup'), '--root', root]), /^1 tags restored/);
    assert.deepEqual(ownersIn(root), [1234]);
  });

  test('leaves an empty volume to whom the image serves it as, and on a machine to root', async () => {
    const given = volume('given', 0);
    await run(['restore', at('backup.tar'), '--root', given], { REGISTRY_SECURE_USER: 'volume' });
    assert.deepEqual(ownersIn(given), [SERVICE]);
    const kept = volume('kept', 0);
    await run(['restore', at('backup.tar'), '--root', kept]);
    assert.deepEqual(ownersIn(kept), [0]);
  });
});
