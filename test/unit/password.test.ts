import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, test } from 'node:test';
import { askHidden } from '../../src/cli/password.js';

/** What comes of the chunks typed on a terminal that answers `prompts` questions. */
async function ask(chunks: ReadonlyArray<string | Buffer>, prompts = 1) {
  const raw: boolean[] = [];
  const input = Object.assign(new PassThrough(), {
    setRawMode(on: boolean) {
      raw.push(on);
      return input;
    },
  });
  let shown = '';
  const output = {
    write(text: string) {
      shown += text;
      return true;
    },
  };
  const asked = askHidden(
    Array.from({ length: prompts }, (_, i) => `${i + 1}? `),
    input as never,
    output as never,
  );
  for (const chunk of chunks) input.write(chunk);
  const answers = await asked.catch((error: Error & { exitCode: number }) => error.exitCode);
  assert.deepEqual(raw, [true, false], 'raw mode is switched on and off again');
  assert.equal(input.listenerCount('data') + input.listenerCount('end'), 0);
  return { answers, shown };
}

describe('the hidden question', () => {
  test('shows the questions and nothing of the answers', async () => {
    const { answers, shown } = await ask(['sec', 'ret\r', 'again\r'], 2);
    assert.deepEqual(answers, ['secret', 'again']);
    assert.equal(shown, '1? \n2? \n');
  });

  test('keys', async () => {
    const cases: ReadonlyArray<[string, string]> = [
      ['secreT\x7ft\r', 'secret'],
      ['x\b\b\bsecret\n', 'secret'],
      ['wrong\x15secret\r', 'secret'],
      ['sec\x1b[D\x1b[1;5C\x1bOA\x1b[3~ret\r', 'secret'],
      ['\x1b[200~secret\x1b[201~\r', 'secret'],
      ['\u{1f511}x\x7f\x7fkey\r', 'key'],
      ['tab\there\r', 'tab\there'],
    ];
    for (const [typed, answer] of cases)
      assert.deepEqual((await ask([typed])).answers, [answer], JSON.stringify(typed));
  });

  test('two lines pasted at once answer both, with whatever line end', async () => {
    for (const end of ['\n', '\r', '\r\n'])
      assert.deepEqual((await ask([`one${end}two${end}`], 2)).answers, ['one', 'two']);
  });

  test('a character that arrives in pieces', async () => {
    const bytes = Buffer.from('schlüssel\r');
    assert.deepEqual((await ask([bytes.subarray(0, 5), bytes.subarray(5)])).answers, ['schlüssel']);
  });

  test('Ctrl-C and Ctrl-D give up', async () => {
    for (const key of ['\x03', '\x04']) assert.equal((await ask([`sec${key}ret\r`])).answers, 130);
  });
});
