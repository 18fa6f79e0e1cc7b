import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureCertificates } from '../../src/pki/certificates.js';
import { importCertificate, makeRequest, signRequestFile } from '../../src/pki/elsewhere.js';
import { inspectFolder } from '../../src/pki/overview.js';
import { finishRotation, rotateAuthority } from '../../src/pki/rotation.js';
import { readPemCertificates } from '../../src/pki/x509.js';
import { clientOf } from '../support/tls-client.js';

const DYING = fileURLToPath(new URL('../support/dying-process.js', import.meta.url));
const OVERLAP = 86_400_000;
const names = ['192.168.0.12', 'localhost'];
const passphrase = async () => 'correct horse';

// A process is killed before each of its changes to the folder in turn. Whatever it leaves, the registry serves from it,
// and all that was to happen has happened, or nothing.
describe('certificates, killed at every step', { timeout: 600_000 }, () => {
  let root: string;
  let dir: string;
  let folders: { plain: string; rotating: string; asking: string };
  let signed: string;
  let clients: { old: string; both: string };
  const read = (name: string, folder = dir) => readFileSync(join(folder, name), 'utf8');
  const client = (ca: string) => clientOf(dir, ca, '192.168.0.12');

  before(async () => {
    root = mkdtempSync(join(tmpdir(), 'killed-'));
    dir = join(root, 'certs');
    signed = join(root, 'signed.crt');
    folders = { plain: join(root, 'plain'), rotating: join(root, 'rotating'), asking: join(root, 'asking') };
    await ensureCertificates({ dir: folders.plain, names });
    cpSync(folders.plain, folders.rotating, { recursive: true });
    await rotateAuthority({ dir: folders.rotating, names: ['reg.example.com'], overlap: OVERLAP });
    await makeRequest({ dir: folders.asking, names, machineNames: [] });
    const { pem } = await signRequestFile({ dir: folders.rotating, request: join(folders.asking, 'domain.csr') });
    writeFileSync(signed, pem);
    clients = { old: read('ca.crt', folders.plain), both: read('ca.crt', folders.rotating) };
  });
  after(() => rmSync(root, { recursive: true }));

  /** Runs the change again and again on a fresh copy, dying one step later each time, and looks at what each left. */
  async function dying(
    what: string,
    from: keyof typeof folders,
    look: (completed: boolean, where: string) => Promise<void>,
  ): Promise<number> {
    for (let count = 1; ; count++) {
      rmSync(dir, { recursive: true, force: true });
      cpSync(folders[from], dir, { recursive: true });
      const died = spawnSync(process.execPath, [DYING, `${count}`, what, dir, signed], { encoding: 'utf8' });
      const completed = died.status === 0;
      assert.ok(completed || died.signal === 'SIGKILL', died.stderr);
      const where = `${what}, killed before change ${count}`;
      await look(completed, where);
      assert.deepEqual((await inspectFolder(dir)).problems, [], where);
      const left = readdirSync(dir).filter(file => file.startsWith('.') && !file.startsWith('.lock'));
      assert.deepEqual(left, [], where);
      if (completed) return count - 1;
    }
  }

  async function served(where: string): Promise<void> {
    const { warnings } = await ensureCertificates({ dir, names, passphrase });
    assert.deepEqual(warnings, [], where);
    assert.equal(await client(read('ca.crt')), undefined, where);
  }

  test('the beginning of a rotation', async t => {
    let begun = 0;
    const steps = await dying('rotate', 'plain', async (_completed, where) => {
      await served(where);
      assert.equal(await client(clients.old), undefined, where);
      const rotating = existsSync(join(dir, 'ca.cross.crt'));
      assert.equal(readPemCertificates(read('ca.crt')).length, rotating ? 2 : 1, where);
      if (rotating) begun++;
      // Either way it goes on from here.
      if (rotating) await finishRotation({ dir });
      else await rotateAuthority({ dir, names: [], overlap: OVERLAP });
    });
    assert.ok(begun > 5 && begun < steps - 5, `${begun} of ${steps} were completed`);
    t.diagnostic(`killed before each of ${steps} changes; ${begun} were completed, the others undone`);
  });

  test('the end of a rotation', async t => {
    let ended = 0;
    const steps = await dying('finish', 'rotating', async (_completed, where) => {
      await served(where);
      assert.equal(await client(clients.both), undefined, where);
      const rotating = existsSync(join(dir, 'ca.cross.crt'));
      assert.equal((await client(clients.old)) === undefined, rotating, where);
      assert.equal((await clientOf(dir, read('ca.crt'), 'reg.example.com')) === undefined, !rotating, where);
      if (!rotating) ended++;
    });
    assert.ok(ended > 5 && ended < steps - 5, `${ended} of ${steps} were completed`);
    t.diagnostic(`killed before each of ${steps} changes; ${ended} were completed, the others undone`);
  });

  test('a renewal', async t => {
    const before = read('domain.crt', folders.plain);
    const steps = await dying('renew', 'plain', async (completed, where) => {
      await served(where);
      assert.equal(await client(clients.old), undefined, where);
      if (completed) assert.notEqual(read('domain.crt'), before);
    });
    assert.ok(steps > 8, `${steps}`);
    t.diagnostic(`killed before each of ${steps} changes`);
  });

  test('taking in what was signed elsewhere', async t => {
    const steps = await dying('import', 'asking', async (_completed, where) => {
      const before = await ensureCertificates({ dir, names, passphrase }).catch(error => error);
      if (!existsSync(join(dir, 'domain.crt'))) {
        assert.match(String(before), /domain\.key waits for its certificate/, where);
        await importCertificate({ dir, files: [signed] });
      }
      await served(where);
      for (const ca of [clients.old, clients.both]) assert.equal(await client(ca), undefined, where);
    });
    assert.ok(steps > 8, `${steps}`);
    t.diagnostic(`killed before each of ${steps} changes`);
  });

  test('the encryption of the key', async t => {
    const before = read('ca.key', folders.plain);
    const steps = await dying('passphrase', 'plain', async (completed, where) => {
      await ensureCertificates({ dir, names: [...names, 'reg.lan'], passphrase });
      await served(where);
      const encrypted = read('ca.key').includes('ENCRYPTED');
      assert.ok(encrypted || (!completed && read('ca.key') === before), where);
    });
    assert.ok(steps > 5, `${steps}`);
    t.diagnostic(`killed before each of ${steps} changes`);
  });
});
