import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { watchFiles } from '../../src/server/watch.js';
import { memoryLog, PAIR, serve } from '../support/listener.js';
import { selfSigned } from '../support/pair.js';

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'registry-secure-watch-'));
  t.after(() => rmSync(made, { recursive: true }));
  return made;
}

/** Watches the files; `contents` has what each reload read, a file that is missing making it fail. */
function watching(t: TestContext, paths: string[], accept: (texts: string[]) => void = () => {}) {
  const contents: string[] = [];
  const lines: Parameters<typeof memoryLog>[0] = [];
  const reload = async () => {
    const texts = paths.map(path => readFileSync(path, 'utf8'));
    accept(texts);
    contents.push(texts.join('+'));
  };
  const watch = watchFiles(paths, reload, { what: 'file', log: memoryLog(lines), interval: 20 });
  t.after(() => watch.close());
  const reaches = async (wanted: string) => {
    while (contents.at(-1) !== wanted) await sleep(5);
  };
  return { watch, contents, lines, reaches };
}

describe('watching files', { concurrency: true }, () => {
  test('a file that is written, appended to, replaced, touched or removed and brought back is read again', async t => {
    const file = join(folder(t), 'file');
    writeFileSync(file, 'a');
    const { contents, reaches, watch } = watching(t, [file]);
    writeFileSync(file, 'b');
    await reaches('b');
    appendFileSync(file, 'c');
    await reaches('bc');
    writeFileSync(`${file}.new`, 'de');
    renameSync(`${file}.new`, file);
    await reaches('de');
    // Same size and the same time of change, as an archive restores it: the inode and the change time tell.
    const before = new Date(2020, 1, 1);
    utimesSync(file, before, before);
    while (contents.length < 4) await sleep(5);
    writeFileSync(`${file}.new`, 'fg');
    utimesSync(`${file}.new`, before, before);
    renameSync(`${file}.new`, file);
    await reaches('fg');
    rmSync(file);
    await sleep(200);
    assert.equal(contents.at(-1), 'fg');
    writeFileSync(file, 'back');
    await reaches('back');
    watch.close();
    writeFileSync(file, 'after');
    await sleep(200);
    assert.equal(contents.at(-1), 'back');
  });

  test('a file that is missing at first is read when it comes', async t => {
    const file = join(folder(t), 'file');
    const { contents, reaches, lines } = watching(t, [file]);
    await sleep(100);
    writeFileSync(file, 'here');
    await reaches('here');
    assert.deepEqual(contents, ['here']);
    assert.deepEqual(
      lines.map(line => line.level),
      ['info'],
    );
  });

  test('links that are swapped, as Kubernetes does for mounted secrets', async t => {
    const mount = folder(t);
    for (const version of ['1', '2']) {
      mkdirSync(join(mount, version));
      for (const name of ['tls.crt', 'tls.key']) writeFileSync(join(mount, version, name), `${name} ${version}`);
    }
    symlinkSync('1', join(mount, '..data'));
    for (const name of ['tls.crt', 'tls.key']) symlinkSync(join('..data', name), join(mount, name));
    const { reaches } = watching(t, [join(mount, 'tls.crt'), join(mount, 'tls.key')]);
    symlinkSync('2', join(mount, '..data_tmp'));
    renameSync(join(mount, '..data_tmp'), join(mount, '..data'));
    await reaches('tls.crt 2+tls.key 2');
  });

  test('a file is not read while it is being written', async t => {
    const file = join(folder(t), 'file');
    for (let attempt = 1; ; attempt++) {
      writeFileSync(file, 'begun');
      const { contents, reaches, watch } = watching(t, [file]);
      let longest = 0;
      let last = performance.now();
      for (let piece = 0; piece < 20; piece++) {
        appendFileSync(file, 'x');
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
        await sleep(10);
      }
      await reaches(`begun${'x'.repeat(20)}`);
      watch.close();
      // On a busy machine a pause of ours may have been long enough to pass for the end.
      if (longest < 80) {
        assert.deepEqual(contents, [`begun${'x'.repeat(20)}`]);
        return;
      }
      assert.ok(attempt < 200, 'the machine was never quiet enough');
    }
  });

  test('a reload that fails is tried again and logged once, and the next good one ends it', async t => {
    const file = join(folder(t), 'file');
    writeFileSync(file, 'good');
    let broken = 0;
    const { reaches, lines } = watching(t, [file], ([text]) => {
      if (text !== 'bad') return;
      broken++;
      throw new Error('bad content');
    });
    writeFileSync(file, 'bad');
    while (broken < 4) await sleep(5);
    assert.deepEqual(
      lines.map(line => [line.level, line.message]),
      [['error', 'kept the old file']],
    );
    writeFileSync(file, 'better');
    await reaches('better');
    assert.equal(lines.length, 2);
  });

  test('a certificate and its key that are replaced one after the other', async t => {
    const made = folder(t);
    const [certificate, key] = [join(made, 'domain.crt'), join(made, 'domain.key')];
    writeFileSync(certificate, PAIR.certificate);
    writeFileSync(key, PAIR.key, { mode: 0o600 });
    const { listener } = await serve(t, (_request, response) => response.end());
    const accepted: string[] = [];
    const { lines } = watching(t, [certificate, key], texts => {
      listener.setCertificate({ certificate: texts[0]!, key: texts[1]! });
      accepted.push(texts[0]!);
    });
    const next = selfSigned();
    const replace = (path: string, text: string) => {
      writeFileSync(`${path}.new`, text, { mode: 0o600 });
      renameSync(`${path}.new`, path);
    };
    replace(certificate, next.certificate);
    while (!lines.some(line => line.level === 'error')) await sleep(5);
    replace(key, next.key);
    while (accepted.length === 0) await sleep(5);
    assert.deepEqual(accepted, [next.certificate]);
    const errors = lines.filter(line => line.level === 'error');
    assert.equal(errors.length, 1, 'a mismatch that lasts is told, once');
    assert.match(String((errors[0]!.fields!.error as Error).message), /does not belong/);
  });
});
