import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { OperatorError } from '../../src/errors.js';
import { StorageError } from '../../src/storage/driver.js';
import { gcsError } from '../../src/storage/gcs/failure.js';
import {
  Requests,
  ServiceError,
  sizeOf,
  storageFailure,
  UNREADABLE,
  wayError,
} from '../../src/storage/object/requests.js';

test('what heeds no signal is given up in time, and asked for again', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const sent = new Requests(wayError).send('GET', (_, before) =>
      before === 0 ? new Promise<string>(() => {}) : Promise.resolve('there'),
    );
    mock.timers.tick(30_000);
    for (let turns = 0; turns < 5; turns++) await turn();
    mock.timers.tick(200);
    assert.equal(await sent, 'there');
  } finally {
    mock.timers.reset();
  }
});

test('what only the operator can mend is for the log while the registry runs, and clients come again', () => {
  const error = storageFailure('read x', new OperatorError('the login is refused', { fix: 'check it' }));
  assert.ok(error instanceof StorageError);
  assert.equal(error.kind, 'unavailable');
  assert.equal(error.message, 'read x: the login is refused');
});

test('a login that is not there for a moment passes, and has no status of an object', () => {
  for (const status of [404, 408, 410, 429, 500]) {
    const error = gcsError({ message: 'No.', response: { status } });
    assert.ok(error instanceof ServiceError && error.passes, String(status));
    assert.equal(error.status, 503);
  }
  assert.ok(gcsError({ message: 'No.', response: { status: 400 } }) instanceof OperatorError);
});

test('a size that is not told is none', () => {
  assert.equal(sizeOf('0'), 0);
  for (const told of [undefined, '', 'many', '-1', '1.5'])
    assert.throws(() => sizeOf(told), { name: 'ServiceError', code: UNREADABLE });
});
